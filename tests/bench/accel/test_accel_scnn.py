"""The Cartesian product against loops over every pair of non-zeros."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from tests.support.accel_layers import SMALL_SCNN, conv, tasks
from tprune.base.errors import BadInput
from tprune.bench.accel import scnn
from tprune.bench.accel.layer import Shape
from tprune.bench.accel.scnn import SCNN
from tprune.bench.accel.task import prepare

QUEUED = SMALL_SCNN.having("test", queued=1)


def chunks(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def inputs_of(task, tiling, channel, pe, phase):
    """Return (y, x) of a PE's non-zero activations of one channel and stride phase."""
    shape = task.shape
    return [
        (y, x)
        for y in range(pe[0] * tiling.inside[0], min((pe[0] + 1) * tiling.inside[0], shape.size[0]))
        for x in range(pe[1] * tiling.inside[1], min((pe[1] + 1) * tiling.inside[1], shape.size[1]))
        if task.activations[channel, y, x]
        and ((y + shape.paddings[0]) % shape.strides[0], (x + shape.paddings[1]) % shape.strides[1]) == phase
    ]


def weights_of(task, channel, kept, phase):
    """Return (k, r, s) of the non-zero weights of one channel, some output channels and one stride phase."""
    shape = task.shape
    return [
        (k, r, s)
        for r in range(phase[0], shape.kernel[0], shape.strides[0])
        for s in range(phase[1], shape.kernel[1], shape.strides[1])
        for k in kept
        if task.weights[k, channel % shape.depth, r, s]
    ]


