"""The inner join against loops over chunks, filters and positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.support.accel_layers import SMALL_SPARTEN, conv, tasks
from tprune.base.errors import BadInput
from tprune.bench.accel import sparten
from tprune.bench.accel.sparten import SPARTEN, SPARTEN_PLAIN
from tprune.bench.accel.task import prepare

PLAIN = SMALL_SPARTEN.having("test", balanced=0)


def vectors(task):
    """Return by group the window of each position and the filters, as lists of 0 and 1, channels fastest."""
    shape = task.shape
    per_group = shape.outputs // shape.groups
    for group in range(shape.groups):
        windows, filters = [], []
        for row in range(shape.out_size[0]):
            for column in range(shape.out_size[1]):
                window = []
                for r in range(shape.kernel[0]):
                    for s in range(shape.kernel[1]):
                        y = row * shape.strides[0] - shape.paddings[0] + r
                        x = column * shape.strides[1] - shape.paddings[1] + s
                        inside = 0 <= y < shape.size[0] and 0 <= x < shape.size[1]
                        for c in range(shape.depth):
                            window.append(int(inside and task.activations[group * shape.depth + c, y, x]))
                windows.append(window)
        for k in range(group * per_group, (group + 1) * per_group):
            filters.append([int(v) for v in task.weights[k].transpose(1, 2, 0).ravel()])
        yield windows, filters


def brute(task, hardware):
    """Return cycles and matches: items in turn to the clusters, each chunk as long as its slowest unit."""
    units, chunk, clusters = (hardware.count(name) for name in ("units", "chunk", "clusters"))
    items, matches = [], 0
    for windows, filters in vectors(task):
        paired = hardware.count("balanced") and len(filters) > units
        for window in windows:
            times = []
            for start in range(0, len(window), chunk):
                part = window[start : start + chunk]
                found = [sum(a & b for a, b in zip(part, f[start : start + chunk], strict=True)) for f in filters]
                matches += sum(found)
                if paired:
                    order = sorted(range(len(filters)), key=lambda k: sum(filters[k][start : start + chunk]))
                    if len(order) % 2:
                        found, order = [*found, 0], [len(found), *order]
                    found = [found[order[i]] + found[order[-1 - i]] for i in range(len(order) // 2)]
                times.append([max(1, *found[s : s + units]) for s in range(0, len(found), units)])
            items += [(number, sum(column)) for number, column in enumerate(zip(*times, strict=True))]
    items = [time for _, time in sorted(items, key=lambda item: item[0])]  # set after set
    busy = [sum(items[cluster::clusters]) for cluster in range(clusters)]
    return max(busy), matches


@given(tasks())
@settings(max_examples=80, deadline=None)
def test_every_chunk_is_joined(task):
    for hardware in (SMALL_SPARTEN, PLAIN):
        cycles, matches = brute(task, hardware)
        counts = sparten.count(task, hardware)
        assert (counts.cycles, counts.useful) == (cycles, matches)
        assert counts.cycles * hardware.multipliers >= matches


def test_balancing_helps_where_filters_differ_in_density():
    rng = np.random.default_rng(1)
    layer = conv(inputs=128, outputs=64, size=8, kernel=1, activations=0.6)
    task = prepare(layer, 1.0, exact=True)
    uneven = rng.random((64, 128, 1, 1)) < np.linspace(0.02, 0.9, 64)[:, None, None, None]
    task = type(task)(layer, uneven, task.activations, None, 1.0, True)
    balanced, plain = (sparten.count(task, one) for one in (SPARTEN, SPARTEN_PLAIN))
    assert balanced.useful == plain.useful
    assert balanced.cycles < 0.85 * plain.cycles


def test_a_dense_layer_costs_what_a_dense_design_costs():
    layer = conv(inputs=128, outputs=64, size=8, kernel=1, weights=1.0, activations=1.0)
    counts = sparten.count(prepare(layer, 1.0, exact=True), SPARTEN)
    assert counts.cycles == layer.shape.macs / SPARTEN.multipliers
    assert counts.utilisation == 1


def test_a_local_buffer_too_small_for_a_chunk_is_refused():
    task = prepare(conv("a"), 1.0, exact=False)
    with pytest.raises(BadInput, match=r"layer 'a': local_bytes = 64 .* \(one chunk of 128 values\).* at least 128"):
        sparten.count(task, SPARTEN.having("test", local_bytes=64))
