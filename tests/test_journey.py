"""The whole journey through the command line on a tiny random model, and what only real artefacts can show of it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES
from tests.support.command import contents, start, tprune, wait_for, write_data, write_model
from tprune.bench.measure import record
from tprune.bench.runner import build


@pytest.fixture(scope="module")
def walked(tiny_config, tiny_tokenizer_folder: Path, tmp_path_factory) -> Path:
    """A folder in which every verb has done its part, each with one JSON object in `said/VERB-...`."""
    root = tmp_path_factory.mktemp("journey")
    dense = write_model(root / "dense", tiny_config(), tiny_tokenizer_folder)
    data = ("--data", write_data(root / "data"))
    small, wide, onnx, quality = root / "small", root / "wide", root / "onnx", root / "quality"
    budget = ("--keep", "0.5", "--sensitivity", root / "analysis" / "sensitivity.json")
    (root / "said").mkdir()

    def step(name: str, *args: object) -> None:
        (root / "said" / name).write_text(json.dumps(tprune(*args, "--json").json))

    step("analyse", "analyse", dense, *data, "--out", root / "analysis", "--quick", "--steps", "1")
    steps = ("--steps", "7", "--finetune-steps", "3", "--round-to", "2", "--distill")
    step("prune", "prune", dense, *data, "--out", small, *budget, *steps)
    step("verify", "verify", small)
    step("expand", "expand", small, "--out", wide)
    for name, folder in (("dense", dense), ("small", small)):
        step(f"export-{name}", "export", folder, *data, "--out", onnx / name, "--limit", "3")
    step("evaluate-dense", "evaluate", onnx / "dense", *data, "--out", quality / "dense.json")
    versus = ("--baseline", quality / "dense.json")
    step("evaluate-small", "evaluate", onnx / "small", *data, "--out", quality / "small.json", *versus)
    step("evaluate-torch", "evaluate", small, *data)
    records = root / "records.jsonl"
    some = ("--blocks", "2", "--limit", "5", "--warmup", "2")
    step("bench", "bench", onnx / "dense", onnx / "small", *data, "--out", records, *some)
    said_on_device = ("evaluate", records, *data, "--artefact", onnx / "small", *versus)
    step("evaluate-records", *said_on_device, "--out", root / "said.json")
    step("report", "report", quality, records, onnx, "--out", root / "report")
    return root


def said(walked: Path, name: str) -> dict:
    return json.loads((walked / "said" / name).read_text())


def test_the_report_has_both_models_with_their_numbers(walked: Path) -> None:
    report = json.loads((walked / "report" / "report.json").read_text())
    assert report == said(walked, "report")
    dense, small = report["rows"]
    pruned, verified = said(walked, "prune"), said(walked, "verify")
    assert (dense["criterion"], small["criterion"]) == ("dense", "shs")
    assert (dense["params"], small["params"]) == (pruned["dense_params"], pruned["params"])
    assert (dense["macs"], small["macs"]) == (pruned["dense_macs"], pruned["macs"])
    assert small["params"] == verified["params"] < dense["params"]
    assert 0 < small["speedup_low"] <= small["speedup"] <= small["speedup_high"]
    assert small["p_value"] == said(walked, "evaluate-small")["baseline"]["p_value"]
    assert small["bleu"] == said(walked, "evaluate-torch")["bleu"]
    assert contents(walked / "report") == {"report.html", "report.md", "report.csv", "report.json", "pareto.png"}


def test_pytorch_onnx_and_the_stock_expansion_say_the_same(walked: Path) -> None:
    ours, theirs = said(walked, "evaluate-torch"), said(walked, "evaluate-small")
    assert ours["hypotheses"] == theirs["hypotheses"]
    assert (ours["runtime"], theirs["runtime"]) == ("torch", "onnxruntime")
    assert ours["model"] == theirs["model"]
    assert said(walked, "export-small")["identical"] == 3
    stock, tokenizer = MarianMTModel.from_pretrained(walked / "wide"), MarianTokenizer.from_pretrained(walked / "wide")
    assert json.loads((walked / "wide" / "config.json").read_text())["model_type"] == "marian"
    batch = tokenizer(list(SENTENCES[:6]), return_tensors="pt", padding=True)
    with torch.inference_mode():
        ids = stock.generate(**batch, num_beams=1, do_sample=False)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ours["hypotheses"]
    assert len(set(ours["hypotheses"])) > 1  # a model that says one thing always would prove nothing


def test_every_artefact_names_what_it_was_made_from(walked: Path) -> None:
    pruned = said(walked, "prune")
    assert (
        said(walked, "analyse")["model"]["id"] == pruned["source_id"] == said(walked, "evaluate-dense")["model"]["id"]
    )
    assert said(walked, "evaluate-small")["model"]["id"] == pruned["id"] == said(walked, "verify")["id"]
    assert said(walked, "evaluate-small")["artefact"] == said(walked, "export-small")["id"]
    assert {found.artefact for found in record.read(walked / "records.jsonl")} == {
        said(walked, f"export-{name}")["id"] for name in ("dense", "small")
    }
    left = {path.name for path in walked.iterdir()}
    assert left == {
        *("dense", "data", "said", "said.json", "analysis", "small", "wide", "onnx", "quality", "records.jsonl"),
        "report",
    }


def test_the_records_are_of_the_runner_and_are_scored_as_the_artefact_is(walked: Path) -> None:
    records = record.read(walked / "records.jsonl")
    assert {found.loop for found in records} == {"python" if build.missing_tools() else "runner"}
    device, artefact = said(walked, "evaluate-records"), said(walked, "evaluate-small")
    assert device["hypotheses"] == artefact["hypotheses"][:5]
    assert (device["sentences"], device["limit"], device["artefact"]) == (5, 5, artefact["artefact"])
    assert (device["device"]["kind"], device["device"]["emulated"]) == ("host", False)
    assert 0 < device["baseline"]["p_value"] <= 1


def test_records_are_scored_on_the_sentences_they_were_measured_on(walked: Path) -> None:
    call = ("evaluate", walked / "records.jsonl", "--data", walked / "data")
    small = ("--artefact", walked / "onnx" / "small")
    tprune(*call).check_failed(2, "--artefact is missing")
    tprune(*call, *small, "--limit", "6").check_failed(2, "--limit 6: the records were measured with 5; leave it out")
    tprune(*call, *small, "--split", "val").check_failed(2, "--split val: the records were measured with test")
    tprune(*call, *small, "--device", "S1").check_failed(2, "device 'S1'")
    tprune(*call[:2], *call[2:3], walked / "data", "--artefact", walked / "small").check_failed(2, "is not an artefact")
    tprune("evaluate", walked / "small", *call[2:], *small).check_failed(2, "--artefact: only for records.jsonl")


def test_a_sentence_of_5000_words(walked: Path, tmp_path: Path) -> None:
    """An artefact translates it as PyTorch does: cut at the model's positions. It is too long to measure."""
    data = Path(shutil.copytree(walked / "data", tmp_path / "data"))
    for language in ("en", "de"):
        with (data / f"test.{language}").open("a", encoding="utf-8") as file:
            file.write("dog " * 5000 + "\n")
    torch_says, onnx_says = (
        tprune("evaluate", walked / name, "--data", data, "--json").json for name in ("small", "onnx/small")
    )
    assert torch_says["hypotheses"] == onnx_says["hypotheses"]
    assert torch_says["truncated"] == onnx_says["truncated"] == 1
    measured = tprune("bench", walked / "onnx" / "small", "--data", data, "--out", tmp_path / "records.jsonl")
    measured.check_failed(2, "sentence 7 has ")
    assert not (tmp_path / "records.jsonl").exists()


def test_a_benchmark_that_is_killed_goes_on(walked: Path, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    artefacts = (walked / "onnx" / "dense", walked / "onnx" / "small")
    call = ("bench", *artefacts, "--data", walked / "data", "--out", out, "--blocks", "12", "--warmup", "0")
    process = start(*call)
    wait_for(process, lambda: out.exists() and len(out.read_bytes().splitlines()) >= 3)
    process.kill()
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    kept = record.read(out)
    assert 3 <= len(kept) < 2 * 13
    assert tprune(*call, "--json").json == {"out": str(out), "records": 2 * 13}
    done = record.read(out)
    assert done[: len(kept)] == kept
    assert len(done) == 2 * 13 and all(found.valid for found in done)


def test_a_damaged_artefact(walked: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(walked / "onnx" / "small", tmp_path / "broken"))
    graph = broken / "decoder_step.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    call = ("evaluate", broken, "--data", walked / "data")
    tprune(*call).check_failed(2, "is damaged: decoder_step.onnx has ")
