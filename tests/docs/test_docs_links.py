"""Links and paths in the README and the documentation lead somewhere; no site generator is needed to see it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.pages import GENERATED, PAGES, ROOT
from tests.test_imports import ORDER

LINK = re.compile(r"\]\(([^)\s]+)\)")
# A file or folder of the repository in running text, such as `bench/results` or `tests/test_imports.py`.
TREE = re.compile(r"(?:\.ci|android_runner|bench|cnn|docs|export|tests|tprune)(?:/[\w.\-]+)+/?")
MADE = {"docs/cli.md"}


def broken(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(pages.prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.relative_to(ROOT / "docs").parts if target.is_relative_to(ROOT / "docs") else ("",)
        if inside[0] in GENERATED and not target.exists():
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in pages.anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#a-heading) [d](there.md#gone) [e](https://x.example)\n",
        encoding="utf-8",
    )
    assert broken(page) == ["gone.md", "there.md#gone"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_the_text_exist(page: Path) -> None:
    for span in pages.spans(page):
        if TREE.fullmatch(span) and not span.startswith("tests/fuzz"):
            assert (ROOT / span).exists() or (page.parent / span).exists(), f"`{span}`"


def test_the_picture_of_the_packages_is_the_import_order() -> None:
    names = re.findall(r">(tprune[\w.]*)</text>", pages.text("docs/assets/architecture.svg"))
    assert names == list(ORDER)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/\-]+\.md", pages.text("mkdocs.yml")))
    written = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert written <= listed
