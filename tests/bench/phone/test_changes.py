"""Settings changed on a device are restored: at the end, after a failure, or by the next benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_adb import FakePhone
from tprune.base.errors import WorkFailed
from tprune.bench.phone import adb
from tprune.bench.phone import facts as phone
from tprune.bench.phone.adb import AdbFailed
from tprune.bench.phone.changes import changed
from tprune.bench.phone.facts import PROBE
from tprune.bench.phone.remote import Remote


@pytest.fixture
def acme(tmp_path: Path) -> FakePhone:
    return FakePhone(tmp_path / "phone")


@pytest.fixture
def there(acme) -> Remote:
    found = Remote(adb.choose(acme.adb, "S1"), str(acme.storage))
    found.open()
    return found


def change(there: Remote, *, keep_awake: bool = False, fixed_performance: bool = False):
    found = phone.parse(there.open(f"D=/tmp\n{PROBE}"))
    return changed(there, found, keep_awake=keep_awake, fixed_performance=fixed_performance)


def state(acme: FakePhone) -> tuple[str, str, list[str]]:
    """Return the setting, the screen's state and the calls of cmd."""
    told = acme.folder / "cmd"
    screen = (acme.folder / "dumpsys" / "power").read_text().strip().partition("=")[2]
    return (acme.folder / "setting").read_text().strip(), screen, told.read_text().splitlines() if told.exists() else []


def test_nothing_is_changed_unasked(acme, there):
    with change(there):
        before = len(acme.calls("shell"))
    assert len(acme.calls("shell")) == before
    assert state(acme) == ("0", "Awake", [])


def test_both_are_changed_and_put_back(acme, there):
    (acme.folder / "setting").write_text("3\n")
    (acme.folder / "dumpsys" / "power").write_text("  mWakefulness=Asleep\n")
    with change(there, keep_awake=True, fixed_performance=True):
        assert state(acme) == ("7", "Awake", ["power set-fixed-performance-mode-enabled true"])
    assert state(acme)[0] == "3"
    assert state(acme)[1] == "SLEEP"
    assert state(acme)[2][1:] == ["power set-fixed-performance-mode-enabled false"]
    assert acme.is_clean()


def test_a_setting_that_was_never_made_becomes_0(acme, there):
    (acme.folder / "setting").write_text("null\n")
    with change(there, keep_awake=True):
        pass
    assert state(acme) == ("0", "Awake", [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug"), WorkFailed("no")])
def test_they_are_put_back_however_the_session_ends(acme, there, error):
    with pytest.raises(type(error)), change(there, keep_awake=True):
        raise error
    assert state(acme)[0] == "0"
    assert acme.is_clean()


def test_they_are_put_back_although_a_stop_was_asked_for(acme, there):
    with change(there, keep_awake=True):
        there.device.stop.set()
    assert state(acme)[0] == "0"


def test_what_a_lost_device_kept_is_put_back_by_the_next_session(acme, there):
    with pytest.raises(AdbFailed, match=r"^pulled out; its settings were not restored: the next .* adb -s S1 shell '"):
        with change(there, keep_awake=True):
            (acme.folder / "lost").touch()
            raise WorkFailed("pulled out")
    assert state(acme)[0] == "7"
    acme.mend()
    there.open()
    assert state(acme)[0] == "0"
    assert acme.is_clean()


def test_a_device_that_refuses_is_an_error_and_left_as_it_was(acme, there):
    acme.script(acme.folder / "bin" / "svc", "#!/bin/sh\necho 'no such service' >&2\nexit 1\n")
    with pytest.raises(AdbFailed, match="device S1: no such service"), change(there, keep_awake=True):
        raise AssertionError("must not run")
    assert state(acme)[0] == "0"
    assert acme.is_clean()


def test_an_old_android_has_no_fixed_performance(acme, there):
    acme.set_properties(ro_build_version_sdk="29", ro_build_version_release="10")
    with pytest.raises(AdbFailed, match="S1: --fixed-performance needs Android 11, it has 10"):
        with change(there, fixed_performance=True):
            raise AssertionError("must not run")
