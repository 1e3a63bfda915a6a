"""Files of version 0.1.0 load, run and report with the values that version wrote (tests/data/version-0.1)."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tprune as toolkit
from tests.support.command import tprune
from tests.support.runs import draw_once, drawn_figures  # noqa: F401 - the fixtures are used by name
from tprune.bench.accel import rows, workload
from tprune.bench.accel.designs import design
from tprune.bench.accel.simulate import simulate_all
from tprune.bench.measure import record
from tprune.bench.runner import build as runner
from tprune.pruning.sensitivity import Sensitivity

OLD = Path(__file__).parent / "data" / "version-0.1"
WORDS = ("dense-onnx", "onnx", "onnx-int8", "executorch")
NETWORKS = ("network-onnx", "network-onnx-int8", "network-executorch")
HEADER = {"created", "versions", "argv", "command"}  # of the run that wrote the file


@pytest.fixture(autouse=True)
def in_the_old_folder(monkeypatch) -> None:
    """Run in the folder of the old files: they name each other by relative paths."""
    monkeypatch.chdir(OLD)


@pytest.fixture(scope="module", autouse=True)
def nothing_written_into_it():
    before = {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()} == before


def read(name: str) -> Any:
    return json.loads(Path(name).read_text(encoding="utf-8"))


def check_kept(now: Any, old: Any, where: str = "document") -> None:
    """Assert that every old field is there with its value; fields may have been added."""
    if isinstance(old, dict):
        for key in old.keys() - HEADER:
            assert key in now, f"{where}.{key} is gone"
            check_kept(now[key], old[key], f"{where}.{key}")
    elif isinstance(old, list):
        assert len(now) == len(old), where
        for number, (one, other) in enumerate(zip(now, old, strict=True)):
            check_kept(one, other, f"{where}[{number}]")
    elif isinstance(old, float):
        assert now == pytest.approx(old, rel=1e-9, abs=1e-12), where
    else:
        assert now == old, where


def need(artefact: str) -> None:
    if "executorch" in artefact:
        pytest.importorskip("executorch")


def test_a_pruned_checkpoint_loads_and_verifies():
    small, dense = toolkit.load("small"), toolkit.load("dense")
    facts, quality = read("small/stamp.json")["facts"], read("quality/torch.json")
    assert (small.id, dense.id) == (quality["model"]["id"], facts["source_id"])
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in dense.model.parameters())
    found = tprune("verify", "small", "--json").json
    assert (found["id"], found["params"]) == (small.id, facts["params"])


def test_a_sensitivity_reads_and_decides_what_to_cut(tmp_path):
    old = read("sensitivity.json")
    found = Sensitivity.read("sensitivity.json")
    found.write(tmp_path / "again.json")
    check_kept(json.loads((tmp_path / "again.json").read_text()), old)
    call = ("prune", "dense", "--data", "data", "--out", tmp_path / "out", "--split", "test", "--dev-split", "test")
    short = ("--keep", "0.5", "--sensitivity", "sensitivity.json", "--steps", "7", "--finetune-steps", "0")
    assert tprune(*call, *short, "--json").json["params"] < 12928


@pytest.mark.parametrize("model", ["small", *WORDS])
def test_a_model_translates_as_its_quality_file_says(model, tmp_path):
    need(model)
    old = read(f"quality/{'torch' if model == 'small' else model.removesuffix('-onnx')}.json")
    versus = () if old["baseline"] is None else ("--baseline", "quality/dense.json")
    found = tprune("evaluate", model, "--data", "data", "--out", tmp_path / "quality.json", *versus, "--json").json
    check_kept(found, old)


def test_records_are_scored(tmp_path):
    call = ("evaluate", "records.jsonl", "--data", "data", "--artefact", "onnx", "--out", tmp_path / "said.json")
    found = tprune(*call, "--json").json
    assert found["hypotheses"] == read("quality/onnx.json")["hypotheses"][:4]


def outputs(path: Path | str) -> dict[tuple[str, int], list]:
    """Return what every block answered, by artefact; the memory passes answer nothing."""
    return {(one.name, one.block): one.output_ids for one in record.read(Path(path))}


@pytest.mark.parametrize(
    ("artefacts", "data", "records", "limit"),
    [(WORDS, "data", "records.jsonl", 4), (NETWORKS[:2], "images", "images-records.jsonl", 6)],
)
def test_artefacts_run_again_and_old_records_go_on(artefacts, data, records, limit, tmp_path):
    """A new run has the old outputs; the old file given to the same call has nothing left to do."""
    for artefact in artefacts:
        need(artefact)
    if runner.missing_tools():
        pytest.skip("the runner cannot be built here")
    call = ("bench", *artefacts, "--data", data, "--blocks", "2", "--limit", str(limit), "--warmup", "1")
    assert tprune(*call, "--out", tmp_path / "new.jsonl").code == 0
    assert outputs(tmp_path / "new.jsonl") == outputs(records)
    shutil.copy(records, tmp_path / "old.jsonl")
    assert tprune(*call, "--out", tmp_path / "old.jsonl").code == 0
    assert (tmp_path / "old.jsonl").read_bytes() == Path(records).read_bytes()


def table(report: Path | str) -> list[dict[str, str]]:
    with Path(report, "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("runs", "report"),
    [
        ((*(f"quality/{name.removesuffix('-onnx')}.json" for name in WORDS), "records.jsonl", *WORDS), "report"),
        (("phone",), "phone-report"),
        (("images-records.jsonl", *NETWORKS[:2]), "images-report"),
    ],
)
def test_a_report_has_the_old_rows(runs, report, tmp_path):
    found = tprune("report", *runs, "--out", tmp_path / "out", "--results", tmp_path / "results.json", "--json").json
    check_kept(found["rows"], read(f"{report}/report.json")["rows"])
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == found["rows"]
    now, old = (
        list(csv.DictReader(path.open(newline="")))
        for path in (tmp_path / "out" / "report.csv", Path(report, "report.csv"))
    )
    check_kept(now, old)


def test_results_of_every_kind_read():
    from tprune.bench.report import results

    for name in ("results.json", "network-results.json", "simulated-results.json", "report/report.json"):
        assert results.read(name) == read(name)["rows"]


def test_a_comparison_is_of_its_records():
    compared = read("compare.json")["rows"]
    first = [one for one in record.read(Path("compare.jsonl")) if one.block == 0]
    assert [row["name"] for row in compared] == [one.name for one in first]
    assert [row["load_ms"] * 1e6 for row in compared] == pytest.approx([one.load_ns for one in first])


def test_an_image_network_answers_as_before():
    found = tprune("cnn", "evaluate", "network", "--data", "images", "--threads", "1", "--json").json
    check_kept(found["rows"], read("network-results.json")["rows"])


@pytest.mark.parametrize("artefact", NETWORKS)
def test_an_image_artefact_opens(artefact):
    from tprune.cnn.images import load as load_images
    from tprune.export.images import classifier
    from tprune.export.images.manifest import ImageManifest

    need(artefact)
    images = load_images("images", split="test")
    answers = classifier.open(Path(artefact)).logits(images.pixels.numpy()).argmax(axis=1)
    assert answers.tolist() == images.labels.tolist()  # it had them all right
    assert ImageManifest.read(Path(artefact)).model.name == "network"


def test_a_simulation_gives_the_old_numbers():
    old = read("simulated/report.json")
    designs = [design(row["design"]) for row in old["rows"]]
    found = simulate_all(workload.read("workload.json"), designs, exact=True)
    check_kept(json.loads(json.dumps(rows.layer_rows(found))), old["layers"])
    assert [one.cycles for one in found] == [row["cycles"] for row in old["rows"]]
    assert [sum(one.energy.values()) for one in found] == pytest.approx([row["energy_pj"] for row in old["rows"]])
    check_kept(read("simulated-results.json")["rows"], old["rows"])
