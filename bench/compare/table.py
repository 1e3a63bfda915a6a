"""The rows of a comparison as tables for the terminal, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter

from rich.console import Group

from tprune.bench.compare.rows import System
from tprune.bench.report.table import BLANK, P_VALUE, SIZE, Column, Table, column, csv_text, fixed
from tprune.export.runtimes import RUNTIMES


def _name(row: System) -> str:
    ours = RUNTIMES.get(row.runtime)  # one model may be there for several runtimes
    return f"{row.name}, {ours.flag}" if ours else row.name


def _ms(time: float) -> str:
    return f"{time:.2f}" if time < 100 else f"{time:,.0f}"


def _roofline(row: System) -> str:
    assert row.roofline is not None
    return "in cache" if row.roofline.cached == 1 else f"{100 * row.roofline.share:.0f} %"


NAME = Column("system", attrgetter("name"), _name, number=False)
QUALITY = (
    NAME,
    column("BLEU", "bleu", fixed(2)),
    P_VALUE,
    column("same ids", "identical", lambda share: f"{100 * share:.1f} %"),
    column("tokens", "tokens", fixed(1)),
    column("load (ms)", "load_ms", fixed(0)),
    column("peak (MiB)", "peak_mib", fixed(0)),
    SIZE,
)


def speed(rows: Sequence[System], *, intervals: bool = False) -> Table:
    """Return the table of speed: times, and the speed-up over each rival, with `intervals` or without."""
    bases = list(dict.fromkeys(name for row in rows for name in row.speedups))
    columns = [
        NAME,
        column("median (ms)", "median_ms", _ms),
        Column("95 %", attrgetter("median_low"), lambda row: f"{_ms(row.median_low)}–{_ms(row.median_high)}"),
        *(_versus(base, intervals=intervals) for base in bases),
        Column("roofline", attrgetter("roofline"), _roofline),
    ]
    return Table(columns, rows, caption=context(rows)).without_blanks()


def _versus(base: str, *, intervals: bool) -> Column:
    def write(row: System) -> str:
        gain = row.speedups[base]
        if gain is None:
            return BLANK
        between = f" ({gain.low:.2f}–{gain.high:.2f})" if intervals else ""
        return "1" if row.name == base else f"{gain.ratio:.2f}x{between}"

    return Column(f"over {base}", lambda row: row.speedups.get(base), write)


def costs(rows: Sequence[System]) -> Table:
    """Return the table of quality, time to load, memory and size."""
    return Table(QUALITY, rows).without_blanks()


def context(rows: Sequence[System]) -> str:
    """Return what all rows share, as one sentence."""
    first = rows[0]
    facts = [f"threads {first.threads}", f"beams {first.beams}", "batch 1", f"{first.sentences} sentences"]
    facts += [f"{first.blocks} interleaved blocks", first.device]
    facts += [first.instruction_set] if first.instruction_set else []
    facts += [f"sacreBLEU {first.signature}"] if first.signature else []
    return "; ".join(facts)


def terminal(rows: Sequence[System]) -> Group:
    """Return the rows as two tables: speed, and its costs."""
    return Group(speed(rows).terminal(), costs(rows).terminal())


def as_markdown(rows: Sequence[System], measured: Mapping[str, str]) -> str:
    """Return both tables, what all rows share, how it was measured, and the command."""
    facts = "\n".join(f"- {name}: {text}" for name, text in measured.items())
    tables = [speed(rows, intervals=True).markdown(), costs(rows).markdown()]
    return "\n\n".join([*tables, context(rows), facts, f"```\n{rows[0].command}\n```"]) + "\n"


def as_csv(rows: Sequence[System]) -> str:
    """Return every field of the rows, unrounded; fields that are objects as JSON."""
    return csv_text([asdict(row) for row in rows], System.__dataclass_fields__)
