"""The README: short, with the generated table, and its Python runs. Its commands and links: see tests/docs."""

from __future__ import annotations

from tests.support import pages
from tests.support.pages import ROOT


def test_the_readme_fits_two_screens() -> None:
    lines = pages.text("README.md").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 170


def test_the_table_and_the_picture_are_there() -> None:
    readme = pages.text("README.md")
    assert readme.count("| pruned to 60 %, ") == 3  # whether they are up to date: tests/docs/test_docs_results.py
    assert "](bench/results/multi30k-pareto.png)" in readme and (ROOT / "bench/results/multi30k-pareto.png").is_file()


def test_no_fence_is_left_open() -> None:
    for page in pages.PAGES:
        assert page.read_text(encoding="utf-8").count("\n```") % 2 == 0, page.name
