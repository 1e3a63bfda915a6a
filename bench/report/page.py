"""A report as one HTML file: style, figures and tables inside it, nothing fetched, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from tprune.bench.report import figures as figure
from tprune.bench.report import simulated, table
from tprune.bench.report.figures import DARK, DARK_NARROW, LIGHT, LIGHT_NARROW, Look
from tprune.bench.report.table import Column, RowData

NARROW = "(max-width: 760px)"
DARK_PAGE = "(prefers-color-scheme: dark)"
CAPTION = (
    "Each mark is one row of the table that has BLEU and a speed-up; the number beside it is the share of prunable "
    "weights kept. "
    "The shaded band is what the TPrune paper claims for its own models, data and phones: a mark inside it or beyond "
    "it is no comparison of hardware."
)


IMAGES_CAPTION = "Each mark is one row of the table that has an accuracy and a speed-up."

FUNCTIONAL = "Functional only: emulated devices"
FUNCTIONAL_ONLY = (
    "These runs prove that the artefacts and the runner work there and what they translate. An emulator's times say "
    "nothing about a phone, so none of them stands in this report."
)
SIMULATED = "Simulated, not measured: ESCALATE beside other accelerators"


@dataclass(frozen=True)
class Contents:
    """What a report says, in the order it says it; `figures` are the groups of rows that get a figure each."""

    title: str
    made: str
    warnings: Sequence[str]
    findings: Sequence[str]
    rows: Sequence[RowData]
    figures: Mapping[str, Sequence[RowData]]
    functional: Sequence[RowData] = ()
    notes: Sequence[str] = ()
    measured: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    details: Sequence[Mapping[str, Any]] = ()
    simulated: Sequence[Sequence[str]] = ()  # rows of `tprune.bench.report.simulated`
    commands: Sequence[str] = ()


def html(contents: Contents) -> str:
    """Return the page."""
    parts = [
        *([f'<ul class="warnings">{_items(contents.warnings)}</ul>'] if contents.warnings else []),
        f'<ul class="findings">{_items(contents.findings)}</ul>',
        *_figures(contents.figures),
    ]
    for name, rows in table.groups(contents.rows).items():
        parts += [f"<h2>{escape(table_heading(name))}</h2>", _rows(rows, table.columns(rows))]
        parts.append(f'<p class="under">{escape(table.context_line(rows))}</p>')
    if contents.functional:
        parts += [f"<h2>{FUNCTIONAL}</h2>", f'<p class="under">{FUNCTIONAL_ONLY}</p>']
        parts.append(_rows(contents.functional, table.functional_columns(contents.functional)))
    if contents.notes:
        parts += ["<h2>What is missing, and why</h2>", f'<ul class="plain">{_items(contents.notes)}</ul>']
    if contents.details:
        parts += ["<h2>Where the time goes</h2>", _details(contents.details)]
    if contents.simulated:
        numeric = [number >= simulated.TEXTS for number in range(len(simulated.HEADINGS))]
        parts.append(f"<h2>{SIMULATED}</h2>")
        parts.append(_table(simulated.HEADINGS, contents.simulated, numeric, [""] * len(contents.simulated)))
        parts.append(f'<p class="under">{escape(simulated.UNDER)}</p>')
    if contents.measured:
        parts += ["<h2>How it was measured</h2>", _pairs(contents.measured)]
    for name, facts in contents.devices.items():
        parts += [f"<h3>{escape(name)}</h3>", _pairs(facts)]
    if contents.commands:
        parts += ["<h2>Commands</h2>", f"<pre><code>{escape(chr(10).join(contents.commands))}</code></pre>"]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(contents.title), made=escape(contents.made), body="\n".join(parts))


def table_heading(group: str) -> str:
    """Return the heading of a table of rows."""
    return f"Table: {group}" if group else "Table"


def figure_heading(rows: Sequence[RowData]) -> str:
    """Return the heading of the figure of these rows."""
    return f"{'Accuracy' if figure.of_images(rows) else 'BLEU'} against speed-up"


def _items(sentences: Sequence[str]) -> str:
    return "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)


def _figures(groups: Mapping[str, Sequence[RowData]]) -> list[str]:
    parts = []
    for name, rows in groups.items():
        heading = figure_heading(rows) + (f": {name}" if len(groups) > 1 else "")
        caption = IMAGES_CAPTION if figure.of_images(rows) else CAPTION
        sources = "".join(
            f'<source media="{media}" srcset="{_picture(rows, look)}">'
            for media, look in (
                (f"{NARROW} and {DARK_PAGE}", DARK_NARROW),
                (NARROW, LIGHT_NARROW),
                (DARK_PAGE, DARK),
            )
        )
        image = f'<img src="{_picture(rows, LIGHT)}" alt="{escape(heading)}; the numbers are in the table below">'
        picture = f"<picture>{sources}{image}</picture>"
        parts += [f"<h2>{escape(heading)}</h2>", f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"]
    return parts


def _picture(rows: Sequence[RowData], look: Look) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.pareto(rows, look)).decode("ascii")


def _rows(rows: Sequence[RowData], shown: Sequence[Column]) -> str:
    cells = [[column.cell(row) for column in shown] for row in rows]
    kinds = ["bad" if table.is_bad(row) else "dense" if row["criterion"] == "dense" else "" for row in rows]
    return _table([column.heading for column in shown], cells, [column.number for column in shown], kinds)


def _details(details: Sequence[Mapping[str, Any]]) -> str:
    headings = [key for key in details[0] if any(row[key] is not None for row in details)]
    cells = [[table.BLANK if row[key] is None else str(row[key]) for key in headings] for row in details]
    return _table(headings, cells, [index > 0 for index in range(len(headings))], [""] * len(cells))


def _pairs(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items())}</dl>"


def _table(
    headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], kinds: Sequence[str]
) -> str:
    """Return a table whose first column heads its row; on a narrow screen every row becomes a card of its own."""
    kind = ['class="number"' if number else "" for number in numeric]
    head = "".join(f'<th scope="col" {k}>{escape(text)}</th>' for k, text in zip(kind, headings, strict=True))
    lines = []
    for row, kind_of_row in zip(cells, kinds, strict=True):
        first = f'<th scope="row">{escape(row[0])}</th>'
        rest = "".join(
            f'<td class="{_classes(number, heading)}" data-label="{escape(heading)}">{escape(text)}</td>'
            for number, heading, text in zip(numeric[1:], headings[1:], row[1:], strict=True)
        )
        lines.append(f"<tr{f' class={kind_of_row}' if kind_of_row else ''}>{first}{rest}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _classes(number: bool, heading: str) -> str:
    long = heading.startswith("speed-up") or heading in {"device", "sacreBLEU signature"}
    return " ".join(name for name, use in (("number", number), ("long", long)) if use)
