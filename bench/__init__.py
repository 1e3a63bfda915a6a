"""Measure artefacts on this machine and on phones, and simulate accelerators. For a report, see `tprune.report`.

from tprune.bench import run

run(["onnx/dense", "onnx/small"], corpus, out="runs/records.jsonl", on="adb")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tprune.base.lazy import exports

if TYPE_CHECKING:
    from tprune.bench.api import Simulation as Simulation
    from tprune.bench.api import run as run
    from tprune.bench.api import simulate as simulate
    from tprune.bench.measure.record import Record as Record
    from tprune.bench.measure.settings import Settings as Settings

_PUBLIC = {
    "Record": "tprune.bench.measure.record",
    "Settings": "tprune.bench.measure.settings",
    "Simulation": "tprune.bench.api",
    "run": "tprune.bench.api",
    "simulate": "tprune.bench.api",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list

if not TYPE_CHECKING:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
