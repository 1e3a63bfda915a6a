"""Which networks make one line of the figure, and that it is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from tprune.bench.report.tradeoff import draw, front, series

SETTINGS = {"penalised": "hoyer", "strength": 0.05, "scheme": "channel"}


def row(method: str, accuracy: float, left: int, net: str = "resnet20", **settings: Any) -> dict[str, Any]:
    return {
        "method": method, "net": net, "settings": settings, "accuracy": accuracy, "images": 10_000,
        "nonzero": left, "dense_weights": 1000, "effective_macs": 10 * left, "dense_macs": 10_000,
    }  # fmt: skip


DENSE = row("dense", 0.9, 1000)


def test_a_line_is_named_by_what_sets_it_apart():
    rows = [
        DENSE,
        row("svd", 0.8, 500, **SETTINGS),
        row("svd", 0.7, 300, **SETTINGS),
        row("svd", 0.6, 300, **{**SETTINGS, "penalised": "l1", "strength": 0.1}),
        row("deephoyer", 0.8, 200, structural=True),
    ]
    found = series(rows)
    assert {name: len(own) for name, own in found.items()} == {
        "svd hoyer": 2,
        "svd l1": 1,
        "deephoyer": 1,
    }
    strong = [row("svd", 0.8, 500, **SETTINGS), row("svd", 0.7, 300, **{**SETTINGS, "strength": 0.1})]
    assert list(series(strong)) == ["svd strength 0.05", "svd strength 0.1"]


def test_switches_and_networks_are_named_too():
    rows = [row("deephoyer", 0.9, 9, structural=True), row("deephoyer", 0.9, 9, "lenet-5", structural=False)]
    assert list(series(rows)) == ["resnet20 deephoyer structural", "lenet-5 deephoyer not structural"]


def test_a_line_joins_what_no_smaller_network_beats():
    assert front([(3, 0.7), (1, 0.5), (2, 0.8), (1, 0.6), (4, 0.9)]) == [(1, 0.6), (2, 0.8), (4, 0.9)]


def test_the_figure_is_a_png():
    assert draw([DENSE, row("svd", 0.85, 400, **SETTINGS)]).startswith(b"\x89PNG")


def test_nothing_compressed_is_refused():
    with pytest.raises(ValueError, match="no row is a compressed network"):
        draw([DENSE])
