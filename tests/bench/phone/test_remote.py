"""Our folder on a device: content-addressed, verified, resumed, cleaned; nothing else is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.fake_adb import FakePhone
from tprune.base.errors import BadInput
from tprune.bench.phone import adb, remote
from tprune.bench.phone.adb import AdbFailed
from tprune.bench.phone.remote import Parcel, Remote, parcel


@pytest.fixture
def phone(tmp_path: Path) -> FakePhone:
    return FakePhone(tmp_path / "phone")


@pytest.fixture
def there(phone) -> Remote:
    found = Remote(adb.choose(phone.adb, "S1"), str(phone.storage))
    found.open()
    return found


@pytest.fixture
def model(tmp_path: Path) -> Parcel:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(b"a" * 100)
    (folder / "b+.json").write_bytes(b"{}")
    return parcel("m", folder, ["a.onnx", "b+.json"])


def test_what_is_stored_is_there_under_its_content(phone, there, model):
    seen = []
    assert there.missing([model]) == [model]
    there.store([model], lambda *counts: seen.append(counts))
    place = phone.storage / model.folder
    assert {path.name for path in place.iterdir()} == {"a.onnx", "b+.json", ".complete"}
    assert (place / "a.onnx").read_bytes() == b"a" * 100
    assert (place / "a.onnx").stat().st_mode & 0o777 == 0o755
    assert seen[0] == (0, 102) and seen[-1] == (102, 102)
    assert there.missing([model]) == []
    assert len(phone.calls("push")) == 2


def test_the_folder_follows_names_and_bytes(model, tmp_path):
    (tmp_path / "model" / "a.onnx").write_bytes(b"b" * 100)
    other = parcel("m", tmp_path / "model", ["a.onnx", "b+.json"])
    assert other.folder != model.folder
    assert other.folder.startswith("m-") and len(other.folder) == 14


def test_half_a_copy_goes_on_where_it_stopped(phone, there, model):
    phone.fault("push", 'case $3 in *b+.json) touch "$phone/lost" ;; esac')
    with pytest.raises(AdbFailed, match=r"copying b\+.json to it failed: device 'S1' not found"):
        there.store([model])
    phone.mend()
    assert there.missing([model]) == [model]
    there.store([model])
    assert there.missing([model]) == []
    assert [call.split()[3].rpartition("/")[2] for call in phone.calls("push")] == ["a.onnx", "b+.json", "b+.json"]


def test_a_file_that_arrives_damaged_is_not_believed(phone, there, model):
    phone.fault("push", 'echo rubbish >"$3"; exit 0')
    with pytest.raises(AdbFailed, match=r"device S1: a\.onnx did not arrive complete; repeat the command"):
        there.store([model])
    assert there.missing([model]) == [model]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"short")])
def test_a_file_that_was_lost_since_is_copied_again(phone, there, model, damage):
    there.store([model])
    damage(phone.storage / model.folder / "a.onnx")
    assert there.missing([model]) == [model]
    there.store([model])
    assert len(phone.calls("push")) == 3  # the other file is still good


def test_a_device_without_sha256sum_compares_sizes(phone, there, model):
    phone.fault("shell", "shift; set -- shell 'command() { return 1; };' \"$@\"")
    phone.fault(
        "push", 'case $2 in *a.onnx) head -c 100 /dev/zero >"$3"; exit 0 ;; esac'
    )  # damage that only hashes see
    there.store([model])
    assert there.missing([model]) == []
    phone.fault("push", 'head -c 99 /dev/zero >"$3"; exit 0')
    (phone.storage / model.folder / "a.onnx").unlink()
    with pytest.raises(AdbFailed, match=r"a\.onnx did not arrive complete"):
        there.store([model])


@pytest.mark.parametrize("name", ["../x", "a/b", "-n", ".hidden", "a b", "a\nb", "", "a;b", "$HOME", "é"])
def test_names_that_may_not_reach_a_device(tmp_path, name):
    with pytest.raises(BadInput, match=r"file name .*: only letters, digits and _"):
        Parcel("m", {name: tmp_path / "x"}, {name: "0"})


def test_a_folder_that_cannot_be_made(phone):
    (phone.folder / "storage").chmod(0o555)
    blocked = Remote(adb.choose(phone.adb, "S1"), "/proc/nothing/tprune")
    with pytest.raises(AdbFailed, match=r"device S1: mkdir: cannot create directory"):
        blocked.open()


def test_a_run_is_ended_and_its_folder_removed(phone, there):
    running = started(phone, "cafe01")
    other = started(phone, "beef02")
    there.end_run("cafe01")
    assert running.wait(timeout=120) == -9
    assert not (phone.storage / "r-cafe01").exists()
    assert other.poll() is None
    there.open()  # what an earlier session left
    assert other.wait(timeout=120) == -9
    assert phone.is_clean()


def test_a_process_that_is_not_ours_is_left_alone(phone, there):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        for nonce, pid in (("cafe01", str(bystander.pid)), ("cafe02", "1; kill 1"), ("cafe03", "")):
            (phone.storage / f"r-{nonce}").mkdir()
            (phone.storage / f"r-{nonce}" / "pid").write_text(f"{pid}\n")
        there.open()
        assert bystander.poll() is None
        assert phone.is_clean()
    finally:
        bystander.kill()
        bystander.wait()


def test_removing_takes_what_is_ours_and_nothing_else(phone, there, model):
    there.store([model])
    running = started(phone, "cafe01")
    (phone.storage.parent / "theirs").mkdir()
    there.remove()
    assert running.wait(timeout=120) == -9
    assert [path.name for path in phone.storage.parent.iterdir()] == ["theirs"]
    there.remove()  # nothing there: nothing to do


def test_removing_keeps_a_folder_that_holds_something_else(phone, there, model):
    there.store([model])
    (phone.storage / "notes.txt").write_text("mine")
    with pytest.raises(AdbFailed, match="Directory not empty"):
        there.remove()
    assert [path.name for path in phone.storage.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("value", ["tprune", "/", "/tmp", "/a/../b", "/a//b", "/a/b/", "/a/b\n"])
def test_a_root_that_is_refused(monkeypatch, value):
    monkeypatch.setenv("TPRUNE_REMOTE", value)
    with pytest.raises(BadInput, match="TPRUNE_REMOTE .*: must be an absolute path on the device"):
        remote.root()


def test_the_usual_root(monkeypatch):
    monkeypatch.delenv("TPRUNE_REMOTE", raising=False)
    assert remote.root() == "/data/local/tmp/tprune"


def started(phone: FakePhone, nonce: str) -> subprocess.Popen[bytes]:
    """Start something that looks like a run with this nonce."""
    process = subprocess.Popen(["sh", "-c", "read line", nonce], stdin=subprocess.PIPE)
    (phone.storage / f"r-{nonce}").mkdir()
    (phone.storage / f"r-{nonce}" / "pid").write_text(f"{process.pid}\n")
    return process
