"""Artefacts without graphs, and made-up runs of them, for tests that measure without translating."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tprune.bench.measure.tasks import Subject
from tprune.bench.runner.contract import Ids, Job, Run
from tprune.export.manifest import FileEntry, Limits, Manifest, ModelFacts, ParityResult, Special, artefact_id

SENTENCES = [[5, 6, 0], [7, 0], [8, 9, 10, 0]]


def write_manifest(folder: Path, files: dict[str, FileEntry], runtime: str) -> None:
    """Write the manifest of a model named after its folder, of at most 4 source and 8 target tokens."""
    Manifest(
        id=artefact_id(files),
        runtime=runtime,
        precision="fp32",
        files=files,
        tensors={},
        special=Special(start=9, eos=0, pad=9, unk=1, forced_eos=None),
        limits=Limits(source=4, target=8),
        model=ModelFacts(id=folder.name, name=folder.name, criterion="dense", seed=None, keep=1.0, params=9, macs=7),
        parity=ParityResult(sentences=1, identical=1, max_abs_logit_diff=0.0),
    ).write(folder)


def write_artefact(folder: Path, runtime: str = "onnxruntime", **behave: Any) -> Path:
    """Write a manifest of at most 4 source and 8 target tokens, and `behave.json` for tests/support/fake_runner.py."""
    folder.mkdir()
    files = {"encoder.onnx": FileEntry(hashlib.sha256(folder.name.encode()).hexdigest(), 100)}
    write_manifest(folder, files, runtime)
    (folder / "behave.json").write_text(json.dumps(behave))
    return folder


def run_of(subject: Subject, job: Job, sentences: Ids, **changes: Any) -> Run:
    """Return a run of `job` whose output is the source, at 20 ns per token."""
    steps = tuple(len(ids) for ids in sentences) * (job.passes + bool(job.min_ms))  # one that is to last: one pass more
    memory = {"vm_rss_kib": 9000, "vm_hwm_kib": 9000, "rss_anon_kib": 5000, "rss_file_kib": 4000}
    cpus = None if job.cpus is None else list(job.cpus)
    facts: dict[str, Any] = {
        "nonce": job.nonce,
        "program": "tprune-ort",
        "runner": "0.1.0",
        "engine": {"name": "onnxruntime", "version": "1.31.1", "facts": {}},
        "build": {"compiler": "none", "optimised": True, "arch": "x86_64", "sanitised": False},
        "artefact": subject.id,
        "threads": {"asked": job.threads, "got": job.threads},
        "beams": job.beams,
        "max_length": job.max_length,
        "affinity": {"asked": cpus, "got": cpus or [0, 1]},
        "load_ns": 5000,
        "first_ns": 600,
        "samples_ns": tuple(20 * step for step in steps),
        "encoder_ns": tuple(10 for _ in steps),
        "step_ns": tuple(3 * step for step in steps),
        "run_ns": tuple(19 * step for step in steps),
        "steps": steps,
        "output_ids": tuple(map(tuple, sentences)),
        "memory": {"start": {**memory, "vm_hwm_kib": 4000}, "loaded": memory, "end": memory},
        "switches": {"voluntary": 1, "involuntary": 2},
        "cpu_share": 0.9876,
        "conditions": {"before": {"khz": {"0": 2_000_000}}, "after": {"zones": {"cpu": 40_000}}, "during": []},
        "machine": {"uname": "made up", "page_size": 4096},
        "profile": None,
    }
    return Run(**(facts | changes))
