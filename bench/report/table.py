"""`Table`: rows and columns for the terminal, Markdown, HTML and CSV; and the tables of a report."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich import table as rich_table
from rich.console import Group
from rich.text import Text

from tprune.base.significance import p_cell
from tprune.bench.report.metrics import METRICS, Metric
from tprune.bench.report.row import Row, Sweep, counted, numbered

BLANK = "–"
EMULATED = "functional only: emulated devices"
SPEEDUP = "speed-up (95\u00a0%)"
RATIO = (
    " The speed-up is a ratio of summed times over the same {item}s; the median is the time of one {item}, so a ratio "
    "of medians may differ."
)


@dataclass(frozen=True)
class Column:
    """A heading, the value of a row in this column (None: blank), and how the row is written there.

    `value` is what a table sorts by and what CSV holds; `brief` columns are those shown on a terminal.
    """

    heading: str
    value: Callable[[Any], Any]
    write: Callable[[Any], str] | None = None
    number: bool = True
    brief: bool = False

    def cell(self, row: Any) -> str:
        """Return the text of one cell."""
        value = self.value(row)
        if value is None:
            return BLANK
        return self.write(row) if self.write else str(value)

    def sort_key(self, row: Any) -> str:
        """Return the number that a page sorts the row by, or nothing where the text of the cell does."""
        value = self.value(row)
        return f"{value:.10g}" if isinstance(value, (int, float)) else ""


@cache
def templates() -> Environment:
    """Return the templates of pages; what goes into HTML is escaped."""
    folder = Path(__file__).parent
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("page.css", "page.js"):
        found.globals[name.replace(".", "_")] = Markup((folder / name).read_text(encoding="utf-8"))
    return found


def column(heading: str, name: str, write: Callable[[Any], str] | None = None, **options: Any) -> Column:
    """Return the column of one attribute of the rows; `write` takes the value of the attribute."""
    value = attrgetter(name)
    return Column(heading, value, (lambda row: write(value(row))) if write else None, **options)


@dataclass(frozen=True)
class Table:
    """Rows under columns. Rows may have a `look` ("dense", "bad" or nothing) and `tags` that a page filters by."""

    columns: Sequence[Column]
    rows: Sequence[Any]
    title: str = ""
    caption: str = ""

    def without_blanks(self, *, brief: bool = False) -> Table:
        """Return the table without columns that are blank in every row; with `brief` only what fits a terminal."""
        shown = [one for one in self.columns if any(one.value(row) is not None for row in self.rows)]
        shown = [one for one in shown if one.brief or not brief]
        return replace(self, columns=shown)

    def cells(self) -> list[list[str]]:
        """Return the texts of all cells."""
        return [[one.cell(row) for one in self.columns] for row in self.rows]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        rule = "|".join("---:" if one.number else "---" for one in self.columns)
        lines = [[one.heading for one in self.columns], *self.cells()]
        written = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
        return "\n".join([written[0], f"|{rule}|", *written[1:]])

    def csv(self) -> str:
        """Return the values, unrounded, as CSV with a heading line; objects as JSON."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([one.heading for one in self.columns])
        for row in self.rows:
            values = [one.value(row) for one in self.columns]
            writer.writerow([json.dumps(value) if isinstance(value, dict) else value for value in values])
        return text.getvalue()

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        macros: Any = templates().get_template("table.html.j2").module
        return str(macros.table(self))

    def terminal(self) -> Group:
        """Return the table for a terminal: where space is short, names are folded and numbers are not."""
        table = rich_table.Table(title=self.title or None)
        for one in self.columns:
            if one.number:
                heading = "\n".join(textwrap.wrap(one.heading, 8, break_long_words=False))
                table.add_column(heading, justify="right", no_wrap=True)
            else:
                table.add_column(one.heading, overflow="fold")
        for row, cells in zip(self.rows, self.cells(), strict=True):
            table.add_row(*cells, style="red" if getattr(row, "look", "") == "bad" else "")
        return Group(table, *([Text(self.caption)] if self.caption else []))


