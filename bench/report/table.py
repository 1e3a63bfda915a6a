"""Rows of a report as a terminal table, Markdown and CSV; a column in which every row is blank is left out."""

from __future__ import annotations

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Group
from rich.table import Table

from tprune.bench.report.row import Row, numbered

RowData = Mapping[str, Any]
BLANK = "–"


@dataclass(frozen=True)
class Column:
    """A column: the row's field, its heading, and how a row is written in it (`BLANK` where the field is None)."""

    key: str
    heading: str
    write: Callable[[RowData], str]
    number: bool = True

    def cell(self, row: RowData) -> str:
        """Return the text of one cell."""
        return BLANK if row[self.key] is None else self.write(row)


def _plain(key: str) -> Callable[[RowData], str]:
    return lambda row: str(row[key])


def _fixed(key: str, digits: int, scale: float = 1.0) -> Callable[[RowData], str]:
    return lambda row: _digits(row[key] / scale, digits)


def _digits(value: float, digits: int) -> str:
    """Return the value with so many digits after the point, and with two that count where that would leave one."""
    return f"{value:#.2g}" if digits and 0 < abs(value) < 10.0 ** (1 - digits) else f"{value:,.{digits}f}"


def _kept(row: RowData) -> str:
    percent = 100 * row["keep"]
    return f"{percent:.0f} %" if percent >= 9.5 else f"{percent:#.2g} %"


def _change(row: RowData) -> str:
    change = -row["bleu_loss_percent"]
    return "0" if change == 0 else f"{change:+.1f} %".replace("-", "−")


def _points(row: RowData) -> str:
    change = -100 * row["accuracy_loss"]
    return "0" if change == 0 else f"{change:+.2f}".replace("-", "−")


def _p_value(row: RowData) -> str:
    return "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"


def _speedup(row: RowData) -> str:
    if row["criterion"] == "dense":
        return "1"
    return f"{row['speedup']:.2f}x ({row['speedup_low']:.2f}–{row['speedup_high']:.2f})"


COLUMNS = (
    Column("name", "model", _plain("name"), number=False),
    Column("criterion", "criterion", _plain("criterion"), number=False),
    Column("keep", "kept", _kept),
    Column("seed", "seed", _plain("seed")),
    Column("bleu", "BLEU", _fixed("bleu", 2)),
    Column("bleu_loss_percent", "BLEU change", _change),
    Column("accuracy", "accuracy", lambda row: f"{100 * row['accuracy']:.2f} %"),
    Column("accuracy_loss", "change (points)", _points),
    Column("p_value", "p", _p_value),
    Column("chrf", "chrF", _fixed("chrf", 1)),
    Column("speedup", "speed-up (95\u00a0%)", _speedup),
    Column("median_ms", "median (ms)", _fixed("median_ms", 2)),
    Column("p90_ms", "p90 (ms)", _fixed("p90_ms", 2)),
    Column("peak_mib", "peak (MiB)", _fixed("peak_mib", 0)),
    Column("bytes", "size (MB)", _fixed("bytes", 1, 1e6)),
    Column("params", "params (M)", _fixed("params", 2, 1e6)),
    Column("macs", "MACs (M)", _fixed("macs", 2, 1e6)),
)

# What is usually the same in all rows: said once under the table, and in the first cell of a row that differs.
CONTEXT = (
    Column("runtime", "runtime", _plain("runtime"), number=False),
    Column("precision", "precision", _plain("precision"), number=False),
    Column("device", "device", _plain("device"), number=False),
    Column("instruction_set", "instruction set", _plain("instruction_set"), number=False),
    Column("threads", "threads", _plain("threads")),
    Column("beams", "beams", _plain("beams")),
    Column("mode", "mode", _plain("mode"), number=False),
    Column("verdict", "verdict", _plain("verdict"), number=False),
    Column("scored", "scored", _plain("scored")),
    Column("signature", "sacreBLEU signature", _plain("signature"), number=False),
)


# What emulated devices prove; nothing of it is a time.
FUNCTIONAL = (
    Column("name", "model", _plain("name"), number=False),
    Column("device", "device", lambda row: f"{row['device']} ({row['abi']}, emulated)", number=False),
    Column("runtime", "runtime", _plain("runtime"), number=False),
    Column("precision", "precision", _plain("precision"), number=False),
    Column("beams", "beams", _plain("beams")),
    Column("verdict", "verdict", _plain("verdict"), number=False),
    Column("identical", "as on the host", lambda row: f"{row['identical']} of {row['sentences']}"),
    Column("bleu", "BLEU", _fixed("bleu", 2)),
    Column("bleu_loss_percent", "BLEU change", _change),
    Column("accuracy", "accuracy", lambda row: f"{100 * row['accuracy']:.2f} %"),
    Column("accuracy_loss", "change (points)", _points),
    Column("p_value", "p", _p_value),
    Column("scored", "sentences scored", _plain("scored")),
    Column("bytes", "size (MB)", _fixed("bytes", 1, 1e6)),
)


