"""A simulation's report as sections, and the sections as Markdown and as one HTML file like `report.page`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from tprune.bench.report.figures import DARK, DARK_NARROW, LIGHT, LIGHT_NARROW, Look
from tprune.bench.report.page import DARK_PAGE, NARROW


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names its row, the columns from `numeric` on are numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its PNG without suffix, what it shows, and how it is drawn."""

    name: str
    caption: str
    draw: Callable[[Look], bytes]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order."""

    heading: str
    pictures: Sequence[Picture] = ()
    table: Table | None = None
    under: str = ""
    code: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    made: str
    warnings: Sequence[str]
    findings: Sequence[str]
    sections: Sequence[Section]


def pictures(page: Page) -> list[Picture]:
    """Return the figures of a report."""
    return [picture for section in page.sections for picture in section.pictures]


def markdown(page: Page) -> str:
    """Return the report as Markdown; its figures are PNG files beside it."""
    parts = [f"# {page.title}", page.made, *(f"**{sentence}**" for sentence in page.warnings)]
    parts.append("\n".join(f"- {sentence}" for sentence in page.findings))
    for section in page.sections:
        parts.append(f"## {section.heading}")
        parts += [f"![{picture.caption}]({picture.name}.png)" for picture in section.pictures]
        if section.table:
            parts.append(_markdown_table(section.table))
        parts += [section.under] if section.under else []
        parts += [f"```\n{section.code}\n```"] if section.code else []
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """Return the report as one HTML file: nothing is fetched, no script."""
    parts = [f'<ul class="warnings">{_items(page.warnings)}</ul>'] if page.warnings else []
    parts.append(f'<ul class="findings">{_items(page.findings)}</ul>')
    for section in page.sections:
        parts.append(f"<h2>{escape(section.heading)}</h2>")
        parts += [_figure(picture) for picture in section.pictures]
        if section.table:
            parts.append(_html_table(section.table))
        parts += [f'<p class="under">{escape(section.under)}</p>'] if section.under else []
        parts += [f"<pre><code>{escape(section.code)}</code></pre>"] if section.code else []
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(page.title), made=escape(page.made), body="\n".join(parts))


def _items(sentences: Sequence[str]) -> str:
    return "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)


def _figure(picture: Picture) -> str:
    looks = ((f"{NARROW} and {DARK_PAGE}", DARK_NARROW), (NARROW, LIGHT_NARROW), (DARK_PAGE, DARK))
    sources = "".join(f'<source media="{media}" srcset="{_inside(picture, look)}">' for media, look in looks)
    image = f'<img src="{_inside(picture, LIGHT)}" alt="{escape(picture.caption)}">'
    return f"<figure><picture>{sources}{image}</picture><figcaption>{escape(picture.caption)}</figcaption></figure>"


def _inside(picture: Picture, look: Look) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.draw(look)).decode("ascii")


def _markdown_table(table: Table) -> str:
    lines = [
        "| " + " | ".join(table.headings) + " |",
        "|" + "|".join("---" if number < table.numeric else "---:" for number in range(len(table.headings))) + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows),
    ]
    return "\n".join(lines)


def _html_table(table: Table) -> str:
    """Return a table whose first column heads its row; the style sheet makes cards of the rows on narrow screens."""
    kinds = ["long" if number < table.numeric else "number" for number in range(len(table.headings))]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(text)}</th>' for kind, text in zip(kinds, table.headings, strict=True)
    )
    lines = []
    for row in table.rows:
        cells = "".join(
            f'<td class="{kind}" data-label="{escape(heading)}">{escape(text)}</td>'
            for kind, heading, text in zip(kinds[1:], table.headings[1:], row[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
