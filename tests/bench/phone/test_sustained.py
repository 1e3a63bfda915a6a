"""Sustained benchmarks: minutes from the command line to the runner and into the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import tprune, write_data
from tests.support.native import Runner, build, sentences
from tprune.bench.measure import host, record
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.timed import MINUTE, of_session


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(build("host", "tprune-ort"), tmp_path)


def test_the_runner_ends_with_a_whole_pass(runner, tiny_artefact):
    given = sentences(112, 3)
    runner.translate(tiny_artefact("onnxruntime"), given, "--min-ms", 3_600_001).check_failed(2, "--min-ms")
    report = runner.translate(tiny_artefact("onnxruntime"), given, "--passes", 2, "--min-ms", 30).report
    samples = report["samples_ns"]
    assert len(samples) % 3 == 0 and sum(samples) >= 30e6
    assert sum(samples[:-3]) < 30e6  # and not one pass more
    assert len(runner.translate(tiny_artefact("onnxruntime"), given, "--passes", 2).report["samples_ns"]) == 6


def test_minutes_on_the_command_line(runner, tiny_artefact, tmp_path):
    folder, out = tiny_artefact("onnxruntime"), tmp_path / "records.jsonl"
    flags = ("--data", write_data(tmp_path / "data"), "--out", out, "--warmup", 1, "--limit", 3)
    done = tprune("bench", folder, *flags, "--mode", "sustained", "--minutes", "0.001", "--threads", "1")
    assert done.code == 0, done.err
    timed, _ = record.read(out)
    assert (timed.mode, timed.settings["min_ms"], timed.blocks) == ("sustained", 60, 1)
    assert sum(timed.samples_ns) >= 60e6
    reported = tprune("report", out, "--out", tmp_path / "report", "--json").json
    (details,) = reported["details"]
    assert details["endurance"]["minutes"] == pytest.approx(sum(timed.samples_ns) / MINUTE)
    assert any("minutes without a pause: median" in told for told in reported["findings"])


def test_the_python_loop_lasts_as_well(tiny_artefact, tmp_path):
    settings = Settings(mode="sustained", minutes=0.001, warmup=0)
    given = sentences(112, 3)
    programs = {"onnxruntime": host.LOOP}
    done = host.run(
        [tiny_artefact("onnxruntime")], given, settings=settings, out=tmp_path / "r.jsonl", programs=programs
    )
    (one,) = of_session(done)
    assert len(done[0].samples_ns) % 3 == 0 and sum(done[0].samples_ns) >= 60e6
    assert one.details()["endurance"]["ratio"] > 0
