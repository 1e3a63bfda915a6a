"""A report as one HTML file: style, figures and tables inside it, nothing fetched, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from bench import figure, table
from bench.figure import DARK, DARK_NARROW, LIGHT, LIGHT_NARROW, Look
from bench.table import RowData

NARROW = "(max-width: 760px)"
DARK_PAGE = "(prefers-color-scheme: dark)"
CAPTION = (
    "Each mark is one row of the table; the number beside it is the share of prunable weights kept. "
    "The shaded band is what the TPrune paper claims for its own models, data and phones: a mark inside it or beyond "
    "it is no comparison of hardware."
)


@dataclass(frozen=True)
class Contents:
    """What a report says, in the order it says it; `figures` are the groups of rows that get a figure each."""

    title: str
    made: str
    findings: Sequence[str]
    rows: Sequence[RowData]
    figures: Mapping[str, Sequence[RowData]]
    notes: Sequence[str] = ()
    measured: Mapping[str, str] = field(default_factory=dict)
    details: Sequence[Mapping[str, Any]] = ()
    commands: Sequence[str] = ()


def html(contents: Contents) -> str:
    """Return the page."""
    parts = [
        f'<ul class="findings">{_items(contents.findings)}</ul>',
        *_figures(contents.figures),
        "<h2>Table</h2>",
        _rows(contents.rows),
    ]
    parts.append(f'<p class="under">{escape(table.context_line(contents.rows))}</p>')
    if contents.notes:
        parts += ["<h2>What is missing, and why</h2>", f'<ul class="plain">{_items(contents.notes)}</ul>']
    if contents.details:
        parts += ["<h2>Where the time goes</h2>", _details(contents.details)]
    if contents.measured:
        pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in contents.measured.items())
        parts += ["<h2>How it was measured</h2>", f"<dl>{pairs}</dl>"]
    if contents.commands:
        parts += ["<h2>Commands</h2>", f"<pre><code>{escape(chr(10).join(contents.commands))}</code></pre>"]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(contents.title), made=escape(contents.made), body="\n".join(parts))


def _items(sentences: Sequence[str]) -> str:
    return "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)


def _figures(groups: Mapping[str, Sequence[RowData]]) -> list[str]:
    parts = []
    for name, rows in groups.items():
        heading = "BLEU against speed-up" + (f": {name}" if len(groups) > 1 else "")
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
        parts += [f"<h2>{escape(heading)}</h2>", f"<figure>{picture}<figcaption>{CAPTION}</figcaption></figure>"]
    return parts


def _picture(rows: Sequence[RowData], look: Look) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.pareto(rows, look)).decode("ascii")


def _rows(rows: Sequence[RowData]) -> str:
    shown = table.columns(rows)
    numeric = [column.number for column in shown]
    headings = [column.heading for column in shown]
    cells = [[column.cell(row) for column in shown] for row in rows]
    return _table(headings, cells, numeric, dense=[row["criterion"] == "dense" for row in rows])


def _details(details: Sequence[Mapping[str, Any]]) -> str:
    headings = [key for key in details[0] if any(row[key] is not None for row in details)]
    cells = [[table.BLANK if row[key] is None else str(row[key]) for key in headings] for row in details]
    return _table(headings, cells, [index > 0 for index in range(len(headings))], dense=[False] * len(cells))


def _table(
    headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], *, dense: Sequence[bool]
) -> str:
    """Return a table whose first column heads its row; on a narrow screen every row becomes a card of its own."""
    kind = ['class="number"' if number else "" for number in numeric]
    head = "".join(f'<th scope="col" {k}>{escape(text)}</th>' for k, text in zip(kind, headings, strict=True))
    lines = []
    for row, is_dense in zip(cells, dense, strict=True):
        first = f'<th scope="row">{escape(row[0])}</th>'
        rest = "".join(
            f'<td class="{_classes(number, heading)}" data-label="{escape(heading)}">{escape(text)}</td>'
            for number, heading, text in zip(numeric[1:], headings[1:], row[1:], strict=True)
        )
        lines.append(f"<tr{' class=dense' if is_dense else ''}>{first}{rest}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _classes(number: bool, heading: str) -> str:
    long = heading.startswith("speed-up") or heading in {"device", "sacreBLEU signature"}
    return " ".join(name for name, use in (("number", number), ("long", long)) if use)
