"""The results pages say what bench/results says."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from tests.support.pages import ROOT

RENDER = runpy.run_path(str(ROOT / "docs" / "render.py"))
FILES = sorted((ROOT / "bench" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RENDER["pages"](), ids=lambda path: path.name)
def test_the_page_is_what_its_template_and_the_files_give(path) -> None:
    assert path.read_text(encoding="utf-8") == RENDER["pages"]()[path], "run: python docs/render.py"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_results_file_is_on_a_page_that_names_processor_versions_and_command(file) -> None:
    holding = [
        page for page in (ROOT / "docs" / "results").glob("*.md") if f"{file.stem}.json" in page.read_text("utf-8")
    ]
    assert holding
    basis = re.search(rf"\*Processor: [^*]*{re.escape(file.name)}[^*]*torch [^*]*\*", holding[0].read_text("utf-8"))
    assert basis and f"The commands behind {file.stem}<" in "".join(page.read_text("utf-8") for page in holding)


def test_every_row_with_a_bleu_or_an_accuracy_is_in_a_table() -> None:
    """A number of a file that no page shows would be a result lost."""
    shown = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "results").glob("*.md"))
    for file in FILES:
        for row in json.loads(file.read_text("utf-8"))["rows"]:
            if row.get("bleu") is not None and "seed" in row:
                assert f"{row['bleu']:.2f}" in shown, f"{file.stem}: {row['name']}"
            elif row.get("accuracy") is not None and "net" in row:
                assert f"{100 * row['accuracy']:.2f} %" in shown, f"{file.stem}: {row['name']}"
            elif "cycles" in row:
                assert f"{row['cycles']:,}" in shown, f"{file.stem}: {row['network']} {row['design']}"


def test_a_number_changed_by_hand_is_seen() -> None:
    page = ROOT / "docs" / "results" / "translation.md"
    assert page.read_text("utf-8").replace("39.39", "39.93") != RENDER["pages"]()[page]
