"""`tprune compare`: everybody on the same sentences, one table; what cannot be compared is refused in one line."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import SENTENCES
from tests.support.command import contents, tprune, write_data, write_model
from tests.support.runs import model, timed, weighed
from tprune.bench.compare import rows as compare
from tprune.bench.compare import table as compare_table
from tprune.bench.compare.rivals import RIVALS
from tprune.bench.compare.roofline import Roofline
from tprune.export.ort.export import to_onnx
from tprune.marian import synthetic
from tprune.marian.checkpoint import load
from tprune.marian.synthetic import Size
from tprune.verbs.compare import Work

TINY = Size(d_model=32, layers=1, heads=2, ffn=64, vocabulary=96, positions=32)


@pytest.fixture(scope="module", name="place")
def a_place(tiny_config, tiny_tokenizer_folder, tmp_path_factory) -> Path:
    """A folder with a checkpoint `dense`, `data`, and the checkpoint's artefact `ours`."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "dense", tiny_config(d_model=32, forced_eos_token_id=None), tiny_tokenizer_folder)
    write_data(folder / "data")
    to_onnx(load(folder / "dense"), folder / "ours", sentences=SENTENCES[:2])
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch) -> Path:
    for name in ("dense", "data", "ours"):
        os.symlink(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch) -> None:
    """Leave the memory of this machine alone: a fixed bandwidth."""
    monkeypatch.setattr("tprune.bench.compare.roofline.read_bandwidth", lambda threads: 10e9)


SHORT = ("--data", "data", "--blocks", 1, "--warmup", 1, "--limit", 4)


