"""The device double: what tests and `bench/phone` may rely on when they talk to one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.double import parts
from tests.double.device import Double, free_port, started
from tests.double.missing import Missing
from tests.double.server import Server, serving
from tests.support.command import ROOT, contents, wait_for, wait_until
from tprune.bench.phone import facts as phone

# The smallest program for aarch64: `mov x0, 7; mov x8, exit; svc 0` behind an ELF header and one segment.
ARM = bytes.fromhex(
    "7f454c46020101000000000000000000" "0200b70001000000" "7800400000000000" "4000000000000000" "0000000000000000"
    "00000000400038000100000000000000" "0100000005000000" "0000000000000000" "0000400000000000" "0000400000000000"
    "8400000000000000" "8400000000000000" "0000010000000000" "e00080d2" "a80b80d2" "010000d4"
)  # fmt: skip


def run(server: Server, double: Double, script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in the shell of `double`."""
    command = (server.adb, "-s", double.serial, "shell", script)
    return subprocess.run(
        command,
        env=server.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("script, code", [("true", 0), ("exit 7", 7), ("kill -SEGV $$", 139), ("kill -9 $$", 137)])
def test_a_command_ends_as_on_android(adb_server, quick_double, script, code):
    assert run(adb_server, quick_double, script).returncode == code


def test_its_user_is_shell_and_may_do_nothing_special(adb_server, quick_double):
    said = run(adb_server, quick_double, "id; grep CapEff /proc/self/status; pwd; echo $TMPDIR").stdout.splitlines()
    assert said[0].startswith("uid=2000(shell) gid=2000(shell)")
    assert said[1:] == ["CapEff:\t0000000000000000", "/", "/data/local/tmp"]


def test_it_sees_its_own_processes_only_and_runs_as_nobody_of_importance(adb_server, quick_double):
    names = run(adb_server, quick_double, "ps -A -o ARGS").stdout
    assert "adbd" in names and "python" not in names
    assert quick_double.root.parent.stat().st_uid == (os.geteuid() or pwd.getpwnam("nobody").pw_uid)


def test_it_runs_aarch64_programs_as_typed(adb_server, double):
    place = double.root / "data/local/tmp/seven"
    place.write_bytes(ARM)
    place.chmod(0o755)
    assert run(adb_server, double, "cd /data/local/tmp && ./seven").returncode == 7
    place.unlink()


def test_the_quick_one_runs_no_aarch64_programs(adb_server, quick_double):
    place = quick_double.root / "data/local/tmp/seven"
    place.write_bytes(ARM)
    place.chmod(0o755)
    said = run(adb_server, quick_double, "/data/local/tmp/seven")
    assert said.returncode == 1 and "not executable: 64-bit ELF file" in said.stderr
    place.unlink()


@pytest.mark.parametrize("name, abi", [("double", "arm64-v8a"), ("quick_double", "x86_64")])
def test_the_probe_reads_it(request, adb_server, name, abi):
    found = phone.parse(run(adb_server, request.getfixturevalue(name), f"D=/data/local/tmp{phone.PROBE}").stdout)
    assert found.abis[0] == abi and found.emulated
    assert [core.capacity for core in found.cores] == [1024, 1024, 498, 498, 160, 160, 160, 160]
    assert set(found.big_cores()) <= {0, 1}
    assert phone.preflight(found) == []


def test_what_it_keeps_of_settings_can_be_read_again(adb_server, doubles):
    one = doubles(abi="x86_64")
    script = """
        settings get global stay_on_while_plugged_in; svc power stayon usb; settings get global stay_on_while_plugged_in
        input keyevent KEYCODE_SLEEP; dumpsys power | grep mWakefulness
        cmd power set-fixed-performance-mode-enabled true; settings get power fixed_performance"""
    said = run(adb_server, one, script)
    assert said.stdout.split() == ["null", "2", "mWakefulness=Asleep", "true"] and said.stderr == ""


def test_files_survive_the_way_there_and_back(adb_server, quick_double, tmp_path):
    there = "/data/local/tmp/it's here"
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 5000)
    adb_server.call("-s", quick_double.serial, "push", str(tmp_path / "sent"), there)
    adb_server.call("-s", quick_double.serial, "pull", there, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    (quick_double.root / there[1:]).unlink()


def test_nobody_but_this_machine_can_reach_it(quick_double):
    port = f"{int(quick_double.serial.partition(':')[2]):04X}"
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    listening = [words[1].partition(":")[0] for words in lines if words[1].endswith(f":{port}") and words[3] == "0A"]
    assert listening == ["0000000000000000FFFF00000100007F"]


def test_what_runs_on_it_survives_a_pulled_cable(adb_server, doubles):
    one = doubles(abi="x86_64")
    script = "cd /data/local/tmp; >began; while [ ! -e stop ]; do sleep 0.05; done; echo yes >ended"
    command = (adb_server.adb, "-s", one.serial, "shell", script)
    with subprocess.Popen(command, env=adb_server.environment, stdin=subprocess.DEVNULL, text=True) as process:
        wait_for(process, (one.root / "data/local/tmp/began").exists)
        one.unplug()
        process.wait(timeout=120)
    one.plug()
    adb_server.connect(one)
    wait = "cd /data/local/tmp; >stop; while [ ! -s ended ]; do sleep 0.05; done; cat ended"
    assert run(adb_server, one, wait).stdout == "yes\n"


@pytest.mark.parametrize("kind", ["write", "read"])
def test_it_gets_lost_in_the_middle_of_a_file(adb_server, doubles, tmp_path, kind):
    one = doubles(abi="x86_64")
    (tmp_path / "local").write_bytes(bytes(1_000_000))
    (one.root / "data/local/tmp/remote").write_bytes(bytes(1_000_000))
    one.lose(kind, 500_000)
    words = ("push", str(tmp_path / "local"), "/data/local/tmp/pushed")
    if kind == "read":
        words = ("pull", "/data/local/tmp/remote", str(tmp_path / "pulled"))
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 1"):
        adb_server.call("-s", one.serial, *words)
    one.unplug()
    one.plug()
    adb_server.connect(one)
    adb_server.call("-s", one.serial, *words)  # the order was for once


def test_its_storage_can_be_small(adb_server, doubles, tmp_path):
    one = doubles(abi="x86_64", storage="64k")
    (tmp_path / "big").write_bytes(bytes(100_000))
    said = run(adb_server, one, "head -c 100000 /dev/zero >/data/local/tmp/big")
    assert said.returncode == 1 and "No space left on device" in said.stderr


def test_two_are_two_devices(adb_server, double, quick_double):
    listed = adb_server.call("devices")
    assert f"{double.serial}\tdevice" in listed and f"{quick_double.serial}\tdevice" in listed
    assert run(adb_server, quick_double, "getprop ro.product.cpu.abi").stdout == "x86_64\n"
    assert run(adb_server, double, "getprop ro.product.cpu.abi").stdout == "arm64-v8a\n"


def test_it_ends_with_the_block_and_leaves_nothing(quick_double):
    with started(abi="x86_64") as one:
        folder = Path(os.readlink(one.root)).parent
        assert contents(folder)
    assert not one.root.exists() and not folder.exists()


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_whoever_started_it(quick_double, word):
    command = (sys.executable, "-m", "tests.double", "start", "--abi", "x86_64", "--port", str(free_port()))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        root = Path(line.partition("its files: ")[2].partition(";")[0])
        folder = Path(os.readlink(root)).parent
        process.send_signal(word)
        process.wait(timeout=120)
    wait_until(lambda: not root.exists())
    assert process.returncode == (-9 if word == signal.SIGKILL else 0)
    if word == signal.SIGKILL:  # nobody was left to tidy up
        shutil.rmtree(folder)
    assert not folder.exists()


@pytest.fixture
def hide(monkeypatch):
    """Return a function after which a program cannot be found."""
    which = shutil.which
    return lambda hidden: monkeypatch.setattr(shutil, "which", lambda tool: None if tool == hidden else which(tool))


@pytest.mark.parametrize(
    "tool, abi, message",
    [
        ("unshare", "x86_64", "needs unshare, which is not here"),
        ("cc", "x86_64", "needs cc, which is not here"),
        ("qemu-aarch64-static", "arm64-v8a", "needs qemu-aarch64-static .*apt-get install qemu-user-static"),
    ],
)
def test_a_machine_that_lacks_a_tool_is_told(quick_double, hide, tool, abi, message):
    hide(tool)
    with pytest.raises(Missing, match=message), started(abi=abi):
        pass


@pytest.mark.parametrize(
    "script, message",
    [
        ("echo 'unshare failed: Operation not permitted' >&2; exit 1", "needs user, process and mount namespaces"),
        ("case $* in *binfmt*) echo 'no such mount' >&2; exit 1;; esac", r"binfmt_misc of its own \(Linux 6.7"),
    ],
)
def test_a_kernel_that_refuses_is_named(double, monkeypatch, script, message):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where nobody, who calls it, may go
        Path(name).chmod(0o755)
        (Path(name) / "unshare").write_text(f"#!/bin/sh\n{script}\n")
        (Path(name) / "unshare").chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        with pytest.raises(Missing, match=message), started():
            pass


def test_without_the_parts_it_says_how_to_fetch_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Missing, match="python -m tests.double fetch"), started():
        pass


def test_without_adb_there_is_no_server(tmp_path, monkeypatch, hide):
    hide("adb")
    monkeypatch.delenv("ADB", raising=False)
    with pytest.raises(Missing, match="of no use without adb .*apt-get install adb"), serving(tmp_path):
        pass


@pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb"])
def test_without_apt_nothing_is_fetched(tmp_path, monkeypatch, hide, tool):
    hide(tool)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(Missing, match=f"there is no {tool} here"):
        parts.fetch()
    assert not (tmp_path / "cache").exists()


def test_when_apt_fails_its_last_words_are_passed_on(tmp_path, monkeypatch):
    if not Path("/etc/os-release").is_file():
        pytest.skip("needs a Linux distribution's /etc/os-release")
    (tmp_path / "bin").mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho first >&2\necho 'E: nobody home' >&2\nexit 100\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(Missing, match="apt-get ended with 100 and said: E: nobody home"):
        parts.fetch()
    assert not [name for name in contents(tmp_path / "cache") if name.count("/") > 1]
