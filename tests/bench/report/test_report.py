"""Reports on made-up runs: the joins, the numbers by hand, what is said of what is missing, and every format."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.support.runs import (  # noqa: F401 - the fixtures are used by name
    DENSE,
    DEVICE,
    HALF,
    draw_once,
    drawn_figures,
    failed,
    model,
    quality,
    rows_of,
    small_runs,
    timed,
    weighed,
    write,
)
from tprune.base.errors import BadInput, Caution
from tprune.bench.report import figures, results, table
from tprune.bench.report.report import report
from tprune.bench.report.row import FIELDS as ROW_FIELDS
from tprune.bench.report.row import Functional, Row

FIELDS = (
    "name criterion seed keep beams runtime precision device instruction_set threads bleu chrf signature "
    "bleu_loss_percent accuracy accuracy_loss p_value params macs bytes median_ms p90_ms speedup speedup_low "
    "speedup_high peak_mib mode verdict scored command"
).split()


def test_a_row_by_hand(small, tmp_path):
    rows = rows_of(report([small], tmp_path / "out"))
    row = rows["shs-50"]
    assert list(row) == FIELDS
    assert (row["median_ms"], row["p90_ms"]) == pytest.approx((10.0, 15.0))
    assert (row["speedup"], row["speedup_low"], row["speedup_high"]) == pytest.approx((2.0, 2.0, 2.0))
    assert row["bleu_loss_percent"] == pytest.approx(2.5)
    assert row["p_value"] == 0.012
    assert row["peak_mib"] == 100.0
    assert row["bytes"] == 4 * HALF["params"]
    assert (row["runtime"], row["device"], row["threads"], row["beams"]) == ("onnxruntime", DEVICE, 1, 1)
    assert row["command"].startswith("tprune bench artefacts/dense")
    assert rows["dense"]["speedup"] == 1.0
    assert rows["dense"]["bleu_loss_percent"] == 0.0
    assert rows["dense"]["p_value"] is None


def test_every_format_is_written(small, tmp_path):
    document = report([small], tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "pareto.png", "report.csv", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    assert json.loads((out / "report.json").read_text()) == document.document
    with (out / "report.csv").open() as file:
        parsed = list(csv.DictReader(file))
    assert [row["name"] for row in parsed] == ["dense", "shs-50"]
    assert float(parsed[1]["speedup"]) == 2.0
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "report.md").read_text()
    assert "| shs-50 | shs | 50 % | 1 | 39.00 | −2.5 % | 0.012 |" in text
    assert "All rows, unless the row says otherwise: runtime onnxruntime; precision fp32" in text


def test_the_page_needs_nothing_from_outside(small, tmp_path):
    report([small], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.findall(r"https?://|<link|@import|url\(| src=", page)
    for text in ("2.00x (2.00–2.00)", "onnx runtime 1.31.1", "the runner", "tprune evaluate dense", "TPrune paper"):
        assert text.lower() in page.lower()


def test_names_are_escaped(tmp_path):
    evil = model("<b>a&b", "shs", 0.5)
    report([write(tmp_path / "runs", [quality(evil, 39.0)])], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>a" not in page
    assert "&lt;b&gt;a&amp;b" in page


def test_findings(small, tmp_path):
    found = report([small], tmp_path / "out")["findings"]
    assert found[0] == "No pruned model that was timed stays within 1 % BLEU loss."
    assert found[1] == (
        "Fastest within 8 % BLEU loss: shs-50, BLEU 39.00 (−2.5 %), speed-up 2.00x (95 % interval 2.00–2.00); "
        "onnxruntime fp32, 1 thread, batch 1, greedy."
    )
    assert found[2] == "BLEU difference significant (paired bootstrap against the dense model, p < 0.05): shs-50."


def test_a_difference_that_may_be_chance_is_called_so(tmp_path):
    same = quality(HALF, 39.9, baseline={"name": "dense", "bleu": 40.0, "p_value": 0.05})
    found = report([write(tmp_path / "runs", [quality(DENSE, 40.0), same])], tmp_path / "out")["findings"]
    assert any(re.match(r"BLEU difference not significant .* p ≥ 0\.05\): shs-50\.", sentence) for sentence in found)


def test_criteria_are_ranked_over_seeds(tmp_path):
    qualities = [quality(DENSE, 40.0)]
    for seed, bleu in ((1, 38.0), (2, 39.0)):
        qualities.append(quality(model(f"shs-{seed}", "shs", 0.5, seed), bleu))
    qualities.append(quality(model("random-1", "random", 0.5), 30.0))
    found = report([write(tmp_path / "runs", qualities)], tmp_path / "out")["findings"]
    assert "BLEU at 50 % kept (fp32, greedy): shs 38.50 (mean of 2), random 30.00." in found


def test_nothing_timed_means_no_word_of_speed_up(tmp_path):
    document = report([write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 39.0)])], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.png"))
    for name in ("report.html", "report.md"):
        assert "speed-up" not in (tmp_path / "out" / name).read_text().lower()
    assert "shs-50: it was not timed, so its times are blank." in document["notes"]


@pytest.mark.parametrize(
    ("qualities", "records", "note", "blank"),
    [
        ([quality(DENSE, 40.0)], [timed(HALF, 0, [5])], "no quality was measured with 1 beam", "bleu"),
        ([quality(HALF, 39.0)], [timed(HALF, 0, [5])], "no dense artefact of the same runtime", "speedup"),
        ([quality(HALF, 39.0)], [timed(HALF, 0, [5])], "there is no dense fp32 quality", "bleu_loss_percent"),
        ([quality(HALF, 39.0)], [failed(HALF, 0, "died")], r"block 0 is not used: INTERRUPTED \(", "median_ms"),
        ([quality(HALF, 39.0)], [failed(HALF, 0, "x")], "no block was measured to its end", "median_ms"),
        ([], [timed(DENSE, 0, [9]), timed(HALF, 1, [5])], "no block in common", "speedup"),
        ([quality(DENSE, 40.0, beams=4)], [timed(HALF, 0, [5])], "no quality was measured", "bleu"),
        ([], [timed(DENSE, 0, [9], threads=2), timed(HALF, 0, [5])], "no dense artefact of the same", "speedup"),
        ([quality(HALF, 39.0, baseline=None)], [timed(HALF, 0, [5])], "measured without a baseline", "p_value"),
        ([quality(HALF, 39.0)], [timed(HALF, 0, [5], precision="int8")], "no quality was measured", "bleu"),
    ],
)  # fmt: skip
def test_what_is_missing_is_blank_and_said(tmp_path, qualities, records, note, blank):
    document = report([write(tmp_path / "runs", qualities, records)], tmp_path / "out")
    assert any(row["name"] == "shs-50" and row[blank] is None for row in document["rows"])
    assert re.search(rf"shs-50.*: .*{note}", "\n".join(document["notes"]))


def test_blocks_of_different_sessions_are_mentioned(tmp_path):
    records = [timed(DENSE, 0, [9]), timed(HALF, 0, [5], session="s1")]
    document = report([write(tmp_path / "runs", [], records)], tmp_path / "out")
    assert "shs-50: 1 of 1 blocks ran in another session than the dense artefact's." in document["notes"]


def test_int8_is_compared_with_int8_and_its_own_quality(tmp_path):
    eight: dict[str, Any] = {"precision": "int8"}
    records = [
        timed(DENSE, 0, [12]),
        timed(DENSE, 0, [9], artefact="d8", **eight),
        timed(HALF, 0, [4], artefact="h8", **eight),
    ]
    qualities = [quality(DENSE, 40.0), quality(HALF, 39.0), quality(HALF, 38.0, runtime="onnxruntime", **eight)]
    document = report([write(tmp_path / "runs", qualities, records)], tmp_path / "out")
    row = next(row for row in document["rows"] if row["name"] == "shs-50" and row["precision"] == "int8")
    assert (row["bleu"], row["speedup"]) == (38.0, pytest.approx(9 / 4))
    assert row["bleu_loss_percent"] == pytest.approx(5.0)
    told = next(sentence for sentence in document["findings"] if sentence.startswith("Over the dense fp32 model"))
    assert "shs-50, int8 3.00x" in told and "BLEU −5.0 %" in told and "1.33x" in told


def test_a_copy_of_a_records_file_counts_once(small, tmp_path):
    (small / "copy").mkdir()
    (small / "copy" / "records.jsonl").write_bytes((small / "records.jsonl").read_bytes())
    assert len(report([small], tmp_path / "out")["rows"]) == 2


def test_two_runs_of_one_artefact_have_the_same_names_wherever_they_are_told(tmp_path):
    busy = {"before": {"loadavg": [2.0, 2, 2]}, "after": {"cpu_share": 0.5}}
    for number, changes in enumerate(({}, {"conditions": busy})):
        records = [timed(DENSE, 0, [20.0]), timed(HALF, 0, [10.0], nonce=str(number), **changes)]
        write(tmp_path / "runs" / str(number), [], records)
    document = report([tmp_path / "runs"], tmp_path / "out")
    assert [cells[0] for cells in document.tables[0].cells()] == ["dense #1", "dense #2", "shs-50 #1", "shs-50 #2"]
    assert "in one block shs-50 #2 had a CPU for only 50 % of the time" in " ".join(document["findings"])


def test_records_are_known_in_a_folder_by_what_they_say(small, tmp_path):
    (small / "records.jsonl").rename(small / "phone.jsonl")
    (small / "sentences.jsonl").write_text('{"en": "a man", "de": "ein Mann"}\n')
    (small / "empty.jsonl").write_text("")
    assert all(row["median_ms"] for row in report([small], tmp_path / "out")["rows"])


def test_a_busy_machine_and_a_slow_loop_are_mentioned(tmp_path):
    conditions = {"before": {"loadavg": [2.0, 2, 2]}, "after": {"cpu_share": 0.5}}
    slow = timed(HALF, 0, [10.0], conditions=conditions, run_ns=[8_000_000])
    document = report([write(tmp_path / "runs", [], [timed(DENSE, 0, [20.0]), slow])], tmp_path / "out")
    said = " ".join(document["findings"])
    assert "Up to 20.0 % of a sentence's time passed outside the engine (shs-50)." in said
    assert "shs-50 had a CPU for only 50 % of the time" in said
    assert "Times are too long, and speed-ups are disturbed too" in said


def test_splits_are_never_mixed(small, tmp_path):
    val = small / "val"
    val.mkdir()
    (val / "quality-val.json").write_text(json.dumps(quality(HALF, 41.0, split="val", corpus="other")))
    left_out = "Quality of other splits than test_2016_flickr was left out (1 file)."
    with pytest.warns(Caution, match=re.escape(left_out)):
        document = report([small], tmp_path / "out")
    assert rows_of(document)["shs-50"]["bleu"] == 39.0
    assert left_out in document["notes"]
    assert rows_of(report([small], tmp_path / "val", split="val"))["shs-50"]["bleu"] == 41.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "quality.json",
            "{",
            "cannot be read as JSON; a report reads quality.json, records.jsonl, folders",
        ),
        ("encoder.onnx", "\xc5", "cannot be read as JSON; a report reads"),
        ("quality.json", '{"kind": "quality", "model": {}}', "lacks runtime, precision"),
        ("quality.json", '{"kind": "plan"}', "has kind 'plan'; a report reads quality.json"),
        ("quality.json", "[]", "is no JSON object"),
        ("records.jsonl", "[]\n", "line 1: not a JSON object; remove that line"),
    ],
)
def test_files_that_are_no_results(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=message):
        report([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_records_cut_in_the_first_line_are_named(small, tmp_path):
    (tmp_path / "cut.jsonl").write_text((small / "records.jsonl").read_text()[:300])
    with pytest.warns(Caution, match=r"cut\.jsonl' has no complete record and was left out: give `tprune bench` again"):
        document = report([small, tmp_path / "cut.jsonl"], tmp_path / "out")
    assert len(document["rows"]) == 2 and "no complete record" in document["notes"][-1]


def test_calls_that_are_wrong(small, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="name at least one"):
        report([], tmp_path / "out")
    with pytest.raises(BadInput, match=r"absent' does not exist"):
        report([tmp_path / "absent"], tmp_path / "out")
    with pytest.raises(BadInput, match=r"no quality document.*; `tprune evaluate --out`, `bench`, .* write them"):
        report([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(BadInput, match="split 'train': there is quality of test_2016_flickr only"):
        report([small], tmp_path / "out", split="train")
    with pytest.raises(BadInput, match="not empty"):
        report([small], small)


def test_front_keeps_what_nothing_beats():
    points = [(1.0, 40.0), (1.5, 39.0), (1.4, 38.0), (2.0, 37.0), (1.5, 38.5)]
    rows = [*(Row("a", speedup=x, bleu=y) for x, y in points), Row("b", bleu=50.0)]
    assert [(row.speedup, row.bleu) for row in figures.front(rows)] == [(1.0, 40.0), (1.5, 39.0), (2.0, 37.0)]


def test_a_figure_needs_points(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no row has both"):
        figures.pareto([Row("a", bleu=1.0)])


def test_the_terminal_table_shows_what_differs(small, tmp_path):
    found = report([small], tmp_path / "out")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(found.terminal())
    assert "2.00x (2.00–2.00)" in console.export_text()
    headings = [column.heading for column in found.tables[0].columns]
    assert "speed-up (95\u00a0%)" in headings
    assert "signature" not in headings
    assert table.context(found.rows)["threads"] == "1"


def test_a_row_that_differs_says_so_in_its_name(small, tmp_path):
    four = quality(DENSE, 40.4, beams=4)
    document = report([write(small, [quality(DENSE, 40.0), quality(HALF, 39.0), four])], tmp_path / "out")
    assert [cells[0] for cells in document.tables[0].cells()] == ["dense", "shs-50", "dense (torch, 4 beams)"]
    assert "dense, 4 beams: it was not timed, so its times are blank." in document["notes"]


def test_a_report_shows_itself(small, tmp_path):
    found = report([write(small, [quality(model("<b>", "shs", 0.5), 39.0)])], tmp_path / "out")
    assert repr(found) == f"Report({str(tmp_path / 'out' / 'report.html')!r}, 3 rows)"
    assert (found.folder, len(found.rows), found["rows"]) == (tmp_path / "out", 3, found.document["rows"])
    shown = found._repr_html_()
    assert shown.count("<table") == 1 and "&lt;b&gt;" in shown and "<b>" not in shown


def test_results_files(tmp_path):
    rows = [{"name": "dense", "bleu": 40.0}]
    results.write(tmp_path / "marian.json", rows, inputs={"corpus": "c0ffee"})
    document = json.loads((tmp_path / "marian.json").read_text())
    assert (document["kind"], document["rows"], document["inputs"]) == ("results", rows, {"corpus": "c0ffee"})


def test_row_fields_are_the_contract():
    assert list(ROW_FIELDS) == FIELDS


def realistic(folder: Path) -> Path:
    """Write runs of realistic size (13 models, 3 blocks, 200 sentences): to look at a report, not for its numbers."""
    random = np.random.default_rng(3)
    lengths = random.gamma(9, 1.5, 200) + 4
    qualities, records = [quality(DENSE, 39.74), quality(DENSE, 40.08, beams=4)], []
    models = [(DENSE, 1.0, 0.0)]
    for criterion, worse in (("shs", 0.0), ("group-lasso", 0.35), ("magnitude", 0.5), ("random", 2.4)):
        for keep in (0.7, 0.5, 0.3):
            of = model(f"{criterion}-{100 * keep:.0f}-s1", criterion, keep)
            loss = 7 * (1 - keep) ** 2 + worse * (1.5 - keep) - 0.35
            chance = {"name": "dense", "bleu": 39.74, "p_value": round(float(min(0.6, 0.4 / (1 + 30 * loss**2))), 4)}
            qualities.append(quality(of, round(39.74 - loss, 2), baseline=chance))
            models.append((of, 1 / (0.32 + 0.68 * keep + random.normal(0, 0.01)), loss))
    for block in range(3):
        for of, gain, _ in models:
            noise = random.lognormal(0, 0.06, 200) * (1 + 0.02 * random.normal())
            records.append(timed(of, block, lengths * 1.4 / gain * noise))
    records += [weighed(of, int(118_000 + of["params"] / 90)) for of, _, _ in models[:-1]]
    records.append(failed(models[-1][0], -1, "the runner was killed by SIGKILL"))
    return write(folder, qualities, records)


def test_a_report_of_realistic_size(tmp_path, monkeypatch):
    monkeypatch.undo()
    document = report([realistic(tmp_path / "runs")], tmp_path / "out")
    assert len(document["rows"]) == 14
    assert (tmp_path / "out" / "report.html").stat().st_size < 300_000
    assert document["verdict"][0].startswith("Take shs-70-s1: it is 23 % smaller and 1.2")


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(2249 / 1e6, 2, "0.0022"), (0.0998, 2, "0.10"), (0.43, 2, "0.43"), (1234.5, 1, "1,234.5"), (0.0, 2, "0.00")],
)
def test_small_figures_keep_two_digits_that_count(value, digits, shown):
    assert table.decimals(value, digits) == shown


def test_an_int8_dense_row_is_tested_too_and_no_sentence_contradicts_another(tmp_path):
    records = [
        timed(DENSE, 0, [10]),
        timed(HALF, 0, [9]),
        timed(DENSE, 0, [16], precision="int8", artefact="d8"),
    ]
    chance = {"name": "dense", "bleu": 40.0, "p_value": 0.0959}
    eight = quality(DENSE, 39.9, runtime="onnxruntime", precision="int8", baseline=chance)
    found = report(
        [write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 20.0), eight], records)], tmp_path / "out"
    )
    assert found["verdict"] == [f"Keep the dense model on {DEVICE}. Nothing else is faster within 8 % BLEU loss."]
    assert found["findings"] == [
        "No pruned model that was timed stays within 8 % BLEU loss.",
        "Over the dense fp32 model of the same runtime: dense, int8 0.62x (95 % interval 0.62–0.62), BLEU −0.3 % "
        "(p = 0.096).",
        "BLEU difference significant (paired bootstrap against the dense model, p < 0.05): shs-50.",
        "BLEU difference not significant (paired bootstrap against the dense model, p ≥ 0.05): dense, int8.",
    ]


def test_the_page_claims_no_mark_and_no_front_that_it_does_not_draw(tmp_path):
    records = [timed(DENSE, 0, [10]), timed(HALF, 0, [20]), timed(DENSE, 0, [16], precision="int8", artefact="d8")]
    eight = quality(DENSE, 39.9, runtime="onnxruntime", precision="int8")
    report([write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 20.0), eight], records)], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Each mark is a row of the tables below that has both a score and a speed-up. Bars:" in page
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Not drawn: dense, int8, since no other row of the same device, runtime, precision" in text


def test_the_caption_explains_the_speed_up_and_is_as_wide_as_the_terminal(small, tmp_path):
    found = report([small], tmp_path / "out")
    assert found.tables[0].caption.endswith(
        "The speed-up is a ratio of summed times over the same sentences; the median is the time of one sentence, so a "
        "ratio of medians may differ."
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found.terminal())
    assert "\nAll rows, unless the row says otherwise: runtime onnxruntime; precision fp32; " in console.export_text()


def test_an_exported_int8_artefact_is_named_as_such(tmp_path):
    rows = [
        Row("dense", "dense", precision="int8", bytes=700_000),
        Row("dense", functional=Functional(1, 5, 5, "arm64")),
    ]
    first, second = table.tables(rows)
    assert first.title == table.EMULATED and second.cells()[0][0] == "dense (int8)"
