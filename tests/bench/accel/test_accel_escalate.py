"""The two-stage convolution against loops over channels, bases and pixels, and that it computes the convolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.accel_layers import BUSY, SMALL_ESCALATE, conv, shapes, tasks
from tprune.base.errors import BadInput
from tprune.bench.accel import escalate
from tprune.bench.accel.escalate import ESCALATE
from tprune.bench.accel.layer import Shape
from tprune.bench.accel.task import prepare

WIDE = ((2, 2), (3, 3), (1, 3), (3, 1))


def stage_one(task, hardware):
    """Return {(k, m, row): (additions, slice cycles)} by looking at every word of every pixel."""
    shape, word = task.shape, hardware.count("word")
    per_group, found = shape.outputs // shape.groups, {}
    always = not hardware.count("skip_zero_activations")
    rows, columns = range(shape.size[0]), range(shape.size[1])
    if shape.area == 1:
        rows, columns = range(0, shape.size[0], shape.strides[0]), range(0, shape.size[1], shape.strides[1])
    for k in range(shape.outputs):
        for m in range(task.coefficients.shape[2]):
            held = task.coefficients[k, :, m]
            for number, y in enumerate(rows):
                added = looked = 0
                for x in columns:
                    for start in range(0, shape.depth, word):
                        some = range(start, min(start + word, shape.depth))
                        first = k // per_group * shape.depth
                        seen = [bool(task.activations[first + c, y, x]) or always for c in some]
                        matches = sum(bool(held[c]) and one for c, one in zip(some, seen, strict=True))
                        added, looked = added + matches, looked + max(1, matches)
                found[k, m, number] = (added, math.ceil(looked / hardware.count("adders")) if held.any() else 0)
    return found


def brute(task, hardware):
    """Return cycles, additions and products: blocks take output channels in turn, row after row, two stages."""
    shape, found = task.shape, stage_one(task, hardware)
    bases, slices = task.coefficients.shape[2], hardware.count("slices")
    row_time = math.ceil(shape.area * shape.out_size[1] / hardware.count("multipliers"))
    ends, products = [], 0
    for block in range(hardware.count("blocks")):
        first_free = second_free = 0
        for k in range(block, shape.outputs, hardware.count("blocks")):
            alive = task.coefficients[k].any()
            products += bases * shape.area * shape.pixels if alive else 0
            made = 0
            for row in range(shape.out_size[0]):
                need = min(shape.size[0], max(0, row * shape.strides[0] - shape.paddings[0] + shape.kernel[0]))
                one = 0
                for y in range(made, need):
                    for start in range(0, bases, slices):
                        one += max(found[k, m, y][1] for m in range(start, min(start + slices, bases)))
                made = max(made, need)
                two = row_time * math.ceil(bases / slices) if alive else 0
                ready = first_free + one
                begin = max(ready, second_free)
                first_free = begin  # the row is handed over; the next one is begun
                second_free = begin + two
        ends.append(second_free)
    return max(1, *ends), sum(added for added, _ in found.values()), products


@given(tasks(kernels=WIDE, decomposed=True), st.sampled_from((SMALL_ESCALATE, BUSY)), st.booleans())
@settings(max_examples=80, deadline=None)
def test_both_stages_are_counted(task, hardware, skip):
    hardware = hardware.having("test", skip_zero_activations=int(skip))
    cycles, additions, products = brute(task, hardware)
    counts = escalate.count(task, hardware)
    assert (counts.cycles, counts.operations["select"], counts.operations["mac8"]) == (cycles, additions, products)
    assert counts.useful == products
    assert counts.cycles * hardware.multipliers >= products


@given(tasks(kernels=((1, 1),), decomposed=True))
@settings(max_examples=60, deadline=None)
def test_a_pointwise_layer_only_adds(task):
    found = stage_one(task, SMALL_ESCALATE)
    slices = SMALL_ESCALATE.count("blocks") * SMALL_ESCALATE.count("slices")
    items = [looked for _, looked in found.values()]
    counts = escalate.count(task, SMALL_ESCALATE)
    assert counts.useful == sum(added for added, _ in found.values())
    assert counts.cycles == max(1, *(sum(items[slice_::slices]) for slice_ in range(slices)))


@given(shapes())
@settings(max_examples=60, deadline=None)
def test_what_is_not_decomposed_runs_dense(shape):
    counts = escalate.count(prepare(conv_of(shape), 1.0, exact=True), SMALL_ESCALATE)
    row = math.ceil(shape.depth * shape.area * shape.out_size[1] / SMALL_ESCALATE.count("multipliers"))
    slices = SMALL_ESCALATE.count("blocks") * SMALL_ESCALATE.count("slices")
    busy = [0] * slices
    for item in range(shape.outputs * shape.out_size[0]):
        busy[item % slices] += row
    assert counts.cycles == max(busy)
    assert counts.useful == shape.macs and counts.operations["add"] == shape.ofmap


def conv_of(shape):
    from tprune.bench.accel.layer import Layer

    return Layer("layer", shape)


def test_the_reorganised_order_computes_the_convolution():
    """Y[k] = sum over m of B[m] (*) sum over c of Ce[k, c, m] X[c] is the convolution with sum over m of Ce B."""
    rng = np.random.default_rng(0)
    shape = Shape(4, 3, (6, 6), (3, 3), 1, 1)
    inputs, bases = rng.normal(size=(4, 6, 6)), rng.normal(size=(2, 3, 3))
    ternary = rng.integers(-1, 2, (3, 4, 2))
    weights = np.einsum("kcm,mrs->kcrs", ternary, bases)

    def convolve(image, kernel):
        padded = np.pad(image, shape.padding)
        views = np.lib.stride_tricks.sliding_window_view(padded, shape.kernel)
        return np.einsum("efrs,rs->ef", views, kernel)

    direct = [sum(convolve(inputs[c], weights[k, c]) for c in range(4)) for k in range(3)]
    between = np.einsum("kcm,chw->kmhw", ternary, inputs)
    staged = [sum(convolve(between[k, m], bases[m]) for m in range(2)) for k in range(3)]
    np.testing.assert_allclose(staged, direct)


def test_stage_two_takes_m_over_c_of_the_dense_products():
    layer = conv(inputs=64, outputs=64, coefficients=0.5)
    counts = escalate.count(prepare(layer, 1.0, exact=True), ESCALATE)
    assert counts.operations["mac8"] / layer.shape.macs == 6 / 64


def test_the_pipeline_is_as_long_as_its_slower_stage():
    first, second = np.array([3, 3, 3]), np.array([5, 5, 5])
    assert escalate.pipeline(first, second) == 3 + 5 + 5 + 5
    assert escalate.pipeline(second, first) == 5 + 5 + 5 + 3
    assert escalate.pipeline(first[:0], second[:0]) == 0


def test_rows_ahead_cover_every_input_row_once():
    ahead = escalate.rows_ahead(Shape(1, 1, (7, 7), (3, 3), 2, 1))
    assert [(part.start, part.stop) for part in ahead] == [(0, 2), (2, 4), (4, 6), (6, 7)]


def test_a_line_buffer_too_small_for_one_tile_is_refused():
    task = prepare(conv("a", size=32), 1.0, exact=False)
    with pytest.raises(
        BadInput, match=r"layer 'a': line_bytes = 100 .* \(3 rows of 32 intermediate values\).* least 192"
    ):
        escalate.count(task, ESCALATE.having("test", line_bytes=100))
