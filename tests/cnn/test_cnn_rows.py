"""What the rows are called, and the table that a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tprune.cnn.rows import names, table


@pytest.mark.parametrize(
    ("folders", "called"),
    [
        (["runs/dense", "small"], ["dense", "small"]),
        (["svd/cut-0.1", "penni/cut-0.1"], ["svd/cut-0.1", "penni/cut-0.1"]),
        (["dense", "a/b/cut", "a/c/cut"], ["dense", "b/cut", "c/cut"]),
        (["dense", "dense"], ["dense", "dense"]),
        (["."], [Path.cwd().name]),
    ],
)
def test_names_are_as_long_as_they_must_be(folders, called):
    assert names([Path(folder) for folder in folders]) == called


def shown(*rows: dict[str, Any]) -> list[str]:
    screen = Console(width=120)
    with screen.capture() as captured:
        screen.print(table(rows))
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


def row(**figures: Any) -> dict[str, Any]:
    return {
        "name": "small", "accuracy": 0.8664, "p_value": 0.0123, "nonzero": 62_472, "weights": 98_304,
        "dense_weights": 270_896, "effective_macs": 7_460_000, "macs": 9_500_000, "dense_macs": 40_810_000,
        "median_ms": None, "dense_ms": None, "peak_mib": None,
    } | figures  # fmt: skip


def test_the_table_holds_shares_and_ratios_to_the_dense_network():
    heading, _, line = shown(row())
    assert heading == "network accuracy p weights left stored MACs left, M computed"
    assert line == "small 86.64 % 0.012 62,472 23.06 % 98,304 7.46 5.47x 9.50"


def test_times_and_memory_stand_in_it_once_measured():
    _, _, timed, untimed = shown(row(median_ms=0.25, dense_ms=0.5, peak_mib=31.25), row(dense_ms=0.5))
    assert timed.endswith("7.46 5.47x 9.50 0.250 2.00x 31.2")
    assert untimed.endswith("7.46 5.47x 9.50 - -")


def test_a_network_of_millions_takes_one_line():
    large = {"dense_weights": 11_164_352, "dense_macs": 555_422_720, "dense_ms": 17.51, "peak_mib": 157.1}
    dense = {"nonzero": 11_164_352, "weights": 11_164_352, "effective_macs": 555_422_720, "macs": 555_422_720}
    lines = shown(
        row(name="dense-longer", **large, **dense, median_ms=17.51),
        row(name="penni4-taught-plain", **large, nonzero=256_637, weights=6_483_411, median_ms=16.13)
        | {"effective_macs": 35_161_232, "macs": 342_450_000},
    )
    assert len(lines) == 4, lines
    assert lines[2].startswith("dense-longer 86.64 % 0.012 11.16 M 100.00 % 11.16 M 555.42 1.00x 555.42 17.510 1.00x")
    assert lines[3] == "penni4-taught-plain 86.64 % 0.012 256,637 2.30 % 6.48 M 35.16 15.80x 342.45 16.130 1.09x 157.1"