@pytest.mark.usefixtures("quick")
def test_everybody_gets_the_same_sentences_and_one_row(here):
    pytest.importorskip("ctranslate2")
    called = tprune("compare", "dense", "ours", *SHORT, "--rivals", "hf,ctranslate2", "--json")
    document = called.json
    assert document == json.loads((here / "compare.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["hf-fp32", "ct2-fp32", "ct2-int8", "ours"]
    hf, ours = rows["hf-fp32"], rows["ours"]
    assert (hf["identical"], hf["p_value"], hf["threads"], hf["beams"]) == (1.0, None, 1, 1)
    assert rows["ct2-fp32"]["identical"] == 1.0 and 0 <= rows["ct2-int8"]["p_value"] <= 1
    assert rows["ct2-fp32"]["speedups"]["ct2-fp32"]["ratio"] == 1
    assert (ours["identical"], ours["p_value"]) == (1.0, 1.0) and ours["signature"].startswith("nrefs:1")
    assert set(ours["speedups"]) == {"hf-fp32", "ct2-fp32", "ct2-int8"}
    assert ours["roofline"]["cached"] == 1 and ours["roofline"]["step_bytes"] > 0
    for row in rows.values():
        assert row["sentences"] == 4 and row["median_low"] <= row["median_ms"] <= row["median_high"]
        assert min(row["load_ms"], row["peak_mib"], row["bytes"], row["tokens"]) > 0
        assert row["command"].startswith("tprune compare dense ours --data data")
    raw = [json.loads(line) for line in (here / "compare.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["name"], line["block"]) for line in raw[:4]] == [(name, 0) for name in rows]
    assert (here / "compare.md").read_text(encoding="utf-8").count("| ct2-int8 |") == 2
    again = tprune("compare", "dense", "ours", *SHORT, "--rivals", "hf,ctranslate2")
    assert again.code == 0 and "roofline of ours: a step reads" in again.out
    assert len((here / "compare.jsonl").read_text(encoding="utf-8").splitlines()) == len(raw)


@pytest.mark.usefixtures("quick")
def test_made_up_models_translate_everything_to_the_same_length(here, monkeypatch):
    pytest.importorskip("ctranslate2")
    monkeypatch.setitem(synthetic.SIZES, "opus-mt", TINY)
    made_up = ("--size", "opus-mt", "--length", 6, "--limit", 3, "--blocks", 1, "--warmup", 0)
    rows = tprune("compare", *made_up, "--rivals", "ctranslate2", "--json").json["rows"]
    assert [row["name"] for row in rows] == ["ct2-fp32", "ct2-int8", "onnx-fp32", "onnx-int8"]
    assert {row["tokens"] for row in rows} == {6} and {row["bleu"] for row in rows} == {None}
    assert all(row["identical"] == 1 for row in rows if row["precision"] == "fp32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no MODEL is named: tprune compare MODEL [ARTEFACT...] --data DATA"),
        (("dense",), "--data is missing"),
        (("dense", "--size", "opus-mt"), "leave MODEL, ARTEFACT and --data out"),
        (("--size", "huge"), "--size 'huge': must be opus-mt"),
        (("dense", *SHORT, "--rivals", "marian"), "--rivals 'marian': must be of hf, ctranslate2"),
        (("dense", *SHORT, "--out", "data"), "--out 'data': must be a file named *.json"),
        (("dense", *SHORT, "--out", "rows.csv"), "--out 'rows.csv': must be a file named *.json"),
        (("nothing", *SHORT), "model 'nothing': no such folder"),
        (("dense", "nothing", *SHORT, "--rivals", "hf"), "'nothing' is not an artefact"),
        (("dense", "ours", *SHORT, "--threads", 99, "--rivals", "hf"), "threads 99: legal are 1 to"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_wrong_call_is_one_line_and_leaves_nothing(here, words, said):
    before = contents(here)
    tprune("compare", *words).check_failed(2, said)
    assert contents(here) == before


def test_a_dry_run_says_what_would_be_measured_and_does_nothing(here):
    before = contents(here)
    called = tprune("compare", "dense", "ours", *SHORT, "--rivals", "hf", "--dry-run")
    assert (called.code, called.out) == (0, "would compare hf, ours: 4 sentences, 1 blocks, 1 threads\n")
    assert contents(here) == before


def test_a_rival_asked_for_and_not_installed_is_one_line(here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ("compare", "dense", *SHORT, "--rivals", "ctranslate2")
    tprune(*words).check_failed(2, "ctranslate2 is not installed: pip install 'tprune[rivals]', or leave it out")


@pytest.mark.usefixtures("quick")
def test_an_artefact_of_another_vocabulary_is_refused(here):
    other = Path(shutil.copytree(here / "ours", here / "other"))
    pieces = json.loads((other / "vocab.json").read_text(encoding="utf-8"))
    turned = dict(zip(pieces, [0, 1, *reversed(range(2, 111)), 111], strict=True))
    (other / "vocab.json").write_text(json.dumps(turned), encoding="utf-8")
    called = tprune("compare", "dense", "other", *SHORT, "--rivals", "hf")
    called.check_failed(2, "artefact 'other' splits the sentences into other tokens than MODEL")


@pytest.mark.usefixtures("quick")
def test_a_system_that_fails_is_named_and_the_others_are_still_compared(here):
    pytest.importorskip("ctranslate2")
    broken = Path(shutil.copytree(here / "ours", here / "broken"))
    with (broken / "encoder.onnx").open("r+b") as file:
        file.write(b"no graph")
    called = tprune("compare", "dense", "broken", *SHORT, "--rivals", "ctranslate2")
    assert called.code == 1
    assert "tprune: 1 of 3 artefacts failed (broken: " in called.err and "sha256" in called.err
    rows = json.loads((here / "compare.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["ct2-fp32", "ct2-int8"]


def test_translations_of_another_length_than_asked_for_fail():
    work = Work(None, [], None, 3, {})
    work.check({"a": [[1, 2, 3]]}, {"a": "ct2"})
    with pytest.raises(Exception, match=r"ct2 gave \[2, 3\] tokens where every system must give 3"):
        work.check({"a": [[1, 2, 3], [1, 2]]}, {"a": "ct2"})


# ---- rows of made-up records

DENSE, SMALL = model("dense", "dense", 1.0, None), model("small", "shs", 0.5)


@pytest.fixture(name="rows")
def made_up_rows():
    def of(facts, name, runtime, times, ids, **changes):
        both = {"artefact": name, "name": name, "runtime": runtime, **changes}
        yield from (timed(facts, k, times, output_ids=ids, **both) for k in range(2))
        yield replace(weighed(facts, 102_400), **both)

    records = [
        *of(SMALL, "small", "onnxruntime", [2, 6], [[5, 0], [7, 0]], precision="int8"),
        *of(DENSE, "ct2-fp32", "ctranslate2", [8, 16], [[5, 0], [6, 0]]),
        *of(DENSE, "hf-fp32", "transformers", [20, 60], [[5, 0], [6, 0]]),
    ]
    assert compare.reference(records) == "hf-fp32"
    assert compare.translations(records)["small"] == [[5, 0], [7, 0]]
    score = {"bleu": 39.5, "chrf": 60.0, "signature": "nrefs:1", "p_value": 0.0004}
    bound = Roofline(step_bytes=200_000_000, bandwidth=20e12, cache_bytes=32 << 20)
    return compare.rows(records, scores={"small": score}, rooflines={"small": bound})


def test_rows_hold_ratios_over_every_rival(rows):
    assert [row["name"] for row in rows] == ["hf-fp32", "ct2-fp32", "small"]
    small = rows[-1]
    assert {name: found["ratio"] for name, found in small["speedups"].items()} == {"hf-fp32": 10, "ct2-fp32": 3}
    assert (small["identical"], small["median_ms"], small["peak_mib"]) == (0.5, 4.0, 100.0)
    steps = [1.6e6 / 12, 4.8e6 / 12]  # ns, as `runs.timed` makes them up
    assert small["roofline"]["share"] == pytest.approx(1e4 / (sum(steps) / 2), rel=1e-4)


def test_tables_show_ratios_quality_and_what_is_blank(rows):
    screen = Console(width=80, file=io.StringIO())
    screen.print(compare_table.terminal(rows))
    shown = screen.file.getvalue()
    assert "10.00x" in shown and "3.00x" in shown and "50.0 %" in shown and "< 0.001" in shown
    told = compare_table.as_markdown(compare.document(rows, inputs={}, facts={"hf": "eager"}))
    assert "| small, onnx | 4.00 | " in told and "10.00x (10.00–10.00)" in told and "- hf: eager" in told
    table = list(csv.DictReader(io.StringIO(compare_table.as_csv(rows))))
    assert json.loads(table[2]["speedups"])["ct2-fp32"]["ratio"] == 3
    assert table[0]["bleu"] == ""


def test_every_rival_has_a_program():
    for rival in RIVALS:
        assert importlib.util.find_spec(rival.program) is not None
