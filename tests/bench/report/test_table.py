"""One table for the terminal, Markdown, HTML and CSV; metrics, colours and the layout of the figure."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from tests.support.runs import DENSE, HALF, model, quality, timed, write
from tprune.base.errors import BadInput
from tprune.bench.measure.stats import Speedup
from tprune.bench.report import figures, metrics, palette
from tprune.bench.report.evidence import Simulation, collect
from tprune.bench.report.findings import recommended, summary
from tprune.bench.report.report import report
from tprune.bench.report.row import Row, labelled
from tprune.bench.report.table import BLANK, Column, Table, column, csv_text, texts

ROWS = [Row("a|b", bleu=1234.5), Row("c")]


def test_a_table_is_the_same_everywhere():
    columns = (
        column("model", "name", number=False, brief=True),
        column("BLEU", "bleu", "{:,.1f}".format),
        column("p", "p_value"),
    )
    table = Table(columns, ROWS, title="T").without_blanks()
    assert table.cells() == [["a|b", "1,234.5"], ["c", BLANK]]
    assert table.markdown() == "| model | BLEU |\n|---|---:|\n| a\\|b | 1,234.5 |\n| c | – |"
    assert table.csv() == "model,BLEU\na|b,1234.5\nc,\n"
    screen = Console(width=40, file=io.StringIO())
    screen.print(table.without_blanks(brief=True).terminal())
    assert "a|b" in screen.file.getvalue() and "BLEU" not in screen.file.getvalue()
    assert '<td class="number" data-sort="1234.5">1,234.5</td>' in table._repr_html_()
    assert [one.sort_key(ROWS[0]) for one in table.columns] == ["", "1234.5"]


def test_csv_holds_objects_as_json():
    rows = [{"name": "a, b", "gain": {"ratio": 2.0}, "none": None}]
    (row,) = csv.DictReader(io.StringIO(csv_text(rows, rows[0])))
    assert (row["name"], json.loads(row["gain"]), row["none"]) == ("a, b", {"ratio": 2.0}, "")


def test_finished_texts_make_a_table():
    table = texts(["name", "number"], [["a", "1"]])
    assert [one.number for one in table.columns] == [False, True] and table.cells() == [["a", "1"]]


def test_metrics_write_scores_and_changes():
    row = Row("a", bleu=39.0, bleu_loss_percent=2.5)
    image = Row("b", accuracy=0.9, accuracy_loss=-0.01)
    assert (row.metric, image.metric) == (metrics.BLEU, metrics.ACCURACY)
    assert (row.metric.value_text(row), row.metric.change_text(row)) == ("39.00", "−2.5 %")
    assert (image.metric.value_text(image), image.metric.change_text(image)) == ("90.00 %", "+1.00 points")
    assert metrics.of([]) is metrics.BLEU


def test_a_criterion_of_ones_own_has_a_colour_and_is_in_the_legend(tmp_path):
    marks = palette.marks(["shs", "entropy", None, "dense"])
    assert list(marks) == ["dense", "shs", "entropy", "unknown"] and len(set(marks.values())) == 4
    own = model("entropy-50", "entropy", 0.5)
    records = [timed(DENSE, 0, [10, 30]), timed(own, 0, [5, 15])]
    report([write(tmp_path / "runs", [quality(DENSE, 40.0), quality(own, 39.0)], records)], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "</svg> entropy</span>" in page and "<td>entropy</td>" in page


def test_labels_of_the_figure_cover_no_mark_and_ticks_are_round():
    speeds = [1 + n / 20 for n in range(9)]
    rows = labelled(
        Row(f"m{n}", "shs", keep=n / 9, speedup=x, speedup_low=x - 0.1, speedup_high=x + 0.1, bleu=40 - n / 50)
        for n, x in enumerate(speeds)
    )
    for one in figures.chart([rows]).drawings:
        left, right, top, bottom = one.frame
        assert all(left <= mark.low <= mark.x <= mark.high <= right and top <= mark.y <= bottom for mark in one.marks)
        placed = [mark for mark in one.marks if mark.label]
        assert placed and not any(
            abs(mark.label_x - other.x) < 6 and abs(mark.label_y - 4 - other.y) < 6
            for mark in placed
            for other in one.marks
        )
        assert 2 <= len(one.x_ticks) <= 8 and all(len(text) <= 5 for _, text in one.x_ticks)


TIMED = Row("half", "shs", device="phone", median_ms=5.0, bleu=39.0, bleu_loss_percent=2.5, bytes=50, precision="fp32",
            runtime="r", mode="warm", speedup=2.0, speedup_low=1.9, speedup_high=2.1)  # fmt: skip
BASE = replace(TIMED, name="dense", criterion="dense", median_ms=10.0, bleu_loss_percent=0.0, bytes=100, speedup=1.0)


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "Take half: it is 50 % smaller and 2.00 times as fast as the dense model on phone (95 % interval "
             "1.90–2.10). Its BLEU is 39.00 (−2.5 % against the dense model)."),
        ({"bytes": 110}, "Take half: it is 10 % larger and 2.00 times"),
        ({"p_value": 0.3}, "Take half: "),
        ({"bleu_loss_percent": 9.0}, "Keep the dense model on phone. Nothing else is faster within 8 % BLEU loss."),
        ({"speedup_low": 0.9}, "Keep the dense model on phone."),
        ({"bleu": None, "bleu_loss_percent": None}, "There is no recommendation on phone. No other model was"),
    ],
)  # fmt: skip
def test_the_verdict_says_which_model_to_take(changes, start):
    (verdict,) = summary(labelled([BASE, replace(TIMED, **changes)])).verdict
    assert verdict.startswith(start)
    assert ("which may be chance" in verdict) == (changes.get("p_value") == 0.3)


def test_the_fastest_within_the_smallest_loss_is_recommended():
    near = replace(TIMED, name="near", bleu_loss_percent=0.5, median_ms=8.0)
    assert recommended([BASE, TIMED, near]) is near
    assert recommended([BASE]) is None and TIMED.gain == Speedup(2.0, 1.9, 2.1)


@pytest.mark.parametrize("changes", [{"chrf": "high"}, {"versions": 3}, {"hypotheses": 7}, {"model": 5}])
def test_damaged_quality_is_named(tmp_path, changes):
    write(tmp_path, [quality(HALF, 39.0, **changes)])
    with pytest.raises(BadInput, match=r"quality .*quality.json' (is damaged|lacks)"):
        collect([tmp_path])


def test_a_simulation_is_parsed_once(tmp_path):
    with pytest.raises(BadInput, match="lacks warnings"):
        Simulation.parse({"summary": [], "findings": [], "inputs": {}, "argv": []}, tmp_path)


def test_columns_without_a_writer_write_the_value():
    assert Column("n", lambda row: row.threads).cell(Row("a", threads=3)) == "3"
