"""Whole benchmarks on a fake phone: records, resume, several phones, Ctrl-C, the command line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.artefacts import write_manifest
from tests.support.command import tprune, wait_until, write_data
from tests.support.fake_adb import FakePhone
from tests.support.fake_fleet import SENTENCES, hangs
from tprune.base import processor
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.measure import record, tasks
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import fleet
from tprune.bench.phone.station import WARMUP_MS, PhoneOptions

ROOT = Path(__file__).resolve().parents[3]


def test_a_session_from_probe_to_records(fake_phone, fake_artefact, measure, tmp_path):
    said = []
    folders = [fake_artefact("a"), fake_artefact("b", runtime="executorch")]
    done = measure(*folders, progress=lambda *words: said.append(words))
    order = [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", -1), ("b", -1)]
    assert [(found.name, found.block) for found in done] == order
    assert record.read(tmp_path / "records.jsonl") == done
    first = done[0]
    assert first.device == {
        "kind": "phone", "serial": "S1", "model": "Acme One", "abi": "x86_64", "emulated": False, "soc": "Chips C9",
        "android": "14", "instruction_set": processor.known(processor.here()),
    }  # fmt: skip
    assert (first.verdict, first.output_ids, first.loop) == ("VALID", SENTENCES, "runner")
    assert first.affinity["asked"] == first.affinity["got"] != []
    assert first.conditions["before"]["battery"] == {"level": 83, "celsius": 27.1, "powered": ["USB"]}
    assert first.conditions["after"]["celsius"] == 31.0
    assert "throttled" not in first.conditions["after"]
    assert first.versions["onnxruntime"] == "1.0"
    assert {device for device, *_ in said} == {"S1"}
    assert said[-1][1:] == (6, 6, "done")
    assert fake_phone.is_clean()


def test_an_unchanged_session_pushes_nothing(fake_phone, fake_artefact, measure, tmp_path):
    folder = fake_artefact("a")
    measure(folder)
    pushed = len(fake_phone.calls("push"))
    assert pushed == 6  # loader and program, manifest and graph, sentences in two orders
    measure(folder, out=tmp_path / "again.jsonl")
    assert len(fake_phone.calls("push")) == pushed


def test_what_was_measured_is_not_measured_again(fake_phone, fake_artefact, measure, tmp_path):
    folder = fake_artefact("a")
    first = measure(folder)
    pulled = len(fake_phone.calls("pull"))
    assert measure(folder) == first
    assert len(fake_phone.calls("pull")) == pulled


def test_the_environment_of_a_run(fake_phone, fake_artefact, measure):
    fake_phone.fault("run", 'env >"$phone/env"; pwd >"$phone/pwd"; ls -a "$HOME" >"$phone/home"')
    measure(fake_artefact("a"))
    told = dict(line.split("=", 1) for line in (fake_phone.folder / "env").read_text().splitlines() if "=" in line)
    assert told["ORT_DISABLE_TELEMETRY"] == "1"
    assert told["HOME"] == told["TMPDIR"]
    assert told["HOME"].startswith(f"{fake_phone.storage}/r-")
    assert (fake_phone.folder / "pwd").read_text().startswith(f"{fake_phone.storage}/b-")
    assert (fake_phone.folder / "home").read_text().split() == [".", "..", "pid"]


def test_calls_that_are_wrong(fake_phone, fake_artefact, measure):
    with pytest.raises(BadInput, match="name at least one artefact"):
        measure()
    with pytest.raises(BadInput, match="serials S1, S1: every device once"):
        measure(fake_artefact("a"), serials=["S1", "S1"])
    with pytest.raises(BadInput, match="cpus 'fast': must be big, all, or a list"):
        PhoneOptions(cpus="fast")


def test_two_sessions_do_not_share_a_phone(fake_phone, fake_artefact, measure):
    with fleet._alone("S1"), pytest.raises(WorkFailed, match="device S1 is being used by another tprune bench"):
        measure(fake_artefact("a"))


# several phones


def test_two_phones_at_once(fake_phone, fake_artefact, measure, tmp_path):
    fake_phone.attach("S1 device", "10.0.0.2:5555 device")
    done = measure(fake_artefact("a"), serials=["S1", "10.0.0.2:5555"])
    assert [found.device["serial"] for found in done] == ["S1"] * 3 + ["10.0.0.2:5555"] * 3
    assert len(record.read(tmp_path / "records.jsonl")) == 6
    assert {found.verdict for found in done} == {"VALID"}


def test_every_manifest_is_read_once_for_all_phones(fake_phone, fake_artefact, measure, monkeypatch):
    fake_phone.attach("S1 device", "S2 device")
    read = []
    real = tasks.read_subject
    monkeypatch.setattr(tasks, "read_subject", lambda folder: read.append(folder) or real(folder))
    folders = [fake_artefact("a"), fake_artefact("b")]
    measure(*folders, serials=["S1", "S2"])
    assert read == folders


def test_one_of_two_phones_fails(fake_phone, fake_artefact, measure, tmp_path):
    fake_phone.attach("S1 device", "S2 device")
    fake_phone.fault("shell", '[ "$serial" != S2 ] || { echo "error: closed" >&2; exit 1; }')
    with pytest.raises(WorkFailed, match=r"1 of 2 devices failed \(S2: device S2 was lost \(error: closed\)"):
        measure(fake_artefact("a"), serials=["S1", "S2"])
    assert [found.device["serial"] for found in record.read(tmp_path / "records.jsonl")] == ["S1"] * 3


# interrupted

MAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.support import fake_fleet
from tprune.bench.measure import host
from tprune.bench.phone import fleet, station
from tprune.bench.phone.station import WARMUP_MS, PhoneOptions
phone = Path(sys.argv[2])
station.bundle.assemble = lambda abi, runtime, progress: fake_fleet.make_bundle(phone, abi, runtime)
host.references = lambda *_: {}
fleet.run([sys.argv[3]], fake_fleet.SENTENCES, settings=fake_fleet.FAST, out=sys.argv[4],
            adb=str(phone / "adb"), options=PhoneOptions(keep_awake=True))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_run_puts_things_back_and_can_go_on(fake_phone, fake_artefact, measure, tmp_path, how):
    folder, out = fake_artefact("a"), tmp_path / "records.jsonl"
    hangs(fake_phone)
    argv = [sys.executable, "-c", MAIN, str(ROOT), str(fake_phone.folder), str(folder), str(out)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (fake_phone.folder / "runner").exists() and (fake_phone.folder / "runner").read_text().strip())
    assert (fake_phone.folder / "setting").read_text() == "7\n"
    process.send_signal(how)
    _, said = process.communicate(timeout=120)
    assert said.strip().endswith("KeyboardInterrupt")
    assert (fake_phone.folder / "setting").read_text() == "0\n"
    assert not runner_lives(fake_phone)
    assert fake_phone.is_clean()
    assert [found.error for found in record.read(out)] == ["stopped by Ctrl-C or a signal"]
    (fake_phone.folder / "fast").touch()
    assert [found.verdict for found in measure(folder)] == ["VALID"] * 3


def test_what_a_killed_session_left_is_put_right_by_the_next(fake_phone, fake_artefact, measure, tmp_path):
    folder, out = fake_artefact("a"), tmp_path / "records.jsonl"
    hangs(fake_phone)
    argv = [sys.executable, "-c", MAIN, str(ROOT), str(fake_phone.folder), str(folder), str(out)]
    process = subprocess.Popen(argv, cwd=ROOT)
    wait_until(lambda: (fake_phone.folder / "runner").exists() and (fake_phone.folder / "runner").read_text().strip())
    process.kill()
    process.wait()
    assert not fake_phone.is_clean()
    (fake_phone.folder / "fast").touch()
    assert [found.verdict for found in measure(folder)] == ["VALID"] * 3
    assert not runner_lives(fake_phone)
    assert (fake_phone.folder / "setting").read_text() == "0\n"
    assert fake_phone.is_clean()


def test_cleaning(fake_phone, fake_artefact, measure):
    measure(fake_artefact("a"))
    (fake_phone.storage / "calls").unlink()  # of the fake runner
    assert fleet.clean(adb=str(fake_phone.adb)) == ["S1"]
    assert not fake_phone.storage.exists()


# the command line


@pytest.fixture
def called(monkeypatch, tmp_path, tiny_tokenizer_folder):
    """Return a function that calls `tprune bench`; it returns the calls of fleet.run and fleet.clean."""
    asked: list[tuple[tuple, dict]] = []

    def note(*args, **options):
        asked.append((args, options))
        return []

    monkeypatch.setattr(fleet, "run", note)
    monkeypatch.setattr(fleet, "clean", lambda *args: [asked.append((args, {})), "S1", "S2"][1:])
    data = write_data(tmp_path / "data")
    write_manifest(shutil.copytree(tiny_tokenizer_folder, tmp_path / "artefact"), {}, "onnxruntime")

    def call(*flags: object, artefacts: bool = True):
        folder = [tmp_path / "artefact", "--data", data] if artefacts else []
        return tprune("bench", *folder, *flags), asked

    return call


def test_the_command_line_asks_for_phones(called, tmp_path):
    flags = ["--on", "adb:S1,10.0.0.2:5555", "--cpus", "4,6-7", "--keep-awake", "--adb", "/x/adb", "--limit", 2]
    done, asked = called(*flags, "--out", tmp_path / "r.jsonl", "--mode", "spaced", "--threads", 2)
    assert (done.code, done.err) == (0, "")
    ((artefacts, sentences), options) = asked[0]
    assert (artefacts, len(sentences)) == ([tmp_path / "artefact"], 2)
    assert options.pop("progress")
    assert options == {
        "serials": ("S1", "10.0.0.2:5555"),
        "options": PhoneOptions(cpus=(4, 6, 7), keep_awake=True),
        "adb": "/x/adb",
        "out": tmp_path / "r.jsonl",
        "settings": (Settings(threads=2, warmup_ms=WARMUP_MS, mode="spaced", limit=2),),
    }


def test_the_command_line_takes_the_big_cores_of_the_only_phone(called):
    _, asked = called("--on", "adb")
    assert (asked[0][1]["serials"], asked[0][1]["options"]) == ((), PhoneOptions())
    assert called("--on", "adb", "--cpus", "all")[1][-1][1]["options"] == PhoneOptions(cpus="all")


def test_the_command_line_asks_for_several_numbers_of_threads_and_for_minutes(called):
    done, asked = called("--on", "adb", "--threads", "1,4,2,4", "--mode", "sustained", "--minutes", "0.5")
    assert (done.code, done.err) == (0, "")
    assert [one.threads for one in asked[0][1]["settings"]] == [1, 4, 2]
    assert {(one.mode, one.minutes) for one in asked[0][1]["settings"]} == {("sustained", 0.5)}


def test_the_command_line_cleans(called):
    done, asked = called("--on", "adb:S1,S2", "--clean", artefacts=False)
    assert (done.code, done.out) == (0, "nothing of ours is left on S1, S2\n")
    assert asked == [((("S1", "S2"), None), {})]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--on", "usb"], "--on 'usb': must be host, adb, or adb:SERIAL"),
        (["--on", "adb:"], "--on 'adb:': must be host"),
        (["--on", "adb:S1,,S2"], "--on 'adb:S1,,S2': must be host"),
        (["--on", "adb", "--cpus", "fast"], "cpus 'fast': must be a list of CPUs such as 4,6-7"),
        (["--on", "adb", "--threads", "1,x"], "threads '1,x': must be a number, or several to compare such as 1,2,4"),
        (["--on", "adb", "--threads", ""], "threads '': must be a number"),
        (["--threads", "0"], "threads 0: at least 1"),
        (["--threads", "1,9999"], "threads 9999: legal are 1 to"),
        (["--minutes", "1"], "minutes 1: only for the mode sustained, this one is warm"),
        (["--mode", "sustained", "--minutes", "0"], "minutes 0: more than 0 and at most 60"),
        (["--clean", "--keep-awake"], "--keep-awake and --clean: only for --on adb"),
    ],
)
def test_calls_that_the_command_line_refuses(called, flags, message):
    done, asked = called(*flags)
    done.check_failed(2, message)
    assert asked == []


def test_the_command_line_needs_something_to_measure(called):
    called("--on", "adb", artefacts=False)[0].check_failed(2, "nothing to measure, no artefact is named")


def test_what_a_person_has_to_know(fake_phone, fake_artefact, measure):
    alone = measure(fake_artefact("a"))  # no runner of this machine takes such an artefact
    assert "could not be compared with this machine's" in fleet.remarks(alone)[0]
    valid = [replace(found, identical=len(found.output_ids) or None) for found in alone]
    assert fleet.remarks(valid) == []
    hot, emulated = replace(valid[0], verdict="THROTTLED"), replace(valid[0], verdict="EMULATED")
    assert fleet.remarks([hot, hot]) == [
        "heat slowed down 2 blocks; repeat the command on a cool phone to measure them again"
    ]
    assert "its times say nothing about a phone" in fleet.remarks([emulated])[0]
    after = {**valid[0].conditions, "after": {"others": 1.6}}
    assert fleet.remarks([replace(valid[0], conditions=after)]) == [
        "other programs kept up to 1.6 CPUs busy: times are too long, and speed-ups are disturbed too; measure again "
        "on a quiet machine, into a new file"
    ]


def runner_lives(phone: FakePhone) -> bool:
    """Return whether the blocked runner still runs (a zombie does not)."""
    status = Path(f"/proc/{(phone.folder / 'runner').read_text().strip()}/stat")
    return status.exists() and status.read_text().rpartition(") ")[2][0] != "Z"


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    match = "cache folder .*file/tprune' cannot be written: Not a directory; set XDG_CACHE_HOME to a folder that can"
    with pytest.raises(WorkFailed, match=match), fleet._alone("serial"):
        pass
