"""One phone: fitness, CPUs, temperature, and failing runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fake_adb import FakePhone, late_after
from tests.support.fake_fleet import FAST, hangs
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries.abi import named
from tprune.bench.measure import record
from tprune.bench.measure.settings import Settings, sweep
from tprune.bench.phone import adb, fleet, gate, station
from tprune.bench.phone.station import PhoneOptions

ROOT = Path(__file__).resolve().parents[3]


def test_an_emulated_device_is_never_valid(fake_phone, fake_artefact, measure):
    fake_phone.set_properties(ro_boot_qemu="1")
    assert {found.verdict for found in measure(fake_artefact("a"))} == {"EMULATED"}


@pytest.mark.parametrize(("cpus", "asked"), [("all", None), ((0,), [0]), ("big", sorted(os.sched_getaffinity(0)))])
def test_where_the_runner_is_put(fake_phone, fake_artefact, measure, cpus, asked):
    done = measure(fake_artefact("a"), options=PhoneOptions(cpus=cpus))
    assert done[0].affinity["asked"] == asked


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        (FAST, {"cpus": (0, 999)}, r"cpus \[0, 999\]: Acme One has \["),
        (replace(FAST, threads=999), {}, "threads 999: Acme One has .* CPUs to run them on"),
    ],
)
def test_cpus_that_the_phone_does_not_have(fake_phone, fake_artefact, measure, settings, changed, message):
    with pytest.raises(BadInput, match=message):
        measure(fake_artefact("a"), settings=settings, options=PhoneOptions(**changed))


def test_a_file_that_may_not_leave_this_machine(fake_phone, fake_artefact, measure, tmp_path):
    with pytest.raises(BadInput, match=r"file name '\.\./a/behave\.json': only letters"):
        measure(fake_artefact("a", file="../a/behave.json"))
    assert fake_phone.calls("push") == []


def test_a_damaged_artefact(fake_phone, fake_artefact, measure):
    folder = fake_artefact("a")
    (folder / "behave.json").write_text("{}")
    with pytest.raises(BadInput, match=r"is damaged: behave\.json has 2 bytes"):
        measure(folder)


def test_a_root_with_a_hostile_name(fake_phone, fake_artefact, measure, monkeypatch):
    fake_phone.storage = (
        fake_phone.folder / "storage" / """it's a "$(touch pwned)`touch pwned`; touch pwned *""" / "tprune"
    )
    monkeypatch.setenv("TPRUNE_REMOTE", str(fake_phone.storage))
    assert [found.verdict for found in measure(fake_artefact("a"), options=PhoneOptions(keep_awake=True))] == [
        "VALID"
    ] * 3
    assert fake_phone.is_clean()
    (fake_phone.storage / "calls").unlink()  # of the fake runner
    assert fleet.clean(adb=str(fake_phone.adb)) == ["S1"]
    assert not fake_phone.storage.exists()
    assert not list(fake_phone.folder.rglob("pwned")) and not Path("pwned").exists()


# fit to be measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phone: phone.set_battery(7), "its battery is at 7 %: charge it"),
        (lambda phone: phone.set_heat(status=3), r"its thermal status is 3 \(SEVERE\): let it cool"),
        (lambda phone: (phone.folder / "dumpsys" / "power").write_text("mWakefulness=Asleep"), "give --keep-awake"),
        (
            lambda phone: phone.script(phone.folder / "bin" / "df", "#!/bin/sh\necho h\necho a b c 9 e f\n"),
            "0 MiB free",
        ),
    ],
)
def test_a_phone_that_is_not_fit(fake_phone, fake_artefact, measure, tmp_path, change, message):
    change(fake_phone)
    with pytest.raises(WorkFailed, match=rf"device S1 \(Acme One\) is not fit to be measured: .*{message}"):
        measure(fake_artefact("a"))
    assert not (tmp_path / "records.jsonl").exists()
    assert fake_phone.is_clean()


