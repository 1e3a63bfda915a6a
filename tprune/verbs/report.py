"""Join quality and records into a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.errors import BadInput


def report(runs: Sequence[Path], out: Path, *, split: str | None = None, results: Path | None = None) -> dict[str, Any]:
    """Write the report on `runs` to the folder `out`, its rows also to the file `results`, and return report.json."""
    stamp.check_vacant(out)
    if missing := next((run for run in runs if not run.exists()), None):
        raise BadInput(
            f"{str(missing)!r} does not exist; name folders or files of `tprune evaluate`, `export`, `bench`"
        )
    from tprune.bench.report import report as reports
    from tprune.bench.report import results as rows

    document = reports.report(runs, out, split=split)
    if results:
        rows.write(results, document["rows"], inputs=document["inputs"])
    return document
