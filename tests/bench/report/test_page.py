"""report.html in a headless Chromium: hover, keyboard, filters, sorting, 390 px, scripts off, dark mode, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import CHROMIUM, Browser
from tests.support.runs import DENSE, DEVICE, HALF, PHONE, model, on_phone, quality, timed, weighed, write
from tprune.bench.report.report import report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
SMALL = model("<i>small</i>", "taylor", 0.2)
SAID = ["Ein Mann geht nach Hause .", "Zwei Hunde spielen im Schnee .", "Die Frau liest ."]


@pytest.fixture(scope="module", name="page")
def a_page(tmp_path_factory) -> Path:
    """A report on three models on the host in two precisions and two of them on a phone, with their translations."""
    folder = tmp_path_factory.mktemp("page")
    random = np.random.default_rng(0)
    records, quick = [], {DENSE["name"]: 1.0, HALF["name"]: 1.6, SMALL["name"]: 2.4}
    for block in range(3):
        for of in (DENSE, HALF, SMALL):
            took = 20 / quick[of["name"]] * random.lognormal(0, 0.05, 20)
            records.append(timed(of, block, took))
            eight = {"precision": "int8", "artefact": f"{of['name']}-8", "bytes": of["params"]}
            records.append(timed(of, block, took / 1.3, **eight))
        for of in (DENSE, HALF):
            took = 50 / quick[of["name"]] ** 1.5 * random.lognormal(0, 0.05, 20)
            records.append(on_phone(of, block, took, runtime="executorch"))
    records += [weighed(of, 100_000) for of in (DENSE, HALF, SMALL)]
    changed = ["Ein Mann geht heim .", SAID[1], "Die Frau schreibt ."]
    qualities = [
        quality(DENSE, 40.0, hypotheses=SAID),
        quality(HALF, 39.8, hypotheses=changed),
        quality(SMALL, 35.0, hypotheses=SAID),
        quality(DENSE, 39.9, runtime="onnxruntime", precision="int8", hypotheses=SAID),
        quality(HALF, 39.7, runtime="onnxruntime", precision="int8", hypotheses=changed),
    ]
    report([write(folder / "runs", qualities, records)], folder / "out")
    return folder / "out" / "report.html"


@pytest.fixture(scope="module", name="browser")
def a_browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


def rows(browser: Browser) -> list[str]:
    """Return the first cells of the rows that are displayed, of the tables of models."""
    return browser.texts("section:has(.under) tbody tr[data-runtime] th")


def choose(browser: Browser, name: str, value: str) -> None:
    browser.value(
        f"(() => {{ const one = document.querySelector('[data-filter={name}]'); one.value = '{value}';"
        " one.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )


def test_the_verdict_comes_first_and_nothing_is_fetched(browser, page):
    browser.open(page)
    second, first = browser.texts(".verdict")
    assert first.startswith("Take shs-50, int8: it is 85 % smaller and 2.1")
    assert f"times as fast as the dense fp32 model on {DEVICE} (95 % interval " in first
    assert "Its BLEU is 39.70 (−0.7 % against the dense model, p = 0.012, a significant difference)." in first
    assert second.startswith("Take shs-50: it is") and PHONE["model"] in second
    assert browser.errors == [] and browser.requests == [page.resolve().as_uri()]
    assert page.stat().st_size < 300_000


def test_hovering_over_a_mark_shows_its_row(browser, page):
    browser.open(page)
    assert browser.texts(".tip") == []
    choose(browser, "precision", "fp32")  # int8 marks lie on those of fp32
    browser.hover("svg.wide .mark[data-precision=fp32][data-device^='Made-up']:nth-of-type(2) .halo")
    (tip,) = browser.texts(".tip")
    for text in (
        "shs-50",
        "BLEU 39.80 (−0.5 %, p = 0.012)",
        "median latency 12.",
        "95 % interval",
        "size 22.9 MB",
        DEVICE,
    ):
        assert text in tip
    browser.hover("h1")
    assert browser.texts(".tip") == []


def test_marks_are_reached_by_keyboard(browser, page):
    browser.open(page)
    browser.value("document.querySelector('select:last-of-type').focus()")
    for _ in range(3):  # over the other selects
        browser.press("Tab")
    assert browser.value("document.activeElement.getAttribute('class')") == "mark"
    first = browser.texts(".tip")
    browser.press("ArrowRight")
    second = browser.texts(".tip")
    assert first and second and first != second
    assert "BLEU" in browser.value("document.activeElement.getAttribute('aria-label')")
    browser.press("ArrowLeft")
    assert browser.texts(".tip") == first
    browser.press("Escape")
    assert browser.texts(".tip") == []


def test_filters_hide_rows_marks_and_empty_tables(browser, page):
    browser.open(page)
    assert browser.texts(".filters label") and browser.value("document.querySelectorAll('select').length") == 3
    everything = len(rows(browser))
    choose(browser, "precision", "int8")
    assert len(rows(browser)) == 3 and everything == 8
    assert browser.value("document.querySelectorAll('svg.wide .mark:not(.off)').length") == 2
    assert browser.texts("h2")[:2] == ["BLEU against speed-up", f"Table: {DEVICE}"]
    assert browser.texts("output") == ["3 of 8 rows"]  # those of the details are not counted again
    choose(browser, "precision", "")
    choose(browser, "device", PHONE["model"])
    assert rows(browser) == ["dense", "shs-50"]
    choose(browser, "device", "")
    assert len(rows(browser)) == everything


def test_headings_sort_their_table_and_blanks_stay_last(browser, page):
    browser.open(page)
    table = f"section:has(.under):has(tr.dense[data-device='{DEVICE}'])"
    place = browser.texts(f"{table} thead th").index("p") + 1
    cells = f"{table} tbody td:nth-child({place})"
    browser.value(f'document.querySelector("{table} thead th:nth-child({place}) button").focus()')
    for state in ("ascending", "descending"):
        browser.press("Enter")
        assert browser.value(f'document.querySelector("{table} [aria-sort={state}]").innerText').startswith("p")
        values = browser.texts(cells)
        assert len(values) == 6 and values[-3:] == ["–"] * 3 and "–" not in values[:3]
    assert browser.value("document.querySelectorAll('[aria-sort=descending]').length") == 1
    place = browser.texts(f"{table} thead th").index("median (ms)") + 1
    browser.value(f'document.querySelector("{table} thead th:nth-child({place}) button").click()')
    times = [float(text) for text in browser.texts(f"{table} tbody td:nth-child({place})")]
    assert times == sorted(times)


def test_the_most_changed_sentences_stand_side_by_side(browser, page):
    browser.open(page)
    first = browser.texts(".translations li")[0]
    assert "geht nach Hause" in first and "geht heim" in first
    assert browser.texts(".translations mark") == ["nach Hause", "heim", "liest", "schreibt"]


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_tables_and_not_the_page(browser, page, width):
    browser.open(page, width, 800)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelector('div.wide').scrollWidth") > width
    assert browser.value("getComputedStyle(document.querySelector('svg.wide')).display") == "none"
    browser.hover("svg.narrow .mark .halo")
    assert browser.texts(".tip") and browser.value("document.documentElement.scrollWidth") <= width


def test_everything_is_readable_with_scripts_off(browser, page):
    browser.open(page, scripts=False)
    assert len(browser.texts(".verdict")) == 2 and len(rows(browser)) == 8
    assert browser.texts(".filters") == [] == browser.texts("thead button")
    assert browser.value("document.querySelectorAll('svg.wide .mark title').length") == 7


@pytest.mark.parametrize(("dark", "paper"), [(True, "rgb(21, 26, 34)"), (False, "rgb(255, 255, 255)")])
def test_dark_mode_follows_the_system(browser, page, dark, paper):
    browser.open(page, dark=dark)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == paper


def test_print_has_no_controls_and_light_paper(browser, page):
    browser.open(page, dark=True)
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.texts(".filters") == []
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_names_are_text_and_never_markup(browser, page):
    browser.open(page)
    assert browser.value("document.querySelectorAll('main i').length") == 0
    assert "<i>small</i>" in rows(browser)