def texts(headings: Sequence[str], rows: Sequence[Sequence[str]], first_number: int = 1, **options: Any) -> Table:
    """Return a table of finished texts; columns from `first_number` on are numbers."""
    places = enumerate(headings)
    return Table([Column(text, itemgetter(at), number=at >= first_number) for at, text in places], rows, **options)


def csv_text(documents: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str:
    """Return JSON rows as CSV with the columns `names`."""
    return Table([Column(name, itemgetter(name)) for name in names], documents).csv()


def fixed(digits: int, scale: float = 1.0) -> Callable[[float], str]:
    """Return a writer of numbers with `digits` decimals, and at least two significant digits."""
    return lambda value: decimals(value * scale, digits)


def decimals(value: float, digits: int) -> str:
    """Return the value with `digits` decimals, and at least two significant digits."""
    return f"{value:#.2g}" if digits and 0 < abs(value) < 10.0 ** (1 - digits) else f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.0f} %" if 100 * value >= 9.5 else f"{100 * value:#.2g} %"


def _gain(row: Row) -> str:
    return "1" if row.dense else f"{row.speedup:.2f}x ({row.speedup_low:.2f}–{row.speedup_high:.2f})"


def _change(metric: Metric) -> Column:
    def write(row: Row) -> str:
        return "0" if metric.lost(row) == 0 else metric.change_text(row).removesuffix(" points")

    def value(row: Row) -> float | None:
        lost = metric.lost(row)
        return None if lost is None else -lost

    return Column(metric.change_heading, value, write, brief=True)


QUALITY = [
    one
    for metric in METRICS
    for one in (Column(metric.label, metric.value, metric.value_text, brief=True), _change(metric))
]
P_VALUE, SIZE = column("p", "p_value", p_cell, brief=True), column("size (MB)", "bytes", fixed(1, 1e-6), brief=True)

COLUMNS = (
    column("criterion", "criterion", number=False),
    column("kept", "keep", percent),
    column("seed", "seed"),
    *QUALITY,
    P_VALUE,
    column("chrF", "chrf", fixed(1)),
    Column(SPEEDUP, attrgetter("speedup"), _gain, brief=True),
    column("median (ms)", "median_ms", fixed(2), brief=True),
    column("p90 (ms)", "p90_ms", fixed(2)),
    column("peak (MiB)", "peak_mib", fixed(0)),
    SIZE,
    column("params (M)", "params", fixed(2, 1e-6)),
    column("MACs (M)", "macs", fixed(2, 1e-6)),
)

# Usually the same in all rows: said once under the table, and in the first cell of a row that differs.
CONTEXT = (
    column("runtime", "runtime", number=False),
    column("precision", "precision", number=False),
    column("device", "device", number=False),
    column("instruction set", "instruction_set", number=False),
    column("threads", "threads"),
    column("beams", "beams"),
    column("mode", "mode", number=False),
    column("verdict", "verdict", number=False),
    column("scored", "scored"),
    column("sacreBLEU signature", "signature", number=False),
)

# Rows of emulated devices; no column is a time.
FUNCTIONAL = (
    column("model", "name", number=False, brief=True),
    Column(
        "device", attrgetter("device"), lambda row: f"{row.device} ({row.functional.abi}, emulated)", False, brief=True
    ),
    column("runtime", "runtime", number=False, brief=True),
    column("precision", "precision", number=False),
    column("beams", "beams"),
    column("verdict", "verdict", number=False, brief=True),
    Column(
        "as on the host",
        attrgetter("functional.identical"),
        lambda row: f"{row.functional.identical} of {row.functional.sentences}",
        brief=True,
    ),
    *QUALITY,
    P_VALUE,
    column("sentences scored", "scored"),
    SIZE,
)


def _sweep(gain: Sweep) -> str:
    return f"{gain.ratio:.2f}x ({gain.low:.2f}–{gain.high:.2f}) of {counted(gain.threads, 'thread')}"


def _detail(heading: str, name: str, pattern: str) -> Column:
    def value(row: Row) -> Any:
        found: Any = row.details
        for part in name.split("."):
            found = None if found is None else getattr(found, part)
        return found

    return Column(heading, value, lambda row: pattern.format(value(row)))


DETAILS = (
    column("model", "label", number=False),
    _detail("load (ms)", "load_ms", "{:.0f}"),
    _detail("first run (ms)", "first_ms", "{:.1f}"),
    _detail("encoder median (ms)", "encoder_ms", "{:.2f}"),
    _detail("decoder step mean (ms)", "step_ms", "{:.3f}"),
    _detail("p99 (ms)", "p99_ms", "{:.2f}"),
    _detail("tokens a sentence", "tokens", "{:.1f}"),
    _detail("tokens/s", "tokens_per_s", "{:.0f}"),
    _detail("outside engine", "overhead_percent", "{:.1f} %"),
    _detail("first minute (ms)", "endurance.first_ms", "{:.2f}"),
    _detail("last minute (ms)", "endurance.last_ms", "{:.2f}"),
    _detail("last / first", "endurance.ratio", "{:.2f}"),
    Column("speed by threads", attrgetter("details.sweep"), lambda row: _sweep(row.details.sweep)),
    _detail("threads in process", "threads_got", "{}"),
    _detail("CPUs used by others", "others", "{:.1f}"),
    Column("least CPU share", attrgetter("details.cpu_share"), lambda row: f"{100 * row.details.cpu_share:.0f} %"),
    Column(
        "as on the host",
        attrgetter("details.identical"),
        lambda row: f"{row.details.identical} of {row.details.sentences}",
    ),
    _detail("before opening (MiB)", "base_mib", "{:.0f}"),
    _detail("anonymous (MiB)", "anon_mib", "{:.0f}"),
    _detail("file-backed (MiB)", "file_mib", "{:.0f}"),
)  # fmt: skip


def of_rows(rows: Sequence[Row], title: str = "") -> Table:
    """Return the table of rows; its caption says what the rows share."""
    usual = context(rows)
    names = dict(zip(map(id, rows), numbered([_name(row, usual) for row in rows]), strict=True))
    name = Column("model", lambda row: names[id(row)], number=False, brief=True)
    shared = "; ".join(f"{heading} {text}" for heading, text in usual.items())
    caption = f"All rows, unless the row says otherwise: {shared}." if shared else ""
    if compared := [row.metric.item for row in rows if row.gain and not row.dense]:
        caption += RATIO.format(item=compared[0])
    return Table([name, *COLUMNS], rows, title, caption).without_blanks()


def context(rows: Sequence[Row]) -> dict[str, str]:
    """Return heading -> text of what all rows, or most of them, share."""
    found = {}
    for one in CONTEXT:
        texts = Counter(one.cell(row) for row in rows if one.value(row) is not None)
        if texts:
            found[one.heading] = texts.most_common(1)[0][0]
    return found


def _name(row: Row, usual: Mapping[str, str]) -> str:
    unusual = [
        f"{one.cell(row)} {one.heading}" if one.number else one.cell(row)
        for one in CONTEXT
        if one.value(row) is not None
        if one.cell(row) != usual[one.heading] or (one.heading == "precision" and row.precision != "fp32")
    ]
    return row.name + (f" ({', '.join(unusual)})" if unusual else "")


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows that share a table: all of them, or where there are several devices, by device."""
    devices = list(dict.fromkeys(row.device for row in rows if row.device is not None))
    if len(devices) < 2:
        return {"": list(rows)} if rows else {}
    named = {device: [row for row in rows if row.device == device] for device in devices}
    untimed = [row for row in rows if row.device is None]
    return {**named, "not timed": untimed} if untimed else named


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the tables of a report: one per device, and one for the emulated devices."""
    measured = [row for row in rows if row.functional is None]
    emulated = [row for row in rows if row.functional is not None]
    found = [of_rows(own, name) for name, own in groups(measured).items()]
    functional = Table(FUNCTIONAL, emulated, EMULATED)
    proven = [functional.without_blanks()] if emulated else []
    known = any(row.details or row.scored for row in measured)  # otherwise they were only exported
    return [*found, *proven] if known else [*proven, *found]


def details(rows: Sequence[Row]) -> Table:
    """Return the table of what lies behind the times."""
    return Table(DETAILS, [row for row in rows if row.details], "details").without_blanks()
