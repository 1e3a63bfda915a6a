"""Measure artefacts on this machine and on phones, report the results, and simulate accelerators.

from tprune.bench import report, run

run(["onnx/dense", "onnx/small"], corpus, out="runs/records.jsonl", on="adb")
report(["runs"], "report")
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from tprune.base.lazy import exports

if TYPE_CHECKING:
    from tprune.bench.api import Simulation as Simulation
    from tprune.bench.api import run as run
    from tprune.bench.api import simulate as simulate
    from tprune.bench.measure.record import Record as Record
    from tprune.bench.measure.settings import Settings as Settings
    from tprune.bench.report.report import report as report

_PUBLIC = {
    "Record": "tprune.bench.measure.record",
    "Settings": "tprune.bench.measure.settings",
    "Simulation": "tprune.bench.api",
    "report": "tprune.bench.report.report",
    "run": "tprune.bench.api",
    "simulate": "tprune.bench.api",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        """Keep the name `report` for the function: importing the sub-package of that name would bind it here."""
        if name != "report" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


if not TYPE_CHECKING:
    sys.modules[__name__].__class__ = _Package
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
