"""`Device`: an Android device reached through the `adb` program. No shell is involved on this side.

    device = choose(find(), serial=None)
    device.ask(f"cat {quote(['/proc/meminfo'])}", timeout=10)

An exit code of 0 proves nothing: adb 29 and 34 return it when the device vanishes in the middle of a command. `ask`
therefore requires an end mark that the device itself prints.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from tprune.base.errors import BadInput, WorkFailed

SHORT = 20.0  # seconds that a short command may take, including the start of adb's server
POLL = 0.1  # seconds until a call notices a request to stop
DONE = "@@done"

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class AdbFailed(WorkFailed):
    """adb or the connection to a device failed. The message is one line and includes what to do."""


class Stopped(AdbFailed):
    """A call ended because the device's `stop` was set."""


@dataclass(frozen=True)
class Attached:
    """One line of `adb devices -l`."""

    serial: str
    state: str  # "device" when it can be used


@dataclass(frozen=True)
class Done:
    """How a command ended. `code` is adb's exit code; a 0 may be wrong."""

    code: int
    out: str
    err: str


def find(explicit: str | None = None) -> Path:
    """Return the adb program: `explicit`, $ADB, PATH, the Android SDK's, or the copy in the package adbutils.

    Raise BadInput when the named one cannot be run, AdbFailed when there is none.
    """
    for origin, named in (("--adb", explicit), ("$ADB", os.environ.get("ADB"))):
        if named:
            found = shutil.which(named)
            if found is None:
                raise BadInput(f"{origin} {named!r}: there is no such program")
            return Path(found)
    places: list[str | None] = [None]  # None: PATH
    places += [
        f"{os.environ[name]}/platform-tools" for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if name in os.environ
    ]
    spec = importlib.util.find_spec("adbutils")
    if spec is not None and spec.origin is not None:
        places.append(str(Path(spec.origin).parent / "binaries"))
    for place in places:
        if found := shutil.which("adb", path=place):
            return Path(found)
    raise AdbFailed(
        "no adb here: install Android's platform-tools (Debian: apt install adb; or pip install adbutils), "
        "or name the program with --adb"
    )


def attached(adb: Path) -> list[Attached]:
    """Return every device that adb lists, in any state. Raise AdbFailed when adb does not answer."""
    try:
        done = _run([str(adb), "devices", "-l"], SHORT, Event())
    except TimeoutError:
        raise AdbFailed(f"`{adb.name} devices` did not answer within {SHORT:g} s; try: adb kill-server") from None
    head, _, rest = done.out.partition("List of devices attached")
    if done.code or "List of devices attached" not in done.out:
        raise AdbFailed(f"`{adb.name} devices` failed: {_last_line(done.err or head) or f'exit code {done.code}'}")
    return parse_devices(rest)


def parse_devices(text: str) -> list[Attached]:
    """Parse the lines of `adb devices -l`, without those about adb itself (`* daemon ...`)."""
    found = []
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" " if "\t" not in line else "\t")
        rest = rest.strip()
        if not rest or serial == "*":
            continue
        state = "no permissions" if rest.startswith("no permissions") else rest.split()[0]
        found.append(Attached(serial, state))
    return found


def choose(adb: Path, serial: str | None, stop: Event | None = None) -> Device:
    """Return the device with this serial; None takes $ANDROID_SERIAL, or the only usable one.

    Raise BadInput when the choice is ambiguous or the device is not attached, and AdbFailed when it cannot be used.
    """
    known = attached(adb)
    serial = serial or os.environ.get("ANDROID_SERIAL")
    usable = [one for one in known if one.state == "device"]
    if serial is None and len(usable) > 1:
        names = [one.serial for one in usable]
        raise BadInput(
            f"{len(names)} devices are attached ({', '.join(names)}): name one with --on adb:{names[0]}, or several "
            f"with --on adb:{','.join(names[:2])}"
        )
    if serial is None and not known:
        raise AdbFailed(
            "no Android device is attached: switch on USB debugging (Settings, Developer options), plug the phone in "
            "with a data cable and unlock it; over Wi-Fi: adb connect HOST:PORT"
        )
    meant = usable if serial is None and usable else [one for one in known if serial in {None, one.serial}]
    if not meant:
        there = ", ".join(one.serial for one in known) or "none"
        wifi = (
            f"; a device on the network has to be connected first: adb connect {serial}" if ":" in str(serial) else ""
        )
        raise BadInput(f"device {serial!r} is not attached; attached: {there}{wifi}")
    if meant[0].state != "device":
        raise AdbFailed("; ".join(_why_not(one) for one in meant))
    return Device(adb, meant[0].serial, stop or Event())


def _why_not(one: Attached) -> str:
    cures = {
        "unauthorized": "unlock its screen and allow USB debugging for this computer (no question there: "
        "adb kill-server, then plug it in again)",
        "authorizing": "unlock its screen and allow USB debugging for this computer",
        "offline": "plug it in again, or try: adb reconnect offline",
        "no permissions": "this user may not open it: install the udev rules (Debian: apt install "
        "android-sdk-platform-tools-common), join the group plugdev, log in anew and plug it in again",
    }
    cure = cures.get(one.state, "start Android on it, then try again")
    return f"device {one.serial} cannot be used, its state is {one.state!r}: {cure}"


