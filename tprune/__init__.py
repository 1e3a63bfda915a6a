"""Prune HuggingFace Marian translation models, export them, and measure what pruning costs and gains.

    import tprune

    dense = tprune.load("Helsinki-NLP/opus-mt-en-de")
    train, dev, test = (tprune.load_corpus("data/multi30k", split=split) for split in ("train", "val", "test"))
    small = tprune.prune(dense, train, dev=dev, keep=0.5).save("small")
    tprune.evaluate(small, test)
    artefacts = [tprune.to_onnx(model, f"onnx/{model.name}", dev=dev) for model in (dense, small)]
    tprune.run(artefacts, test, out="runs/records.jsonl")
    tprune.report(["runs"], "report")

Public names are imported when they are first used, so importing the package is cheap. Image networks are in
`tprune.cnn`, further parts of export and benchmark in `tprune.export` and `tprune.bench`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tprune.base.lazy import exports
from tprune.marian.registration import register_with_transformers

if TYPE_CHECKING:
    from tprune.api import analyse as analyse
    from tprune.api import evaluate as evaluate
    from tprune.base.errors import BadInput as BadInput
    from tprune.base.errors import WorkFailed as WorkFailed
    from tprune.bench.api import Simulation as Simulation
    from tprune.bench.api import run as run
    from tprune.bench.api import simulate as simulate
    from tprune.bench.measure.record import Record as Record
    from tprune.bench.report.report import report as report
    from tprune.export.et.export import to_executorch as to_executorch
    from tprune.export.manifest import Manifest as Manifest
    from tprune.export.ort.export import to_onnx as to_onnx
    from tprune.marian.checkpoint import Checkpoint as Checkpoint
    from tprune.marian.checkpoint import load as load
    from tprune.marian.checkpoint import save as save
    from tprune.marian.config import PrunedMarianConfig as PrunedMarianConfig
    from tprune.marian.corpus import Corpus as Corpus
    from tprune.marian.corpus import load_corpus as load_corpus
    from tprune.marian.model import PrunedMarianMTModel as PrunedMarianMTModel
    from tprune.marian.quality import Quality as Quality
    from tprune.pruning.plan import Plan as Plan
    from tprune.pruning.prune import Pruned as Pruned
    from tprune.pruning.prune import prune as prune
    from tprune.pruning.sensitivity import Sensitivity as Sensitivity
    from tprune.pruning.settings import AnalysisSettings as AnalysisSettings
    from tprune.pruning.settings import Settings as Settings
    from tprune.pruning.surgery import expand as expand
    from tprune.pruning.verify import Verdict as Verdict
    from tprune.pruning.verify import verify as verify

_PUBLIC = {
    "AnalysisSettings": "tprune.pruning.settings",
    "BadInput": "tprune.base.errors",
    "Checkpoint": "tprune.marian.checkpoint",
    "Corpus": "tprune.marian.corpus",
    "Manifest": "tprune.export.manifest",
    "Plan": "tprune.pruning.plan",
    "Pruned": "tprune.pruning.prune",
    "PrunedMarianConfig": "tprune.marian.config",
    "PrunedMarianMTModel": "tprune.marian.model",
    "Quality": "tprune.marian.quality",
    "Record": "tprune.bench.measure.record",
    "Sensitivity": "tprune.pruning.sensitivity",
    "Settings": "tprune.pruning.settings",
    "Simulation": "tprune.bench.api",
    "Verdict": "tprune.pruning.verify",
    "WorkFailed": "tprune.base.errors",
    "analyse": "tprune.api",
    "evaluate": "tprune.api",
    "expand": "tprune.pruning.surgery",
    "load": "tprune.marian.checkpoint",
    "load_corpus": "tprune.marian.corpus",
    "prune": "tprune.pruning.prune",
    "report": "tprune.bench.report.report",
    "run": "tprune.bench.api",
    "save": "tprune.marian.checkpoint",
    "simulate": "tprune.bench.api",
    "to_executorch": "tprune.export.et.export",
    "to_onnx": "tprune.export.ort.export",
    "verify": "tprune.pruning.verify",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list

register_with_transformers()
for _name in ("torchao", "torch.utils._pytree"):  # transformers loads torchao, which logs what it was not built with
    logging.getLogger(_name).setLevel(logging.ERROR)

if not TYPE_CHECKING:  # or every name would exist for a type checker, as Any
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