def test_keep_awake_wakes_the_screen(fake_phone, fake_artefact, measure):
    (fake_phone.folder / "dumpsys" / "power").write_text("mWakefulness=Asleep\n")
    done = measure(fake_artefact("a"), options=PhoneOptions(keep_awake=True, fixed_performance=True))
    assert done[0].conditions["before"]["screen"] == "Awake"
    assert done[0].versions["clocks"] == "fixed"
    assert (fake_phone.folder / "setting").read_text() == "0\n"
    assert fake_phone.is_clean()


def test_a_phone_of_another_kind(fake_phone, fake_artefact, measure):
    fake_phone.set_properties(ro_product_cpu_abilist="armeabi-v7a,armeabi")
    with pytest.raises(
        WorkFailed, match="reports the ABIs armeabi-v7a, armeabi; the runner exists for arm64-v8a and x86_64"
    ):
        measure(fake_artefact("a"))


def becomes_hot(phone: FakePhone, **heat) -> None:
    """Set the temperature of the phone after every run."""
    phone.set_heat(**heat)
    (phone.folder / "dumpsys" / "thermalservice").rename(phone.folder / "hot")
    phone.set_heat()
    phone.fault("run", "cp $phone/hot $phone/dumpsys/thermalservice")


def test_a_warm_phone_is_waited_for(fake_phone, fake_artefact, measure, monkeypatch):
    monkeypatch.setattr(gate.Gate, "rest", lambda gate, seconds: fake_phone.set_heat(skin=36))
    monkeypatch.setattr(gate, "FRESH", 0.0)  # resting takes no time here
    becomes_hot(fake_phone, skin=44)
    fake_phone.set_heat(skin=36)
    said = []
    done = measure(fake_artefact("a"), progress=lambda *words: said.append(words))
    assert [found.verdict for found in done] == ["VALID"] * 3
    assert done[1].conditions["before"]["waited_s"] == gate.INTERVAL
    assert any("cooling down: 44.0 °C, more than 38.0 °C" in words[3] and words[1:3] == (1, 3) for words in said)


def test_a_phone_that_stays_warm_is_throttled(fake_phone, fake_artefact, measure, monkeypatch):
    monkeypatch.setattr(gate.Gate, "rest", lambda gate, seconds: None)
    becomes_hot(fake_phone, status=1)
    folder = fake_artefact("a")
    done = measure(folder, options=PhoneOptions(patience=10))
    assert [found.verdict for found in done] == ["THROTTLED", "THROTTLED", "VALID"]  # the last one is the memory pass
    assert done[0].conditions["after"]["throttled"] == "thermal status 1 (LIGHT)"
    assert done[1].conditions["before"]["too_warm"] == "thermal status 1 (LIGHT)"
    fake_phone.mend()
    fake_phone.set_heat()
    assert [found.verdict for found in measure(folder)] == ["VALID"] * 3


def test_sustained_measures_the_heat(fake_phone, fake_artefact, measure):
    becomes_hot(fake_phone, status=1)
    done = measure(fake_artefact("a"), settings=Settings(blocks=3, mode="sustained"))
    assert done[0].verdict == "VALID"
    assert (len(done[0].samples_ns), done[0].conditions["after"]["thermal_status"]) == (9, 1)


def test_minutes_are_asked_of_one_process(fake_phone, fake_artefact, measure):
    done = measure(fake_artefact("a"), settings=Settings(mode="sustained", minutes=0.001))
    assert [found.block for found in done] == [0, -1]
    assert (len(done[0].samples_ns), done[0].settings["min_ms"], done[0].settings["passes"]) == (6, 60, 1)


def test_every_number_of_threads_has_its_big_cores(fake_phone, fake_artefact, measure):
    cores = sorted(os.sched_getaffinity(0))
    threads = sorted({1, len(cores)})  # one number where there is one core
    done = measure(fake_artefact("a"), settings=sweep(Settings(blocks=1), threads))
    timed = [(found.threads, found.affinity["asked"], found.verdict) for found in done if found.block == 0]
    assert timed == [(number, cores, "VALID") for number in threads]