def hits_of(task, hardware, some, others):
    """Return how many products each bank gets in one step; the others fall outside the plane."""
    shape, hits = task.shape, [0] * hardware.count("banks")
    for y, x in some:
        for k, r, s in others:
            down, across = y + shape.paddings[0] - r, x + shape.paddings[1] - s
            assert down % shape.strides[0] == across % shape.strides[1] == 0
            out = (down // shape.strides[0], across // shape.strides[1])
            if 0 <= out[0] < shape.out_size[0] and 0 <= out[1] < shape.out_size[1]:
                hits[int(scnn.bank(k, out[1], out[0], len(hits)))] += 1
    return hits


def pe_time(task, hardware, inputs, weights):
    """Return cycles, steps, products and valid products of one PE, channel, group and phase."""
    steps = [
        (len(some) * len(others), hits_of(task, hardware, some, others))
        for some in chunks(inputs, hardware.count("activation_lanes"))
        for others in chunks(weights, hardware.count("weight_lanes"))
    ]
    hits = [found for _, found in steps]
    waiting = sum(max(1, *found) for found in hits)
    queued = max(len(steps), *map(sum, zip(*hits, strict=True))) if steps else 0
    time = queued if hardware.count("queued") else waiting
    return np.array([time, len(steps), sum(pairs for pairs, _ in steps), sum(map(sum, hits))])


def brute(task, hardware, tiling):
    """Return cycles without halo, steps, products and products in the plane, one pair at a time."""
    shape, totals = task.shape, np.zeros(4, int)
    per_group = shape.outputs // shape.groups
    phases = list(itertools.product(range(shape.strides[0]), range(shape.strides[1])))
    for channel in range(shape.inputs):
        start = channel // shape.depth * per_group
        for kept in chunks(range(start, start + per_group), tiling.together):
            spent = [
                sum(
                    pe_time(
                        task,
                        hardware,
                        inputs_of(task, tiling, channel, pe, phase),
                        weights_of(task, channel, kept, phase),
                    )
                    for phase in phases
                )
                for pe in itertools.product(range(hardware.count("pe_rows")), range(hardware.count("pe_columns")))
            ]
            totals += np.sum(spent, axis=0)
            totals[0] += max(time for time, *_ in spent) - sum(time for time, *_ in spent)  # all wait for the slowest
    return tuple(map(int, totals))


@given(tasks())
@settings(max_examples=60, deadline=None)
def test_every_pair_of_non_zeros_is_counted(task):
    for hardware in (SMALL_SCNN, QUEUED):
        tiling = scnn.tile("layer", task.shape, hardware)
        cycles, steps, products, valid = brute(task, hardware, tiling)
        work = scnn._exact(task, tiling, hardware)
        assert (work.cycles, work.steps, work.products, work.valid) == (cycles, steps, products, valid)
        counts = scnn.count(task, hardware)
        halo = tiling.halo * task.shape.outputs
        assert counts.cycles == max(1, cycles + halo)
        assert counts.operations["mac8"] == products and counts.useful == valid
        assert counts.cycles * hardware.multipliers >= valid


@given(tasks())
@settings(max_examples=40, deadline=None)
def test_valid_products_are_the_effective_macs(task):
    shape = task.shape
    per_group = shape.outputs // shape.groups
    pairs = sum(
        int(task.weights[k, c, r, s]) * int(task.activations[k // per_group * shape.depth + c, y, x])
        for k in range(shape.outputs)
        for c in range(shape.depth)
        for r in range(shape.kernel[0])
        for s in range(shape.kernel[1])
        for y in range(-shape.paddings[0] + r, shape.size[0], shape.strides[0])
        for x in range(-shape.paddings[1] + s, shape.size[1], shape.strides[1])
        if y >= 0 and x >= 0
        and (y + shape.paddings[0] - r) // shape.strides[0] < shape.out_size[0]
        and (x + shape.paddings[1] - s) // shape.strides[1] < shape.out_size[1]
    )  # fmt: skip
    assert scnn.count(task, SMALL_SCNN).useful == pairs


@given(tasks())
@settings(max_examples=60, deadline=None)
def test_the_sampled_model_counts_steps_and_products_exactly(task):
    tiling = scnn.tile("layer", task.shape, SMALL_SCNN)
    exact = scnn._exact(task, tiling, SMALL_SCNN)
    sampled = scnn._sampled(task, tiling, scnn._operands(task, tiling, SMALL_SCNN), SMALL_SCNN)
    assert (sampled.steps, sampled.products) == (exact.steps, exact.products)


def test_the_halo_is_the_largest_neighbouring_region():
    assert scnn.tile("a", Shape(1, 1, (16, 16), (3, 3), 1, 1), SCNN).halo == 2  # a 1-wide edge of a 2x2 tile
    assert scnn.tile("a", Shape(1, 1, (16, 16), (5, 5), 1, 2), SCNN).halo == 4
    assert scnn.tile("a", Shape(1, 1, (16, 16), (1, 1)), SCNN).halo == 0


def test_neighbours_lie_in_different_banks():
    tile = {int(scnn.bank(k, x, y, 32)) for k in range(4) for x in range(2) for y in range(2)}
    assert len(tile) == 16


def test_a_bank_count_of_one_serialises_all_products():
    task = prepare(conv(inputs=2, outputs=4, size=4, weights=1.0, activations=1.0), 1.0, exact=True)
    counts = scnn.count(task, SMALL_SCNN.having("test", banks=1, pe_rows=1, pe_columns=1, accumulators=1000))
    assert counts.cycles >= counts.useful


def test_an_accumulator_too_small_for_one_tile_is_refused():
    task = prepare(conv("a", size=32), 1.0, exact=False)
    with pytest.raises(
        BadInput, match=r"layer 'a': accumulators = 15 .* \(the 4x4 sums of one output channel\).*least 16"
    ):
        scnn.count(task, SCNN.having("test", accumulators=15))


def test_a_dense_layer_is_no_faster_than_ideal():
    layer = conv(weights=1.0, activations=1.0)
    assert scnn.count(prepare(layer, 1.0, exact=True), SCNN).cycles >= math.ceil(
        _inside(layer.shape) / SCNN.multipliers
    )


def _inside(shape):
    """MACs of a layer without those that meet padding."""
    seen = [
        sum(0 <= out * step - border + tap < side for out in range(end) for tap in range(length))
        for side, end, length, step, border in zip(
            shape.size, shape.out_size, shape.kernel, shape.strides, shape.paddings, strict=True
        )
    ]
    return shape.outputs * shape.depth * seen[0] * seen[1]
