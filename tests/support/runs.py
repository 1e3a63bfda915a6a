"""Made-up runs for reports: qualities, records of a host and of a phone, and the fixtures that write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tprune.bench.measure import record
from tprune.bench.measure.record import Record
from tprune.bench.report import figures, palette

DEVICE = "Made-up CPU @ 2.00GHz"
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"


def model(name: str, criterion: str, keep: float, seed: int | None = 1) -> dict[str, Any]:
    params = int(9.4e6 * (0.22 + 0.78 * keep))
    facts = {"criterion": criterion, "seed": seed, "keep": keep, "params": params, "macs": int(params * 0.7)}
    return {"id": f"id-{name}", "name": name, **facts}


def quality(of: dict[str, Any], bleu: float, **changes) -> dict[str, Any]:
    document = {
        "schema": 1,
        "kind": "quality",
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"torch": "2.13.0"},
        "argv": ["tprune", "evaluate", of["name"], "--data", "multi30k"],
        "model": of,
        "artefact": None,
        "runtime": "torch",
        "precision": "fp32",
        "split": "test_2016_flickr",
        "limit": None,
        "beams": 1,
        "bleu": bleu,
        "chrf": bleu + 22.5,
        "signature": SIGNATURE,
        "chrf_signature": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.5.1",
        "baseline": None if of["criterion"] == "dense" else {"name": "dense", "bleu": 39.74, "p_value": 0.012},
        "hypotheses": ["x"],
        "sentences": 1000,
        "corpus": "c0ffee",
    }
    return document | changes


def timed(of: dict[str, Any], block: int, samples_ms, **changes) -> Record:
    """Return one block's record; the last tenth of every sentence's time is outside the runtime."""
    samples = [round(ms * 1e6) for ms in samples_ms]
    facts: dict[str, Any] = {
        "artefact": f"artefact-{of['name']}",
        "model": of,
        "name": f"{of['name']}-onnx",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "bytes": 4 * of["params"],
        "device": {"kind": "host", "serial": None, "model": DEVICE, "abi": "x86_64", "emulated": False},
        "settings": {"warmup": 10, "max_length": 512, "sentences": len(samples), "sentences_id": "5e47"},
        "session": "s0",
        "nonce": f"{of['name']}-{block}",
        "block": block,
        "verdict": "VALID",
        "mode": "warm",
        "loop": "runner",
        "threads": 1,
        "affinity": {"asked": [1], "got": [1]},
        "beams": 1,
        "split": "test_2016_flickr",
        "limit": 200,
        "blocks": 3,
        "conditions": {
            "before": {"loadavg": [0.4, 0.3, 0.2], "governor": None},
            "after": {"loadavg": [0.9, 0.3, 0.2], "cpu_share": 0.99},
        },
        "load_ns": 95_000_000,
        "first_ns": 41_000_000,
        "samples_ns": samples,
        "encoder_ns": [ns // 10 for ns in samples],
        "step_ns": [ns * 8 // 10 for ns in samples],
        "run_ns": [ns * 97 // 100 for ns in samples],
        "steps": [12] * len(samples),
        "output_ids": [[5, 0]] * len(samples),
        "engine": {"name": "onnxruntime", "version": "1.31.1"},
        "versions": {"python": "3.11.7"},
        "argv": ["tprune", "bench", "artefacts/dense", "artefacts/shs-50", "--on", "host", "--data", "multi30k"],
    }
    return Record(**(facts | changes))


def weighed(of: dict[str, Any], kib: int) -> Record:
    nothing: dict[str, Any] = {name: [] for name in record.SERIES}
    return timed(
        of,
        -1,
        [],
        **nothing,
        output_ids=[],
        memory={"peak_kib": kib, "base_kib": 61_000, "anon_kib": 30_000, "file_kib": 20_000},
        load_ns=None,
        first_ns=None,
    )


def failed(of: dict[str, Any], block: int, why: str) -> Record:
    nothing: dict[str, Any] = {name: [] for name in record.SERIES}
    return timed(of, block, [], **nothing, output_ids=[], verdict="INTERRUPTED", error=why)


def write(folder: Path, qualities=(), records=()) -> Path:
    for number, document in enumerate(qualities):
        place = folder / f"run{number}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "quality.json").write_text(json.dumps(document))
    for item in records:
        folder.mkdir(parents=True, exist_ok=True)
        record.append(folder / "records.jsonl", item)
    return folder


DENSE, HALF = model("dense", "dense", 1.0, None), model("shs-50", "shs", 0.5)


PHONE = {"kind": "phone", "serial": "S1", "model": "Made Up 9", "abi": "arm64-v8a", "emulated": False, "android": "15"}
BEFORE = {"celsius": 31.5, "thermal_status": 0, "battery": {"level": 80}, "screen": "Awake", "loadavg": [0.5, 0, 0]}


def on_phone(of: dict[str, Any], block: int, samples_ms, **changes) -> Record:
    facts: dict[str, Any] = {
        "device": PHONE,
        "threads": 2,
        "threads_got": 3,
        "affinity": {"asked": [6, 7], "got": [6, 7]},
        "conditions": {"before": BEFORE, "after": {"cpu_share": 1.9}},
    }
    return timed(of, block, samples_ms, **(facts | changes))


@pytest.fixture(autouse=True)
def draw_once(monkeypatch, drawn):
    """Draw one PNG per look in a test file: most tests ask nothing about its contents."""
    real = figures.pareto
    monkeypatch.setattr(
        figures, "pareto", lambda rows, look=palette.LIGHT: drawn.get(look) or drawn.setdefault(look, real(rows, look))
    )


@pytest.fixture(scope="module", name="drawn")
def drawn_figures() -> dict[palette.Look, bytes]:
    return {}


@pytest.fixture(name="small")
def small_runs(tmp_path: Path) -> Path:
    """Two models, two blocks, two sentences: the numbers of the row can be checked by hand."""
    records = [
        timed(DENSE, 0, [10, 30]), timed(HALF, 0, [5, 15]), timed(HALF, 1, [5, 15]), timed(DENSE, 1, [10, 30]),
        weighed(DENSE, 153_600), weighed(HALF, 102_400),
    ]  # fmt: skip
    return write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 39.0)], records)


def rows_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["rows"]}
