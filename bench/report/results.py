"""`bench/results/NAME.json`: the rows behind published numbers, under a stamp that says how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprune.base.stamp import stamp, write_json

KIND = "results"


def write(path: Path | str, rows: Sequence[Mapping[str, Any]], *, inputs: Mapping[str, str] | None = None) -> None:
    """Write `rows` under a stamp; `inputs` are the ids of what they were made from."""
    write_json(path, {**stamp(KIND, inputs), "rows": [dict(row) for row in rows]})
