"""The whole way to a phone and back, on emulated ones: pushed, run as aarch64, pulled; and what is left on them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.phone.test_bundle import real
from tests.double.device import Double
from tests.support.command import contents, tprune, write_data
from tprune.base.errors import WorkFailed
from tprune.bench.libraries import abi
from tprune.bench.measure import record
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import fleet
from tprune.bench.phone.adb import Device
from tprune.bench.runner.contract import PROGRAMS
from tprune.export.marian.open import open_translator

IDS = [[5, 6, 7, 40, 8, 0], [9, 8, 0], [100, 0], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 0]]
ONCE = Settings(blocks=1, warmup=0)
OURS = "data/local/tmp/tprune"
RUNTIMES = ("onnxruntime", "executorch")


@pytest.fixture
def artefacts(tiny_artefact: Callable[[str], Path]) -> Callable[..., list[Path]]:
    """Return artefacts that can be run on a device of an ABI; skip with the reason where none can."""

    def make(kind: str, *runtimes: str) -> list[Path]:
        for runtime in runtimes:
            real(abi.named(kind), runtime)
        return [tiny_artefact(runtime) for runtime in runtimes]

    return make


def translations(artefact: Path) -> list[list[int]]:
    translator = open_translator(artefact)
    return [list(translator.greedy(ids).ids) for ids in IDS]


def tree(double: Double) -> dict[str, tuple[int, int, str]]:
    """Return mode, time and digest of every file of a device but those of our folder, the kernel's and adbd's own."""
    found = {}
    for folder, names, files in os.walk(double.root):
        here = Path(folder).relative_to(double.root)
        names[:] = [name for name in names if str(here / name) not in {"proc", "dev", OURS, "adbd"}]
        for path in (Path(folder) / name for name in files):
            status = path.lstat()
            content = "" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(here / path.name)] = (status.st_mode, status.st_mtime_ns, content)
        found.setdefault(str(here), (Path(folder).lstat().st_mode, 0, ""))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pruned_model_translates_there_as_here(at_adb, double, artefacts, tmp_path, runtime):
    (artefact,) = artefacts("arm64-v8a", runtime)
    timed, memory = fleet.run([artefact], IDS, serials=[double.serial], out=tmp_path / "r.jsonl", settings=ONCE)
    assert timed.output_ids == translations(artefact)
    assert (timed.verdict, timed.identical, memory.verdict) == ("EMULATED", len(IDS), "EMULATED")
    assert (timed.device["abi"], timed.device["emulated"], timed.device["serial"]) == (
        "arm64-v8a",
        True,
        double.serial,
    )
    assert timed.machine["uname"].endswith("aarch64")
    assert timed.affinity["asked"] and timed.affinity["got"] == timed.affinity["asked"]


def test_beams_are_the_same_there_as_here(at_adb, quick_double, artefacts, tmp_path):
    (artefact,) = artefacts("x86_64", "onnxruntime")
    settings = Settings(blocks=1, warmup=0, beams=3)
    timed = fleet.run([artefact], IDS, serials=[quick_double.serial], out=tmp_path / "r.jsonl", settings=settings)[0]
    translator = open_translator(artefact)
    assert timed.output_ids == [list(translator.beam(ids, 3)) for ids in IDS]


@pytest.mark.slow
def test_two_phones_at_once(at_adb, double, doubles, artefacts, tmp_path):
    chosen = artefacts("arm64-v8a", "onnxruntime")
    other = doubles()
    serials = [double.serial, other.serial]
    done = fleet.run(chosen, IDS, serials=serials, out=tmp_path / "r.jsonl", settings=ONCE)
    timed = [found for found in done if found.block == 0]
    assert [found.device["serial"] for found in timed] == serials
    assert [found.output_ids for found in timed] == [translations(chosen[0])] * 2
    lines = [(found.device["serial"], found.block) for found in record.read(tmp_path / "r.jsonl")]
    assert sorted(lines) == sorted((serial, block) for serial in serials for block in (0, -1))


def test_the_command(at_adb, quick_double, artefacts, tmp_path):
    artefact, on = *artefacts("x86_64", "onnxruntime"), f"adb:{quick_double.serial}"
    data, out = write_data(tmp_path / "data"), tmp_path / "records.jsonl"
    told = tprune("bench", artefact, "--data", data, "--on", on, "--blocks", 1, "--out", out, "--json").json
    assert told == {"out": str(out), "records": 2}
    assert [found.verdict for found in record.read(out)] == ["EMULATED"] * 2
    cleaned = tprune("bench", "--on", on, "--clean")
    assert (cleaned.code, cleaned.err) == (0, "") and quick_double.serial in cleaned.out
    assert not (quick_double.root / OURS).exists()
    at_adb.disconnect(quick_double)
    tprune("bench", "--on", on, "--clean").check_failed(2, f"device '{quick_double.serial}' is not attached")
    at_adb.connect(quick_double)


def test_what_is_there_is_not_pushed_again(at_adb, quick_double, artefacts, tmp_path, monkeypatch):
    chosen, serials = artefacts("x86_64", "onnxruntime"), [quick_double.serial]
    fleet.run(chosen, IDS, serials=serials, out=tmp_path / "first.jsonl", settings=ONCE)
    pushed: list[object] = []
    monkeypatch.setattr(Device, "push", lambda self, local, *rest, **named: pushed.append(local))
    fleet.run(chosen, IDS, serials=serials, out=tmp_path / "second.jsonl", settings=ONCE)
    assert pushed == []


@pytest.mark.parametrize("name", ["it's $(touch sub)", "-rf *; touch semicolon\n", '"`touch tick`"\\', "ü 名"])
def test_nothing_else_is_touched(at_adb, quick_double, artefacts, tmp_path, name):
    hostile, home = tmp_path / name, Path(at_adb.environment["HOME"])
    shutil.copytree(*artefacts("x86_64", "onnxruntime"), hostile)
    before, host = tree(quick_double), contents(home)
    fleet.run([hostile], IDS[:1], serials=[quick_double.serial], out=tmp_path / "r.jsonl", settings=ONCE)
    assert tree(quick_double) == before
    assert {path.name.partition("-")[0] for path in (quick_double.root / OURS).iterdir()} == {"b", "l", "m", "s"}
    assert contents(home) == host


def test_cleaning_leaves_nothing(at_adb, quick_double, artefacts, tmp_path):
    chosen, serials = artefacts("x86_64", "onnxruntime"), [quick_double.serial]
    before = tree(quick_double)
    fleet.run(chosen, IDS[:1], serials=serials, out=tmp_path / "r.jsonl", settings=ONCE)
    assert fleet.clean(serials) == serials
    assert not (quick_double.root / OURS).exists()
    assert tree(quick_double) == before


def test_cleaning_follows_no_link(at_adb, quick_double):
    others = f"mkdir -p /{OURS} /data/local/tmp/others && echo dear >/data/local/tmp/others/file"
    links = f"cd /{OURS} && for letter in b m s r; do ln -s ../others $letter-link; done"
    at_adb.call("-s", quick_double.serial, "shell", f"{others} && {links}")
    fleet.clean([quick_double.serial])
    assert (quick_double.root / "data/local/tmp/others/file").read_text() == "dear\n"
    assert not (quick_double.root / OURS).exists()
    shutil.rmtree(quick_double.root / "data/local/tmp/others")


def test_our_folder_is_not_reached_through_a_link(at_adb, doubles, artefacts, tmp_path):
    one = doubles(abi="x86_64")
    chosen, others = artefacts("x86_64", "onnxruntime"), one.root / "data/local/tmp/others"
    at_adb.call("-s", one.serial, "shell", f"mkdir -p /data/local/tmp/others/b-of-mine && ln -s others /{OURS}")
    with pytest.raises(WorkFailed, match=f"^device {one.serial}: /{OURS} is a link: remove it$"):
        fleet.run(chosen, IDS[:1], serials=[one.serial], out=tmp_path / "r.jsonl", settings=ONCE)
    with pytest.raises(WorkFailed, match=f"^device {one.serial}: /{OURS} is a link: remove it$"):
        fleet.clean([one.serial])
    assert [path.name for path in others.iterdir()] == ["b-of-mine"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_leaves_nothing_in_the_home_of_a_phone(at_adb, quick_double, artefacts, tmp_path, runtime):
    fleet.clean([quick_double.serial])
    chosen = artefacts("x86_64", runtime)
    fleet.run(chosen, IDS[:1], serials=[quick_double.serial], out=tmp_path / "r.jsonl", settings=ONCE)
    job = ONCE.job(12).arguments("$m", "$s/sentences.ids", "/data/local/tmp/home/out")
    script = (
        f"cd /{OURS}; m=$PWD/$(echo m-*); s=$PWD/$(echo s-*); cd b-*; mkdir /data/local/tmp/home; "
        f"HOME=/data/local/tmp/home ../l-*/ld-linux-x86-64.so.2 --library-path .:$(echo ../l-*) "
        f"./{PROGRAMS[runtime]} {' '.join(job)}; "
        "cd /data/local/tmp/home && ls -A . out; cd .. && rm -r home"
    )
    said = at_adb.call("-s", quick_double.serial, "shell", script).split()
    assert said == [".:", "out", "out:", "output.ids", "report.json"]
