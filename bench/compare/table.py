"""A comparison's rows on a terminal, as Markdown and as CSV; a column in which every row is blank is left out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group

from tprune.bench.report.table import BLANK, Column, RowData, drawn, markdown
from tprune.export.runtimes import RUNTIMES


def _name(row: RowData) -> str:
    ours = RUNTIMES.get(row["runtime"])  # one model may be there for several runtimes
    return f"{row['name']}, {ours.flag}" if ours else str(row["name"])


NAME = Column("name", "system", _name, number=False)


def _fixed(key: str, heading: str, digits: int, scale: float = 1.0) -> Column:
    return Column(key, heading, lambda row: f"{row[key] * scale:,.{digits}f}")


def _p_value(row: RowData) -> str:
    return "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"


def _interval(row: RowData) -> str:
    return f"{_ms(row['median_low'])}–{_ms(row['median_high'])}"


def _ms(time: float) -> str:
    return f"{time:.2f}" if time < 100 else f"{time:,.0f}"


def _roofline(row: RowData) -> str:
    return "in cache" if row["roofline"]["cached"] == 1 else f"{100 * row['roofline']['share']:.0f} %"


QUALITY = (
    NAME,
    _fixed("bleu", "BLEU", 2),
    Column("p_value", "p", _p_value),
    Column("identical", "same ids", lambda row: f"{100 * row['identical']:.1f} %"),
    _fixed("tokens", "tokens", 1),
    _fixed("load_ms", "load (ms)", 0),
    _fixed("peak_mib", "peak (MiB)", 0),
    _fixed("bytes", "size (MB)", 1, 1e-6),
)


def speed(rows: Sequence[RowData], *, intervals: bool = False) -> list[Column]:
    """Return the columns of speed: times, and how many times faster than each rival, with `intervals` or without."""
    bases = list(dict.fromkeys(name for row in rows for name in row["speedups"]))
    columns = [
        NAME,
        Column("median_ms", "median (ms)", lambda row: _ms(row["median_ms"])),
        Column("median_low", "95 %", _interval),
        *(_versus(base, intervals=intervals) for base in bases),
        Column("roofline", "roofline", _roofline),
    ]
    return _shown(rows, columns)


def _versus(base: str, *, intervals: bool) -> Column:
    def write(row: RowData) -> str:
        found = row["speedups"].get(base)
        if found is None:
            return BLANK
        between = f" ({found['low']:.2f}–{found['high']:.2f})" if intervals else ""
        return "1" if row["name"] == base else f"{found['ratio']:.2f}x{between}"

    return Column("speedups", f"over {base}", write)


def costs(rows: Sequence[RowData]) -> list[Column]:
    """Return the columns of what speed costs: quality, time to load, memory and bytes."""
    return _shown(rows, QUALITY)


def _shown(rows: Sequence[RowData], columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if any(row[column.key] is not None for row in rows)]


def context(rows: Sequence[RowData]) -> str:
    """Return what all rows share, as one sentence."""
    first = rows[0]
    told = [f"threads {first['threads']}", f"beams {first['beams']}", "batch 1", f"{first['sentences']} sentences"]
    told += [f"{first['blocks']} interleaved blocks", first["device"]]
    told += [first["instruction_set"]] if first["instruction_set"] else []
    told += [f"sacreBLEU {row['signature']}" for row in rows[:1] if row["signature"]]
    return "; ".join(told)


def terminal(rows: Sequence[RowData]) -> Group:
    """Return the rows as two tables: speed, and what it costs."""
    return Group(drawn(rows, speed(rows), title=None, caption=context(rows)), drawn(rows, costs(rows), title=None))


def as_markdown(document: Mapping[str, Any]) -> str:
    """Return compare.json as Markdown: both tables, what all rows share, how it was measured, the command."""
    rows = document["rows"]
    facts = "\n".join(f"- {name}: {text}" for name, text in document["measured"].items())
    tables = [markdown(rows, columns) for columns in (speed(rows, intervals=True), costs(rows))]
    return "\n\n".join([*tables, context(rows), facts, f"```\n{rows[0]['command']}\n```"]) + "\n"


def as_csv(rows: Sequence[RowData]) -> str:
    """Return every field of the rows, unrounded; fields that are objects as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()})
    return text.getvalue()
