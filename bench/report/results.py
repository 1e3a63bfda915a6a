"""`bench/results/NAME.json`: the rows that a README quotes, under a stamp that says how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.base.stamp import SCHEMA, stamp, write_json

KIND = "results"


def write(path: Path | str, rows: Sequence[Mapping[str, Any]], *, inputs: Mapping[str, str] | None = None) -> None:
    """Write `rows` under a stamp; `inputs` are the ids of what they were made from."""
    write_json(path, {**stamp(KIND, inputs), "rows": [dict(row) for row in rows]})


def read(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a results file or of a report.json; BadInput when it is neither."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"results {str(path)!r}: {error}") from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or document.get("schema") != SCHEMA or document.get("kind") not in {KIND, "report"}:
        raise BadInput(f"{str(path)!r} holds no results (kind must be {KIND!r} or 'report', schema {SCHEMA})")
    return rows