def test_two_engines_share_one_c_library(fake_phone, fake_artefact, measure):
    measure(fake_artefact("a"), fake_artefact("b", "executorch"))
    folders = sorted(path.name[0] for path in fake_phone.storage.iterdir())
    assert [folders.count(kind) for kind in "blm"] == [2, 1, 2]
    pushed = [call.split()[-1].rpartition("/")[2] for call in fake_phone.calls("push")]
    assert pushed.count(named("x86_64").loader) == 1


# faults


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "the runner was killed by SIGKILL"),
        ("kill -11 $$", "the runner was killed by SIGSEGV"),
        ("echo 'no such engine' >&2; exit 3", "the runner ended with exit code 3: no such engine"),
    ],
)
def test_a_runner_that_dies(fake_phone, fake_artefact, measure, tmp_path, script, message):
    fake_phone.fault("run", script)
    with pytest.raises(WorkFailed, match=message):
        measure(fake_artefact("a"))
    (found,) = record.read(tmp_path / "records.jsonl")
    assert found.verdict == "INTERRUPTED"
    assert message in found.error
    assert fake_phone.is_clean()


def test_a_run_that_reports_its_failure(fake_phone, fake_artefact, measure, tmp_path):
    folders = [fake_artefact("bad", refuse="graph is damaged"), fake_artefact("good")]
    with pytest.raises(WorkFailed, match=r"1 of 2 artefacts failed \(.*bad: graph is damaged\)"):
        measure(*folders)
    found = record.read(tmp_path / "records.jsonl")
    assert [(one.name, one.verdict) for one in found if one.name == "bad"] == [("bad", "INTERRUPTED")]
    assert sum(one.valid for one in found) == 3
    assert fake_phone.is_clean()


@pytest.mark.parametrize("verb", ["push", "shell", "pull"])
def test_a_device_that_is_lost(fake_phone, fake_artefact, measure, tmp_path, verb):
    folder = fake_artefact("a")
    where = {"push": "", "shell": 'case "$2" in *seq2seq*)', "pull": ""}[verb]
    end = "exit 0 ;; esac" if verb == "shell" else ""
    fake_phone.fault(verb, f"{where} touch $phone/lost; {end}")
    with pytest.raises(WorkFailed, match=r"S1 was lost \(adb gave no reason\)|copying .* failed|was lost"):
        measure(folder)
    out = tmp_path / "records.jsonl"
    assert not out.exists() or [found.verdict for found in record.read(out)] == ["INTERRUPTED"]
    fake_phone.mend()
    assert [found.verdict for found in measure(folder)] == ["VALID"] * 3
    assert fake_phone.is_clean()


def test_a_report_of_an_earlier_run_is_not_believed(fake_phone, fake_artefact, measure, tmp_path):
    measure(fake_artefact("a"))
    fake_phone.fault("run", 'mkdir "$HOME/out" && cp $phone/old.json "$HOME/out/report.json"; exit 0')
    old = {"schema": 1, "kind": "run", "ok": True, "nonce": "0123456789abcdef"}
    (fake_phone.folder / "old.json").write_text(json.dumps(old))
    with pytest.raises(WorkFailed, match=r"of another run: its nonce is '0123456789abcdef'"):
        measure(fake_artefact("b"), out=tmp_path / "b.jsonl")
    assert [found.verdict for found in record.read(tmp_path / "b.jsonl")] == ["INTERRUPTED"]


def test_a_runner_that_hangs_is_ended(fake_phone, fake_artefact, measure, monkeypatch, tmp_path):
    hangs(fake_phone)
    monkeypatch.setattr(station.Station, "_limit", lambda *_: 50.5)
    monkeypatch.setattr(adb, "time", late_after(fake_phone.folder / "runner"))
    with pytest.raises(WorkFailed, match=r"device S1: its shell took more than 50\.5 s and was given up"):
        measure(fake_artefact("a"))
    pid = (fake_phone.folder / "runner").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()
    assert fake_phone.is_clean()
    assert [found.verdict for found in record.read(tmp_path / "records.jsonl")] == ["INTERRUPTED"]
