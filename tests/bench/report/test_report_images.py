"""Reports of image networks: accuracy of the device's own answers, what is fastest, the figure, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.runs import DEVICE, HALF, timed
from tprune.base.errors import BadInput
from tprune.bench.measure import record
from tprune.bench.report import figures
from tprune.bench.report.report import report

WEIGHT = {"peak_kib": 9000, "base_kib": 4000, "anon_kib": 5000, "file_kib": 4000}


def seen(name: str, criterion: str, answers: list[int], samples_ms: list[float], block: int = 0) -> record.Record:
    """Return the record of four images whose labels are 0 to 3."""
    of = {"id": name, "name": name, "criterion": criterion, "seed": 0, "keep": 0.5, "params": 5, "macs": 7}
    nothing: dict[str, Any] = {series: [] for series in record.OF_A_SEARCH}
    changes = {
        **nothing, "task": "images", "labels": [0, 1, 2, 3], "output_ids": [[answer] for answer in answers],
        "settings": {"warmup": 1, "images": 4, "images_id": "abc", "max_length": None},
    }  # fmt: skip
    return timed(of, block, samples_ms, **changes)


def test_a_report_of_image_records(tmp_path):
    rows = [
        seen("dense", "dense", [0, 1, 2, 3], [2, 2, 2, 2]), seen("cut", "svd", [0, 1, 2, 0], [1, 1, 1, 1]),
        seen("dense", "dense", [0, 1, 2, 3], [2, 2, 2, 2], 1), seen("cut", "svd", [0, 1, 2, 0], [1, 1, 1, 1], 1),
    ]  # fmt: skip
    for row in rows:
        record.append(tmp_path / "records.jsonl", row)
    memory = replace(seen("cut", "svd", [0, 0, 0, 0], [1, 1, 1, 1]), block=-1, samples_ns=[], run_ns=[], output_ids=[],
                     labels=[], memory=WEIGHT)  # fmt: skip
    record.append(tmp_path / "records.jsonl", memory)
    document = report([tmp_path / "records.jsonl"], tmp_path / "out")
    dense, cut = document["rows"]
    assert (dense["accuracy"], dense["accuracy_loss"], dense["speedup"]) == (1.0, 0.0, 1.0)
    assert (cut["accuracy"], cut["accuracy_loss"], cut["scored"]) == (0.75, 0.25, 4)
    assert (dense["p_value"], cut["p_value"]) == (None, 1.0)  # one image apart: a toss of one coin
    assert (cut["median_ms"], cut["speedup"], cut["peak_mib"]) == pytest.approx((1.0, 2.0, 9000 / 1024))
    assert cut["bleu"] is cut["beams"] is None
    assert "No compressed network that was timed stays within 1.2 points of accuracy." in document["findings"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "# Compressed image networks" in text and "| 75.00 % | −25.00 | 1.000 | 2.00x (2.00–2.00) | 1.00 |" in text
    assert (
        "Accuracy difference not significant (McNemar's exact test against the dense network, p ≥ 0.05): cut." in text
    )
    assert "Times are of one image" in text and "sentence" not in text and "BLEU" not in text
    assert not any("BLEU" in note for note in document["notes"])


def test_int8_is_held_against_the_dense_fp32_network(tmp_path):
    for block in (0, 1):
        record.append(tmp_path / "records.jsonl", seen("dense", "dense", [0, 1, 2, 3], [4, 4, 4, 4], block))
        int8 = seen("dense", "dense", [0, 1, 2, 0], [1, 1, 1, 1], block)
        record.append(tmp_path / "records.jsonl", replace(int8, artefact="int8", precision="int8", nonce=f"i{block}"))
    told = report([tmp_path / "records.jsonl"], tmp_path / "out")["findings"]
    gain = "dense, int8 4.00x (95 % interval 4.00–4.00), accuracy −25.00 points (p = 1.000)"
    assert f"Over the dense fp32 model of the same runtime: {gain}." in told


def test_the_fastest_network_within_a_loss_is_named(tmp_path):
    for block in (0, 1):
        for row in (
            seen("dense", "dense", [0, 1, 2, 3], [2, 2, 2, 2], block), seen("cut", "svd", [0, 1, 2, 3], [1] * 4, block)
        ):  # fmt: skip
            record.append(tmp_path / "records.jsonl", row)
    findings = report([tmp_path / "records.jsonl"], tmp_path / "out")["findings"]
    assert findings[0].startswith(
        "Fastest within 0.5 and within 1.2 points of accuracy: cut, accuracy 100.00 % (+0.00 points), speed-up"
    )


def test_a_slower_network_is_not_called_the_fastest(tmp_path):
    for block in (0, 1):
        for row in (
            seen("dense", "dense", [0, 1, 2, 3], [1] * 4, block), seen("cut", "svd", [0, 1, 2, 3], [2] * 4, block)
        ):  # fmt: skip
            record.append(tmp_path / "records.jsonl", row)
    found = report([tmp_path / "records.jsonl"], tmp_path / "out")
    assert found["verdict"] == [
        f"Keep the dense network on {DEVICE}. Nothing else is faster within 1.2 points of accuracy."
    ]
    assert not any("faster" in finding for finding in found["findings"])  # the verdict already names the fastest


def test_translation_and_images_make_two_reports(tmp_path):
    record.append(tmp_path / "sees.jsonl", seen("dense", "dense", [0, 1, 2, 3], [1] * 4))
    record.append(tmp_path / "speaks.jsonl", timed(HALF, 0, [1, 2]))
    with pytest.raises(
        BadInput, match="'dense' is an image network, 'shs-50' a translation model: make a report of each"
    ):
        report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_are_drawn_by_accuracy_and_the_page_names_their_images(tmp_path):
    for block in (0, 1):
        for name, criterion, answers, ms in (("dense", "dense", [0, 1, 2, 3], 2), ("cut", "svd", [0, 1, 2, 0], 1)):
            one = seen(name, criterion, answers, [ms] * 4, block)
            record.append(tmp_path / "records.jsonl", replace(one, settings={**one.settings, "data": "faces/test"}))
    document = report([tmp_path / "records.jsonl"], tmp_path / "out")
    assert document["measured"]["data"] == "faces/test"
    assert (tmp_path / "out" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Accuracy against speed-up</h2>" in page and "BLEU" not in page
    assert "![Accuracy against speed-up](pareto.png)" in (tmp_path / "out" / "report.md").read_text()
    assert [figures.position(row) for row in figures.front(document.rows)] == [(1.0, 100.0), (2.0, 75.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "1 labels of 4 images"),
        ({"steps": [1, 1, 1, 1]}, "series of different lengths"),
        ({"run_ns": [1]}, "series of different lengths"),
        ({"task": "sounds"}, "task 'sounds'; legal are translation, images"),
    ],
)
def test_records_that_contradict_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(seen("dense", "dense", [0, 1, 2, 3], [1, 1, 1, 1]), **changes)