ON_A_TERMINAL = {
    "name",
    "bleu",
    "bleu_loss_percent",
    "accuracy",
    "accuracy_loss",
    "p_value",
    "speedup",
    "median_ms",
    "bytes",
}  # 80 characters' worth


FUNCTIONAL_ON_A_TERMINAL = {"name", "device", "runtime", "verdict", "identical", "bleu", "accuracy"}


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, "1 thread" or "2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[RowData]) -> list[Column]:
    """Return the columns worth showing: those that are not blank in every row."""
    usual = context(rows)
    names = dict(zip(map(id, rows), numbered([_name(row, usual) for row in rows]), strict=True))
    shown = [column for column in COLUMNS if any(row[column.key] is not None for row in rows)]
    return [Column("name", "model", lambda row: names[id(row)], number=False), *shown[1:]]


def functional_columns(rows: Sequence[RowData]) -> list[Column]:
    """Return the columns worth showing of what emulated devices prove."""
    return [column for column in FUNCTIONAL if any(row[column.key] is not None for row in rows)]


def context(rows: Sequence[RowData]) -> dict[str, str]:
    """Return heading -> text of what all rows, or most of them, share."""
    found = {}
    for column in CONTEXT:
        counted = Counter(column.cell(row) for row in rows if row[column.key] is not None)
        if counted:
            found[column.heading] = counted.most_common(1)[0][0]
    return found


def context_line(rows: Sequence[RowData], mark: str = "") -> str:
    """Return `context` as one sentence; `mark` is put around every value."""
    shared = "; ".join(f"{heading} {mark}{text}{mark}" for heading, text in context(rows).items())
    return f"All rows, unless the row says otherwise: {shared}." if shared else ""


def _name(row: RowData, usual: Mapping[str, str]) -> str:
    unusual = [
        f"{column.cell(row)} {column.heading}" if column.number else column.cell(row)
        for column in CONTEXT
        if row[column.key] is not None and column.cell(row) != usual[column.heading]
    ]
    return row["name"] + (f" ({', '.join(unusual)})" if unusual else "")


def groups(rows: Sequence[RowData]) -> dict[str, list[RowData]]:
    """Return the rows that share a table: all of them, or where there are several devices, by device."""
    devices = list(dict.fromkeys(row["device"] for row in rows if row["device"] is not None))
    if len(devices) < 2:
        return {"": list(rows)} if rows else {}
    named = {device: [row for row in rows if row["device"] == device] for device in devices}
    untimed = [row for row in rows if row["device"] is None]
    return {**named, "not timed": untimed} if untimed else named


def terminal(document: Mapping[str, Any]) -> Group:
    """Return a report's rows as rich tables of what fits a terminal, what they share below each."""
    tables = []
    for name, rows in groups(document["rows"]).items():
        shown = [column for column in columns(rows) if column.key in ON_A_TERMINAL]
        tables.append(drawn(rows, shown, title=name or None, caption=context_line(rows)))
    if emulated := document["functional"]:
        shown = [column for column in functional_columns(emulated) if column.key in FUNCTIONAL_ON_A_TERMINAL]
        tables.append(drawn(emulated, shown, title="functional only: emulated devices"))
    return Group(*tables)


def drawn(rows: Sequence[RowData], shown: Sequence[Column], *, title: str | None, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption)
    for column in shown:  # where room is scarce names are folded, numbers never
        if column.number:
            heading = "\n".join(textwrap.wrap(column.heading, 8, break_long_words=False))
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, overflow="fold")
    for row in rows:
        table.add_row(*(column.cell(row) for column in shown), style="red" if is_bad(row) else "")
    return table


def markdown(rows: Sequence[RowData], shown: Sequence[Column]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| " + " | ".join(column.heading for column in shown) + " |",
        "|" + "|".join("---:" if column.number else "---" for column in shown) + "|",
        *("| " + " | ".join(column.cell(row).replace("|", "\\|") for column in shown) + " |" for row in rows),
    ]
    return "\n".join(lines)


def is_bad(row: RowData) -> bool:
    """Say whether a row stands on a run that is not to be trusted: it is drawn in red."""
    return row["verdict"] not in {None, "VALID", "EMULATED"}


def csv_text(rows: Sequence[RowData]) -> str:
    """Return every field of the rows, unrounded, as CSV with a heading line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
