"""Medians and peaks by model, and records that do not compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import runs
from tprune.base.errors import BadInput
from tprune.bench.measure.timings import Timing, by_model


def written(folder: Path, *records) -> list[Path]:
    return [runs.write(folder, records=records) / "records.jsonl"]


def test_a_model_has_the_median_of_all_its_blocks_and_the_peak_of_its_memory_pass(tmp_path: Path):
    records = (
        runs.timed(runs.DENSE, 0, [4.0, 8.0]),
        runs.timed(runs.DENSE, 1, [5.0, 9.0, 6.0]),
        runs.weighed(runs.DENSE, 4096),
        runs.timed(runs.HALF, 0, [3.0]),
    )
    assert by_model(written(tmp_path, *records)) == {"id-dense": Timing(6.0, 4.0), "id-shs-50": Timing(3.0, None)}


def test_a_later_record_replaces_an_earlier_one_and_what_is_not_valid_counts_not(tmp_path: Path):
    records = (
        runs.timed(runs.DENSE, 0, [4.0]),
        runs.timed(runs.DENSE, 0, [7.0]),
        runs.failed(runs.HALF, 0, "killed"),
    )
    assert by_model(written(tmp_path, *records)) == {"id-dense": Timing(7.0, None)}


def test_without_records_nothing_is_timed():
    assert by_model(()) == {}


def test_int8_is_not_what_the_network_itself_answers(tmp_path: Path):
    with pytest.raises(BadInput, match=r"the records hold int8 times; accuracy in int8 is not the network's own"):
        by_model(written(tmp_path, runs.timed(runs.DENSE, 0, [4.0], precision="int8")))


@pytest.mark.parametrize("change", [{"threads": 2}, {"runtime": "executorch"}])
def test_records_that_do_not_compare_are_refused(tmp_path: Path, change):
    records = (runs.timed(runs.DENSE, 0, [4.0]), runs.timed(runs.HALF, 0, [4.0], **change))
    with pytest.raises(BadInput, match="records of .* and of .* do not compare; give records of one"):
        by_model(written(tmp_path, *records))
