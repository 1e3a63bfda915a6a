"""One double: started, unplugged, plugged in again, ended; and the knobs for what goes wrong with devices."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import looks, parts
from .missing import Missing

HERE = Path(__file__).parent
SECONDS = 120  # for what takes a tenth of one where nothing else runs
FRESH = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
EMULATOR = "qemu-aarch64-static"
BINFMT = "/proc/sys/fs/binfmt_misc"
STORAGE = "data/local/tmp"


class Double:
    """A running device: `serial` is its name for adb, `root` its file tree as this machine sees it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.serial = f"127.0.0.1:{port}"
        self._process = process
        self._port = port
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.root = Path(f"/proc/{children.read_text().split()[0]}/root")

    def plug(self) -> None:
        """Start adbd and wait until it listens."""
        self._order("plug", self._port)
        wait_for_listener(self._port)

    def unplug(self) -> None:
        """Kill adbd, dead or alive, as if the cable were pulled: what runs on the device runs on."""
        self._order("unplug")

    def lose(self, kind: str, after: int) -> None:
        """Let adbd die after so many bytes of "write" (it does so for a push) or "read" (a pull) on files in /data."""
        (self.root / "adbd" / "lose").write_text(f"{kind} {after}\n")

    def set_property(self, name: str, value: str) -> None:
        """Let getprop answer `value` from now on."""
        file = self.root / "system" / "build.prop"
        others = [line for line in file.read_text().splitlines() if line.partition("=")[0] != name]
        file.write_text("".join(f"{line}\n" for line in (*others, f"{name}={value}")))

    def log(self) -> str:
        """What adbd said."""
        file = self.root / "adbd" / "log"
        return file.read_text(errors="replace") if file.is_file() else ""

    def _order(self, *words: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], (), (), SECONDS)
        answer = self._process.stdout.readline() if ready else "nothing"
        assert answer.strip() == words[0], f"the double answered {answer!r} to {words}: {self.log()}"


@contextmanager
def started(*, abi: str = "arm64-v8a", port: int | None = None, storage: str = "") -> Iterator[Double]:
    """Run a double of that ABI, plugged in at a port of loopback (any free one by default), until the block ends.

    `storage` is the size of its /data/local/tmp as mount says it ("8m"); without it this machine's disk is the limit.
    Raises Missing where no double can run.
    """
    image, emulator = parts.cached(), _check(abi)
    folder = Path(tempfile.mkdtemp(prefix="double-", dir="/tmp"))  # where nobody, too, may go
    try:
        _build(image, folder, abi)
        with subprocess.Popen(
            (*FRESH, "sh", folder / "enter.sh", folder / "root", storage, emulator),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            **_user(),
        ) as process:  # which ends when the block closes its stdin, or when we die and the system closes it
            try:
                assert process.stdout is not None
                hello = process.stdout.readline()
                assert hello == "booted\n", f"the double did not start; it said {hello!r} (and more on stderr)"
                double = Double(process, port or free_port())
                double.plug()
                yield double
            finally:
                process.stdin and process.stdin.close()
    finally:
        shutil.rmtree(folder)


def _build(image: Path, folder: Path, abi: str) -> None:
    """Make the device's root in `folder`, owned by the user that it is going to run as."""
    root = folder / "root"
    shutil.copytree(image, root, symlinks=True)
    shutil.copytree(HERE / "system", root / "system", dirs_exist_ok=True)
    for program in (HERE / "system" / "bin").iterdir():
        (root / "system" / "bin" / program.name).chmod(0o755)
    for name in (STORAGE, "proc", "dev"):
        (root / name).mkdir(parents=True)
    looks.dress(root, abi)
    shutil.copy(HERE / "enter.sh", folder)
    command = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", root / "adbd" / "loopback.so")
    subprocess.run((*command, HERE / "loopback.c"), check=True)
    if user := _user():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user["user"], user["group"], follow_symlinks=False)


def _user() -> dict[str, Any]:
    """Return as whom to start the device: root hands it to nobody, since user 0 owns too much even in namespaces."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}


def _check(abi: str) -> str:
    """Return the emulator for that ABI ("" when none is needed); Missing when this machine cannot do what it takes."""
    for tool in ("unshare", "cc"):
        if shutil.which(tool) is None:
            raise Missing(f"the device double needs {tool}, which is not here")
    _try("user, process and mount namespaces", "mount -t proc proc /proc && unshare --user --map-user=2000 true")
    if abi != "arm64-v8a":
        return ""
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise Missing(f"the arm64 device double needs {EMULATOR} (Debian: apt-get install qemu-user-static)")
    _try("a binfmt_misc of its own (Linux 6.7 and later)", f"mount -t binfmt_misc binfmt_misc {BINFMT}")
    return emulator


def _try(what: str, script: str) -> None:
    done = subprocess.run(
        (*FRESH, "sh", "-c", script),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **_user(),
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise Missing(f"the device double needs {what}, and this machine said: {said[-1]}")


def wait_for_listener(port: int) -> None:
    """Wait until somebody listens at that port of loopback."""
    for _ in range(SECONDS * 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"nobody listens at port {port} after {SECONDS} s")


def free_port() -> int:
    """Return a port of loopback at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
