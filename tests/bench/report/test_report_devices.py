"""Reports on several devices: phones beside the host, what emulated ones prove, and what must not be trusted."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.runs import (  # noqa: F401 - the fixtures are used by name
    BEFORE,
    DENSE,
    DEVICE,
    HALF,
    PHONE,
    draw_once,
    drawn_figures,
    on_phone,
    quality,
    rows_of,
    small_runs,
    timed,
    write,
)
from tprune.base.errors import BadInput
from tprune.bench.measure.record import Record
from tprune.bench.report import table
from tprune.bench.report.report import report


def test_a_phone_and_a_host_in_one_report(small, tmp_path):
    records = [on_phone(DENSE, 0, [40, 120]), on_phone(HALF, 0, [10, 30])]
    document = report([small, write(tmp_path / "phone", [], records)], tmp_path / "out")
    found = {(row["name"], row["device"]): row for row in document["rows"]}
    assert found["shs-50", "Made Up 9"]["speedup"] == pytest.approx(4.0)
    assert found["shs-50", DEVICE]["speedup"] == pytest.approx(2.0)
    assert list(document["devices"]) == [DEVICE, "Made Up 9"]
    assert document["devices"]["Made Up 9"] == {
        "device": "phone, arm64-v8a, Android 15",
        "threads": "2",
        "CPUs allowed": "6 7 (pinned)",
        "engine": "ONNX Runtime 1.31.1",
        "measured by": "the runner",
        "load average before a block": "0.50",
        "temperature before a block": "31.5 °C",
        "thermal status before a block": "0",
        "battery": "80 %",
        "screen": "Awake",
    }
    assert [sentence.split(": ")[0] for sentence in document["findings"] if "Fastest within 8 %" in sentence] == [
        "Made Up 9", DEVICE,
    ]  # fmt: skip
    assert [name for name in table.groups(document.rows)] == ["Made Up 9", DEVICE]
    behind = {one["name"]: one for one in document["details"]}
    assert behind["shs-50, Made Up 9"]["identical"] == 2
    assert behind["shs-50, Made Up 9"]["threads_got"] == 3
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"pareto.png", "pareto-2.png"}
    assert any("its BLEU is of the host's tokens" in note for note in document["notes"])


def test_two_phones_of_one_model_are_told_apart(tmp_path):
    second = {**PHONE, "serial": "S2"}
    records = [on_phone(DENSE, 0, [40]), on_phone(HALF, 0, [10]), on_phone(DENSE, 0, [30], device=second)]
    document = report([write(tmp_path / "phone", [], records)], tmp_path / "out")
    assert [row["device"] for row in document["rows"]] == ["Made Up 9 S1", "Made Up 9 S1", "Made Up 9 S2"]


def on_host(of: dict[str, Any], samples: list[float], instruction_set: str | None, **changes) -> Record:
    host = {"kind": "host", "serial": None, "model": DEVICE, "abi": "x86_64", "emulated": False}
    return timed(of, 0, samples, device={**host, "instruction_set": instruction_set}, **changes)


def test_no_speedup_spans_two_instruction_sets(tmp_path):
    """Two virtual machines of one model: on the one without AVX-512 the dense model is slower, and that is no gain."""
    records = [
        on_host(DENSE, [40, 120], "avx2"), on_host(HALF, [20, 60], "avx2"),
        on_host(DENSE, [20, 60], "avx512-vnni"), on_host(HALF, [16, 48], "avx512-vnni"),
    ]  # fmt: skip
    document = report([write(tmp_path / "runs", [], records)], tmp_path / "out")
    told = {(row["name"], row["device"]): (row["instruction_set"], row["speedup"]) for row in document["rows"]}
    assert told == {
        ("dense", f"{DEVICE}, avx2"): ("avx2", 1.0),
        ("shs-50", f"{DEVICE}, avx2"): ("avx2", pytest.approx(2.0)),
        ("dense", f"{DEVICE}, avx512-vnni"): ("avx512-vnni", 1.0),
        ("shs-50", f"{DEVICE}, avx512-vnni"): ("avx512-vnni", pytest.approx(1.25)),
    }
    assert {facts["instruction set"] for facts in document["devices"].values()} == {"avx2", "avx512-vnni"}


@pytest.mark.parametrize("other", ["avx2", None])
def test_a_dense_model_of_another_instruction_set_is_none(tmp_path, other):
    records = [on_host(DENSE, [40, 120], other), on_host(HALF, [10, 30], "avx512-vnni")]
    document = report([write(tmp_path / "runs", [], records)], tmp_path / "out")
    row = next(row for row in document["rows"] if row["name"] == "shs-50")
    assert (row["device"], row["speedup"], row["median_ms"]) == (f"{DEVICE}, avx512-vnni", None, 20.0)
    assert "no dense artefact of the same runtime, precision, device and threads" in " ".join(document["notes"])


def test_one_instruction_set_is_said_once(tmp_path):
    records = [on_host(DENSE, [40, 120], "avx2"), on_host(HALF, [20, 60], "avx2")]
    document = report([write(tmp_path / "runs", [], records)], tmp_path / "out")
    assert [(row["device"], row["instruction_set"]) for row in document["rows"]] == [(DEVICE, "avx2")] * 2
    assert f"device {DEVICE}; instruction set avx2; threads 1" in document.tables[0].caption


def test_bleu_of_what_the_phone_said(small, tmp_path):
    said: dict[str, Any] = {"device": PHONE, "runtime": "onnxruntime", "sentences": 50, "corpus": "5e47"}
    qualities = [
        quality(DENSE, 41.0, artefact="artefact-dense", **said),
        quality(HALF, 36.9, artefact="artefact-shs-50", **said),
    ]
    records = [on_phone(DENSE, 0, [40, 120]), on_phone(HALF, 0, [10, 30])]
    document = report([small, write(tmp_path / "phone", qualities, records)], tmp_path / "out")
    found = {(row["name"], row["device"]): row for row in document["rows"]}
    phone, host = found["shs-50", "Made Up 9"], found["shs-50", DEVICE]
    assert (phone["bleu"], phone["scored"], host["bleu"], host["scored"]) == (36.9, 50, 39.0, 1000)
    assert phone["bleu_loss_percent"] == pytest.approx(10.0)
    assert host["bleu_loss_percent"] == pytest.approx(2.5)
    assert len(document["rows"]) == 4


def test_other_tokens_than_the_hosts_are_red_however_fast(small, tmp_path):
    wrong = on_phone(HALF, 0, [0.1, 0.3], output_ids=[[5, 0], [6, 0]])
    records = [on_phone(DENSE, 0, [40, 120]), wrong]
    document = report([small, write(tmp_path / "phone", [], records)], tmp_path / "out")
    row = next(row for row in document["rows"] if row["verdict"] == "WRONG_TOKENS")
    assert (row["name"], row["device"]) == ("shs-50", "Made Up 9")
    assert row["median_ms"] is row["speedup"] is row["bleu"] is None
    assert document["warnings"][0].startswith(
        "WRONG_TOKENS: shs-50, Made Up 9. Their outputs differ from the reference"
    )
    assert any("1 of 2 sentences have the host's tokens, so its times are blank" in note for note in document["notes"])
    assert '<tr class="bad"' in (tmp_path / "out" / "report.html").read_text()


def test_what_the_phone_was_told_of_the_reference_counts_without_host_records(tmp_path):
    records = [on_phone(DENSE, 0, [40] * 2, identical=2), on_phone(HALF, 0, [9] * 2, identical=0)]
    rows = rows_of(report([write(tmp_path / "phone", [], records)], tmp_path / "out"))
    assert (rows["dense"]["verdict"], rows["shs-50"]["verdict"]) == ("VALID", "WRONG_TOKENS")
    assert rows["shs-50"]["median_ms"] is None


def test_hot_blocks_are_red_and_not_in_the_numbers(tmp_path):
    hot = {"before": BEFORE, "after": {"throttled": "thermal status 2 (MODERATE)"}}
    records = [on_phone(DENSE, 0, [40]), on_phone(DENSE, 1, [90], verdict="THROTTLED", conditions=hot)]
    document = report([write(tmp_path / "phone", [], records)], tmp_path / "out")
    (row,) = document["rows"]
    assert (row["verdict"], row["median_ms"]) == ("THROTTLED", 40.0)
    assert "dense: block 1 is not used: THROTTLED (thermal status 2 (MODERATE))." in document["notes"]
    assert document["warnings"] == ["THROTTLED: dense. Blocks that ran hot are not in the numbers."]


def test_emulated_runs_prove_function_and_have_no_times(small, tmp_path):
    double = {**PHONE, "emulated": True, "model": "Device double"}
    records = [
        on_phone(of, 0, samples, device=double, verdict="EMULATED")
        for of, samples in ((DENSE, [4000, 12000]), (HALF, [1, 3]))
    ]
    document = report([small, write(tmp_path / "double", [], records)], tmp_path / "out")
    assert {row["device"] for row in document["rows"]} == {DEVICE}
    assert [(row["name"], row["identical"], row["sentences"]) for row in document["functional"]] == [
        ("dense", 2, 2), ("shs-50", 2, 2),
    ]  # fmt: skip
    assert all(row["median_ms"] is row["speedup"] is row["bleu"] is None for row in document["functional"])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(document.terminal())
    assert "functional only: emulated devices" in console.export_text()
    assert any("its own tokens were not scored" in note for note in document["notes"])
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["pareto.png"]
    for name in ("report.html", "report.md"):
        text = re.sub(' data-sort="[^"]*"', "", (tmp_path / "out" / name).read_text())
        assert "Functional only: emulated devices" in text
        assert "Device double (arm64-v8a, emulated)" in text
        assert "2 of 2" in text
        assert "4000" not in text and "12000" not in text and "8,000" not in text


def test_nothing_but_emulated_runs(tmp_path):
    record_ = on_phone(DENSE, 0, [4000], device={**PHONE, "emulated": True}, verdict="EMULATED")
    document = report([write(tmp_path / "double", [], [record_])], tmp_path / "out")
    assert (document["rows"], len(document["functional"])) == ([], 1)
    assert "<h2>Table</h2>" not in (tmp_path / "out" / "report.html").read_text()


def test_a_thread_sweep_and_a_cold_run_stand_side_by_side(tmp_path):
    records = []
    for change in ({"threads": 1}, {"threads": 2}, {"mode": "cold"}):
        records += [on_phone(DENSE, 0, [40], **change), on_phone(HALF, 0, [10], **change)]
    document = report([write(tmp_path / "phone", [], records)], tmp_path / "out")
    assert [(row["mode"], row["threads"], row["speedup"]) for row in document["rows"] if row["name"] == "shs-50"] == [
        ("cold", 2, 4.0), ("warm", 1, 4.0), ("warm", 2, 4.0),
    ]  # fmt: skip


def test_a_sustained_run_says_how_much_slower_it_got(tmp_path):
    long = on_phone(DENSE, 0, [40, 60, 44, 66], mode="sustained", output_ids=[[5, 0]] * 2)
    document = report([write(tmp_path / "phone", [], [long])], tmp_path / "out")
    (behind,), findings = document["details"], document["findings"]
    assert behind["endurance"] == pytest.approx(
        {"minutes": 0.0035, "end_s": 0.1, "first_ms": 50.0, "last_ms": 55.0, "ratio": 1.1}
    )
    assert "median 50.00 ms in the first 0.1 s, 55.00 ms in the last (1.10 times)." in findings[-1]


def test_the_first_and_the_last_minute_are_whole_passes(tmp_path):
    """Ten passes of 40 s: two begin in the first minute. One pass alone has no other end."""
    passes = [40_000.0, 40_000, *[50_000] * 6, 60_000, 60_000]
    long = on_phone(DENSE, 0, passes, mode="sustained", output_ids=[[5, 0]])
    short = on_phone(HALF, 0, [10.0], mode="sustained", output_ids=[[5, 0]])
    document = report([write(tmp_path / "phone", [], [long, short])], tmp_path / "out")
    dense, half = document["details"]
    assert dense["endurance"] == pytest.approx(
        {"minutes": 500 / 60, "end_s": 80.0, "first_ms": 40_000, "last_ms": 60_000, "ratio": 1.5}
    )
    assert half["endurance"] is None
    assert document["rows"][1]["speedup"] == pytest.approx(
        5000.0
    )  # of the mean sentence: the passes need not be as many
    assert "| 40000.00 | 60000.00 | 1.50 |" in (tmp_path / "out" / "report.md").read_text()


def test_which_number_of_threads_is_the_fastest(tmp_path):
    records = []
    for threads, dense, half in ((1, 40.0, 10.0), (2, 25.0, 11.0), (4, 32.0, 10.0)):
        for block in (0, 1):
            records += [
                on_phone(DENSE, block, [dense], threads=threads),
                on_phone(HALF, block, [half], threads=threads),
            ]
    qualities = [quality(DENSE, 40.0), quality(HALF, 39.9)]
    document = report([write(tmp_path / "phone", qualities, records)], tmp_path / "out")
    speeds = {row["threads"]: row["speedup"] for row in document["rows"] if row["name"] == "shs-50"}
    assert speeds == pytest.approx({1: 4.0, 2: 25 / 11, 4: 3.2})
    assert (
        "Fastest number of threads (Made Up 9, onnxruntime fp32, greedy): 2 for dense, 1.60 times as fast as 1 (95 % "
        "interval 1.60–1.60); 1 for shs-50."
    ) in document["findings"]
    assert any(
        told.startswith("Fastest within 1 and within 8 %") and "shs-50, 1 thread, BLEU" in told
        for told in document["findings"]
    )
    assert (
        "BLEU difference significant (paired bootstrap against the dense model, p < 0.05): shs-50."
        in document["findings"]
    )
    assert "1.60x (1.60–1.60) of 1 thread" in (tmp_path / "out" / "report.md").read_text()


def test_threads_measured_in_two_calls_are_not_compared(tmp_path):
    records = [on_phone(DENSE, 0, [40.0], threads=1), on_phone(DENSE, 0, [20.0], threads=2, session="s1")]
    document = report([write(tmp_path / "phone", [], records)], tmp_path / "out")
    assert not any("number of threads" in told for told in document["findings"])


def test_the_python_loop_is_named(tmp_path):
    document = report([write(tmp_path / "runs", [], [timed(DENSE, 0, [9], loop="python")])], tmp_path / "out")
    assert document["devices"][DEVICE]["measured by"] == "a loop in Python"
    assert "the engine included, and Python." in document["measured"]["method"]


def test_records_of_an_earlier_schema_are_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"schema": 1, "nonce": "n"}\n')
    with pytest.raises(BadInput, match=r"line 1: schema 1; this version reads 2: measure again into a new file"):
        report([tmp_path], tmp_path / "out")


def test_the_repositorys_own_results_are_still_rows():
    folder = Path(__file__).resolve().parents[3] / "bench" / "results"
    assert json.loads((folder / "multi30k.json").read_text(encoding="utf-8"))["rows"][0]["bleu"] > 30


def test_times_without_bleu_have_no_price(tmp_path):
    files = [timed(DENSE, 0, [10, 20]), timed(HALF, 0, [5, 10])]
    found = report([write(tmp_path / "runs", [], files)], tmp_path / "out")["findings"]
    assert found[0].startswith("There is no BLEU beside the times of shs-50")


def test_a_model_that_says_less_is_not_faster_unseen(tmp_path):
    files = [timed(DENSE, 0, [10, 20], steps=[10, 20]), timed(HALF, 0, [5, 10], steps=[5, 10])]
    found = report([write(tmp_path / "runs", [quality(DENSE, 40.0), quality(HALF, 39.0)], files)], tmp_path / "out")
    speeds = "its speed-up is 2.00x per sentence and 1.00x per token."
    assert f"shs-50 writes 0.50 times the tokens of the dense model: {speeds}" in found["findings"]
