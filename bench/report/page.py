"""One page engine for reports and simulations: a `Page` of sections as HTML and as Markdown, from Jinja2 templates.

The HTML file needs nothing from outside: style, figures and script are inside, and all of it can be read without
scripts. Its size is below 3 MB.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from tprune.base import stamp
from tprune.bench.report import palette
from tprune.bench.report.figures import Chart
from tprune.bench.report.palette import LIGHT, Look
from tprune.bench.report.row import FILTERS
from tprune.bench.report.table import Table, templates

Words = Sequence[tuple[str, bool]]  # pieces of a sentence, and whether each differs from the other side


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its PNG file without suffix, its caption, and how to draw it."""

    name: str
    caption: str
    draw: Callable[[Look], bytes]

    def inside(self, look: Look) -> str:
        """Return the picture as a data URL."""
        return "data:image/png;base64," + base64.b64encode(self.draw(look)).decode("ascii")


@dataclass(frozen=True)
class Translation:
    """One sentence as the dense model and as another model translate it."""

    number: int
    dense: Words
    other: Words


@dataclass(frozen=True)
class Section:
    """A heading and its contents, in this order; where there is a `chart`, HTML shows it in place of `pictures`."""

    heading: str
    intro: str = ""
    chart: Chart | None = None
    pictures: Sequence[Picture] = ()
    table: Table | None = None
    translations: Sequence[Translation] = ()
    sides: tuple[str, str] = ("", "")
    items: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    under: str = ""
    code: str = ""
    level: int = 2


@dataclass(frozen=True)
class Page:
    """A whole report; `made` says when and on what."""

    title: str
    made: str
    warnings: Sequence[str]
    findings: Sequence[str]
    sections: Sequence[Section]
    verdict: Sequence[str] = ()

    @property
    def filters(self) -> dict[str, list[str]]:
        """What rows can be filtered by: name -> values, where there are several."""
        rows = [row for one in self.sections if one.table for row in one.table.rows]
        found: dict[str, dict[str, None]] = {name: {} for name in FILTERS}
        for name, value in (tag for row in rows for tag in getattr(row, "tags", {}).items()):
            found[name][value] = None
        return {name: list(values) for name, values in found.items() if len(values) > 1}

    @property
    def pictures(self) -> list[Picture]:
        """All PNG figures."""
        return [picture for section in self.sections for picture in section.pictures]

    def html(self) -> str:
        """Return the page as HTML."""
        return templates().get_template("page.html.j2").render(page=self, looks=palette.OTHER_LOOKS, light=LIGHT)

    def markdown(self) -> str:
        """Return the page as Markdown; its figures are PNG files beside it."""
        text = templates().get_template("page.md.j2").render(page=self)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@dataclass(frozen=True, repr=False, eq=False)
class Report(Mapping[str, Any]):
    """A written report: its folder, its typed rows, report.json as `document`, and its tables.

    Also a read-only mapping of `document`.
    """

    folder: Path
    rows: Sequence[Any]
    document: Mapping[str, Any]
    tables: Sequence[Table]

    def __getitem__(self, name: str) -> Any:
        return self.document[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.document)

    def __len__(self) -> int:
        return len(self.document)

    def __repr__(self) -> str:
        count = len(self.rows)
        return f"Report({str(self.folder / 'report.html')!r}, {count} row{'' if count == 1 else 's'})"

    def _repr_html_(self) -> str:
        """Return the tables for a notebook."""
        return "".join(one._repr_html_() for one in self.tables)

    def terminal(self) -> Group:
        """Return the tables for a terminal of 80 characters."""
        return Group(*(one.without_blanks(brief=True).terminal() for one in self.tables))


def write(page: Page, out: Path | str, document: dict[str, Any], csv: str) -> None:
    """Write report.json, .csv, .md, .html and the figures into the new folder `out`."""
    with stamp.new_folder(out) as folder:
        stamp.write_json(folder / "report.json", document)
        stamp.write_text(folder / "report.csv", csv)
        for picture in page.pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.draw(LIGHT))
        stamp.write_text(folder / "report.md", page.markdown())
        stamp.write_text(folder / "report.html", page.html())


def made(document: Mapping[str, Any], *facts: str) -> str:
    """Return the line under the title: when, `facts`, and the version."""
    when = document["created"].replace("T", " ").replace("+00:00", " UTC")
    return " · ".join([when, *facts, f"tprune {document['versions'].get('tprune', 'from source')}"])
