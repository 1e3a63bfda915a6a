"""Join quality and records into a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base import stamp
from tprune.base.errors import BadInput

if TYPE_CHECKING:
    from tprune.bench.report.page import Report


def report(runs: Sequence[Path], out: Path, *, split: str | None = None, results: Path | None = None) -> Report:
    """Write the report on `runs` to the folder `out`, its rows also to the file `results`, and return it."""
    stamp.check_vacant(out)
    stamp.check_file("--results", results)
    if missing := next((run for run in runs if not run.exists()), None):
        raise BadInput(
            f"{str(missing)!r} does not exist; name folders or files of `tprune evaluate`, `export`, `bench`"
        )
    from tprune.bench.report import report as reports
    from tprune.bench.report import results as rows

    made = reports.report(runs, out, split=split)
    if results:
        rows.write(results, made["rows"], inputs=made["inputs"])
    return made