def quote(argv: Sequence[str]) -> str:
    """Quote the words for a POSIX shell. Raise BadInput for a NUL, which no command line can carry."""
    if any("\0" in word for word in argv):
        raise BadInput(f"{list(argv)!r} holds a NUL character, which no shell can pass on")
    return shlex.join(argv)


@dataclass(frozen=True)
class Device:
    """One usable device. Setting `stop` ends the current call, which then raises Stopped."""

    adb: Path
    serial: str
    stop: Event = field(default_factory=Event)

    def shell(self, script: str, *, timeout: float) -> Done:
        """Run `script` in the device's shell and return adb's result. Raise AdbFailed after `timeout` seconds.

        The remote processes ended with the adb client in all versions that were tried, but this is not guaranteed.
        """
        return self._call(["shell", script], timeout, "its shell")

    def ask(self, script: str, *, timeout: float = SHORT) -> str:
        """Run `script` in a subshell and return its stdout, once the device confirmed that it ended with 0.

        Raise AdbFailed with the last line of output when it failed, or when the device was lost.
        """
        done = self.shell(f'(\n{script}\n)\ncode=$?; echo; echo "{DONE} $code"', timeout=timeout)
        out, marked, code = done.out.rpartition(f"{DONE} ")
        if not marked:
            raise AdbFailed(self.lost(done))
        if code.strip() != "0":
            raise AdbFailed(f"device {self.serial}: {_last_line(done.err or out) or f'exit code {code.strip()}'}")
        return out[: -len("\n")]

    def push(self, local: Path, remote: str, *, progress: Progress | None = None, timeout: float = 600.0) -> None:
        """Copy a file, or the files of a folder, to `remote`, the full path of the copy. A folder must already exist.

        The absence of an error does not prove that the bytes arrived; compare them there. `timeout` is per file.
        Raise AdbFailed with adb's reason.
        """
        local = local.resolve()
        files = sorted(path for path in local.rglob("*") if path.is_file()) if local.is_dir() else [local]
        total, done = sum(path.stat().st_size for path in files), 0
        for path in files:
            if progress is not None:
                progress(done, total)
            there = f"{remote}/{path.relative_to(local).as_posix()}" if local.is_dir() else remote
            self._transfer(["push", str(path), there], timeout, f"copying {path.name} to it")
            done += path.stat().st_size
        if progress is not None:
            progress(done, total)

    def pull(self, remote: str, local: Path, *, timeout: float = 600.0) -> None:
        """Copy the file `remote` to `local`. Raise AdbFailed with adb's reason, also when nothing was copied."""
        self._transfer(["pull", remote, str(local)], timeout, f"copying {remote} from it")
        if not local.exists():
            raise AdbFailed(f"device {self.serial}: adb copied nothing of {remote}")

    def is_there(self) -> bool:
        """Return whether adb can reach the device now."""
        with suppress(AdbFailed):
            return self._call(["get-state"], SHORT, "its state").out.strip() == "device"
        return False

    def unstoppable(self) -> Device:
        """Return the same device without `stop`, for cleaning up after a stop was requested."""
        return Device(self.adb, self.serial)

    def _transfer(self, words: list[str], timeout: float, what: str) -> None:
        done = self._call(words, timeout, what)
        if done.code:
            errors = re.findall(r"^(?:adb: )?error: (.{1,300})", done.err + "\n" + done.out, re.MULTILINE)
            reason = errors[0] if errors else _last_line(done.err or done.out)
            if "No space left" in reason:
                reason += "; free some space on it, or remove our files: tprune bench --on adb --clean"
            raise AdbFailed(f"device {self.serial}: {what} failed: {reason or f'exit code {done.code}'}")

    def _call(self, words: list[str], timeout: float, what: str) -> Done:
        try:
            return _run([str(self.adb), "-s", self.serial, *words], timeout, self.stop)
        except TimeoutError:
            raise AdbFailed(
                f"device {self.serial}: {what} took more than {timeout:g} s and was given up; look at its screen, plug "
                "it in again if necessary, and repeat the command"
            ) from None

    def lost(self, done: Done) -> str:
        """Return the message for a device that vanished during a call."""
        reason = _last_line(done.err) or "adb gave no reason"
        return f"device {self.serial} was lost ({reason}); plug it in again and repeat the command to resume"


def _run(argv: list[str], timeout: float, stop: Event) -> Done:
    """Run one adb client with stdin closed. Raise TimeoutError, Stopped, or AdbFailed when it cannot be started."""
    if stop.is_set():
        raise Stopped("stopped by Ctrl-C or a signal")
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the benchmark, which then ends its clients itself
        )
    except OSError as error:
        raise AdbFailed(f"cannot run {argv[0]!r}: {error.strerror}") from None
    deadline = time.monotonic() + timeout
    with process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(timeout=min(POLL, max(0.001, deadline - time.monotonic())))
                    return Done(process.returncode, *(text.decode("utf-8", "replace") for text in (out, err)))
                if stop.is_set():
                    raise Stopped("stopped by Ctrl-C or a signal")
                if time.monotonic() > deadline:
                    raise TimeoutError
        finally:
            process.kill()  # no effect on a process that has ended


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
