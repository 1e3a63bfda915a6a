"""adb through a fake adb script: finding it, choosing a device, quoting, and not trusting exit code 0."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.command import wait_until
from tests.support.fake_adb import FakePhone, late_after, path_without_adb
from tprune.base.errors import BadInput
from tprune.bench.phone import adb
from tprune.bench.phone.adb import AdbFailed, Attached, Device, Stopped

HOSTILE = (
    "", "-n", "a b", "'", '"', "`id`", "$(id)", "${HOME}", "a\nb", "\n", "*", "~", ";", "&& rm -rf /", "\\", "a\\", "!",
    "#", "\t", "é", "\u202e", "\x7f", "\x1b[2J", "=", "--", "%s", "{a,b}", "[a]", "|", "<x", ">x",
)  # fmt: skip


@pytest.fixture
def phone(tmp_path: Path, monkeypatch) -> FakePhone:
    for name in ("ADB", "ANDROID_SERIAL", "ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return FakePhone(tmp_path / "phone")


@pytest.fixture
def device(phone) -> Device:
    return adb.choose(phone.adb, "S1")


words = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\1"), max_size=12),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@example(list(HOSTILE))
@given(words)
def test_what_a_real_shell_receives_is_what_was_sent(sent):
    script = f"for word in {adb.quote(sent)}; do printf '%s\\1' \"$word\"; done"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\1")[:-1] == sent


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(words)
def test_quoting_survives_adb_and_the_remote_shell(device, sent):
    told = device.ask(f"for word in {adb.quote(sent)}; do printf '%s\\1' \"$word\"; done")
    assert told.removesuffix("\n").split("\1")[:-1] == sent


def test_quoting_survives_a_real_adbd_and_the_shell_of_android(at_adb, quick_double):
    device = adb.choose(Path(at_adb.adb), quick_double.serial)
    told = device.ask(f"for word in {adb.quote(HOSTILE)}; do printf '%s\\1' \"$word\"; done")
    assert told.removesuffix("\n").split("\1")[:-1] == list(HOSTILE)


def test_a_nul_cannot_be_quoted():
    with pytest.raises(BadInput, match=r"'a\\x00b'.* NUL"):
        adb.quote(["a\0b"])


# find


def test_the_program_that_was_named_comes_first(phone, monkeypatch, tmp_path):
    other = phone.script(tmp_path / "other", "#!/bin/sh\n")
    monkeypatch.setenv("ADB", str(other))
    assert adb.find(str(phone.adb)) == phone.adb
    assert adb.find() == other


def test_adb_of_the_sdk_and_of_adbutils(monkeypatch, tmp_path, phone):
    monkeypatch.setenv("PATH", path_without_adb())
    package = tmp_path / "site" / "adbutils"
    (package / "binaries").mkdir(parents=True)
    (package / "__init__.py").touch()
    copy = phone.script(package / "binaries" / "adb", "#!/bin/sh\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert adb.find() == copy
    (tmp_path / "sdk" / "platform-tools").mkdir(parents=True)
    tools = phone.script(tmp_path / "sdk" / "platform-tools" / "adb", "#!/bin/sh\n")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert adb.find() == tools


def test_there_is_no_adb(monkeypatch, phone):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(adb.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AdbFailed, match="no adb here: install Android's platform-tools"):
        adb.find()
    with pytest.raises(BadInput, match="--adb '/nonexistent/adb': there is no such program"):
        adb.find("/nonexistent/adb")
    monkeypatch.setenv("ADB", "nothing-of-this-name")
    with pytest.raises(BadInput, match=r"\$ADB 'nothing-of-this-name'"):
        adb.find()


# devices

LISTED = """
* daemon not running; starting now at tcp:5037
R58M123 device usb:1-1 product:o1s model:SM_G991B device:o1s transport_id:1
192.168.1.5:5555       device product:x model:y
0123456789ABCDEF       unauthorized usb:1-2 transport_id:4
????????????           no permissions (missing udev rules? user is in the plugdev group); see [http://x] usb:1-1
emulator-5554\toffline
"""


def test_lines_of_adb_devices():
    assert [(one.serial, one.state) for one in adb.parse_devices(LISTED)] == [
        ("R58M123", "device"),
        ("192.168.1.5:5555", "device"),
        ("0123456789ABCDEF", "unauthorized"),
        ("????????????", "no permissions"),
        ("emulator-5554", "offline"),
    ]
    assert adb.parse_devices("A device b") == [Attached("A", "device")]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text())
def test_any_list_of_devices_is_read(text):
    assert all(one.serial and one.state for one in adb.parse_devices(text))


def test_the_only_device_that_can_be_used_is_taken(phone):
    phone.attach("S0 offline", "S1 device", "S2 unauthorized")
    assert adb.choose(phone.adb, None).serial == "S1"
    assert adb.choose(phone.adb, "S1").serial == "S1"


def test_the_environment_names_the_device(phone, monkeypatch):
    phone.attach("S1 device", "S2 device")
    monkeypatch.setenv("ANDROID_SERIAL", "S2")
    assert adb.choose(phone.adb, None).serial == "S2"


@pytest.mark.parametrize(
    ("lines", "serial", "kind", "message"),
    [
        ([], None, AdbFailed, "no Android device is attached: switch on USB debugging"),
        ([], "S1", BadInput, "device 'S1' is not attached; attached: none"),
        (["S2 device"], "S1", BadInput, "device 'S1' is not attached; attached: S2$"),
        (["S2 device"], "10.0.0.1:5555", BadInput, "connected first: adb connect 10.0.0.1:5555"),
        (
            ["S1 device", "S2 device"],
            None,
            BadInput,
            r"2 devices are attached \(S1, S2\): name one with --on adb:S1, or ",
        ),
        (["S1 unauthorized"], None, AdbFailed, "S1 cannot be used, its state is 'unauthorized': unlock its screen and"),
        (["S1 offline"], "S1", AdbFailed, "its state is 'offline': plug it in again"),
        (["???? no permissions (udev); see [x]"], None, AdbFailed, "state is 'no permissions': .* udev rules"),
        (["S1 recovery"], "S1", AdbFailed, "its state is 'recovery': start Android on it"),
    ],
)
def test_a_device_that_cannot_be_chosen(phone, lines, serial, kind, message):
    phone.attach(*lines)
    with pytest.raises(kind, match=message):
        adb.choose(phone.adb, serial)


def test_an_adb_that_does_not_answer(tmp_path, phone, monkeypatch):
    broken = phone.script(tmp_path / "broken", "#!/bin/sh\necho 'cannot bind to port' >&2\nexit 1\n")
    with pytest.raises(AdbFailed, match="`broken devices` failed: cannot bind to port"):
        adb.attached(broken)
    with pytest.raises(AdbFailed, match="cannot run '/nonexistent'"):
        adb.attached(Path("/nonexistent"))
    monkeypatch.setattr(adb, "SHORT", 0.05)
    with pytest.raises(AdbFailed, match="did not answer within 0.05 s; try: adb kill-server"):
        adb.attached(phone.script(tmp_path / "slow", "#!/bin/sh\nexec sleep 20\n"))


# calls


def test_ask_returns_what_the_device_said(device):
    assert device.ask("echo one; echo two >&2; cat") == "one\n"  # stdin is closed: cat ends at once
    assert device.ask("printf no-newline") == "no-newline"
    assert device.ask("true") == ""


def test_ask_fails_with_the_last_words_of_the_device(device):
    with pytest.raises(AdbFailed, match="device S1: cat: /nonexistent: No such file"):
        device.ask("cat /nonexistent")
    with pytest.raises(AdbFailed, match="device S1: exit code 7"):
        device.ask("exit 7")


def test_a_device_that_vanishes_is_not_believed_when_adb_says_0(phone, device):
    phone.fault("shell", "echo half an answer; exit 0")
    with pytest.raises(AdbFailed, match=r"S1 was lost \(adb gave no reason\); plug it in again"):
        device.ask("echo whole")
    phone.fault("shell", "touch $phone/lost")
    with pytest.raises(AdbFailed, match=r"was lost \(error: device 'S1' not found\)"):
        device.ask("echo whole")
    assert not device.is_there()
    phone.mend()
    assert device.is_there()


def test_a_call_that_takes_too_long_is_ended(phone, device, monkeypatch):
    begin = time.monotonic()
    monkeypatch.setattr(adb, "time", late_after(phone.folder / "client"))
    with pytest.raises(AdbFailed, match=r"S1: its shell took more than 50\.5 s and was given up"):
        device.shell("exec sleep 600", timeout=50.5)
    assert time.monotonic() - begin < 300
    client = (phone.folder / "client").read_text().strip()
    assert not Path(f"/proc/{client}").exists()


def test_a_stop_ends_the_call_and_refuses_the_next(phone):
    stop = Event()
    device = adb.choose(phone.adb, "S1", stop)
    client = phone.folder / "client"
    Thread(target=lambda: (wait_until(lambda: client.exists() and client.read_text().strip()), stop.set())).start()
    with pytest.raises(Stopped, match="stopped by Ctrl-C"):
        device.shell("exec sleep 600", timeout=600)
    with pytest.raises(Stopped, match="stopped"):
        device.ask("true")
    assert device.unstoppable().ask("echo still here") == "still here\n"


def test_push_counts_bytes_and_pull_brings_them_back(phone, device, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a").write_bytes(b"12345")
    (tmp_path / "in" / "deep" / "b").write_bytes(b"123")
    (phone.folder / "storage" / "deep").mkdir()
    seen = []
    device.push(tmp_path / "in", str(phone.folder / "storage"), progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 8), (5, 8), (8, 8)]
    device.pull(str(phone.folder / "storage" / "deep" / "b"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"123"


def test_a_copy_that_fails_says_why(phone, device, tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(AdbFailed, match="S1: copying a to it failed: failed to copy .*couldn't create file"):
        device.push(tmp_path / "a", "/nonexistent/a")
    with pytest.raises(AdbFailed, match="copying /nonexistent from it failed: failed to stat remote object"):
        device.pull("/nonexistent", tmp_path / "b")
    phone.fault(
        "push", "echo \"adb: error: failed to copy 'x': remote write failed: No space left on device\" >&2; exit 1"
    )
    with pytest.raises(AdbFailed, match="No space left on device; free some space on it, or remove our files"):
        device.push(tmp_path / "a", "/tmp/a")
    phone.fault("pull", "exit 0")
    with pytest.raises(AdbFailed, match="adb copied nothing of /x"):
        device.pull("/x", tmp_path / "c")
