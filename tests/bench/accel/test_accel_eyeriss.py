"""Row stationary against a walk through its passes, and against the measured chip."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from tests.support.accel_layers import SMALL_EYERISS, conv, shapes, tasks
from tprune.base.errors import BadInput
from tprune.bench.accel import eyeriss, validation
from tprune.bench.accel.eyeriss import EYERISS, EYERISS_CHIP
from tprune.bench.accel.layer import Shape
from tprune.bench.accel.task import prepare


def pieces(total, size):
    return [min(size, total - start) for start in range(0, total, size)]


def walk(shape, mapping):
    """Yield (PEs, products) of every pass, by loops over what the pass holds."""
    filters = shape.outputs // shape.groups
    for groups in pieces(shape.groups, mapping.groups):
        for channels in pieces(shape.depth, mapping.channels):
            for kernels in pieces(filters, mapping.filters):
                for rows in pieces(shape.out_size[0], mapping.wide):
                    for high in pieces(shape.kernel[0], mapping.high):
                        pes = groups * channels * kernels * high * rows
                        yield pes, pes * shape.kernel[1] * shape.out_size[1]


@given(shapes())
@settings(max_examples=150, deadline=None)
def test_the_passes_do_every_product_once_and_fit_the_array(shape):
    mapping = eyeriss.place("layer", shape, SMALL_EYERISS)
    passes = list(walk(shape, mapping))
    assert sum(products for _, products in passes) == shape.macs
    assert max(pes for pes, _ in passes) <= SMALL_EYERISS.multipliers
    assert max(pes for pes, _ in passes) <= mapping.active <= SMALL_EYERISS.multipliers


@given(tasks())
@settings(max_examples=150, deadline=None)
def test_cycles_are_those_of_the_walk(task):
    mapping = eyeriss.place("layer", task.shape, SMALL_EYERISS)
    per_pass = task.shape.kernel[1] * task.shape.out_size[1]
    counts = eyeriss.count(task, SMALL_EYERISS)
    assert counts.cycles == len(list(walk(task.shape, mapping))) * per_pass
    assert counts.cycles >= task.shape.macs / SMALL_EYERISS.multipliers


@given(tasks())
@settings(max_examples=60, deadline=None)
def test_buffer_reads_are_those_of_the_loops(task):
    """Inputs: each strip's rows, once a turn of filters. Sums: back from the buffer at each visit but the first."""
    shape, mapping = task.shape, eyeriss.place("layer", task.shape, SMALL_EYERISS)
    channels_at_once, filters_at_once = mapping.reuse[0] * mapping.channels, mapping.reuse[1] * mapping.filters
    reads = 0
    for _ in pieces(shape.outputs // shape.groups, filters_at_once):
        for first in range(0, shape.out_size[0], mapping.wide):
            rows = set()
            for row in range(first, min(first + mapping.wide, shape.out_size[0])):
                rows |= {row * shape.strides[0] - shape.paddings[0] + tap for tap in range(shape.kernel[0])}
            # rows between two strided windows travel with their neighbours: a PE gets whole runs of rows
            inside = [row for row in range(min(rows), max(rows) + 1) if 0 <= row < shape.size[0]]
            reads += len(inside) * shape.size[1] * shape.inputs
    reads += shape.weights * mapping.strips
    reads += shape.ofmap * (len(pieces(shape.depth, channels_at_once)) * mapping.folds - 1)
    buffer = next(a for a in eyeriss.count(task, SMALL_EYERISS).accesses if a.level == "global buffer")
    assert buffer.reads == pytest.approx(reads)  # SMALL_EYERISS has one byte a word


@pytest.mark.parametrize("check", validation.silicon(), ids=lambda check: check.what)
def test_the_measured_chip_is_met(check):
    assert check.passed, check


def test_zero_inputs_save_energy_and_no_cycle():
    sparse, dense = (eyeriss.count(prepare(conv(activations=d), 1.0, exact=False), EYERISS) for d in (0.25, 1.0))
    assert sparse.cycles == dense.cycles
    assert sparse.operations["mac8"] == pytest.approx(dense.operations["mac8"] / 4)
    assert sum(sparse.operations.values()) == sum(dense.operations.values())


def test_a_kernel_higher_than_the_array_is_folded():
    mapping = eyeriss.place("layer", Shape(1, 1, (9, 9), (7, 3)), SMALL_EYERISS)
    assert (mapping.folds, mapping.high) == (2, 4)


@pytest.mark.parametrize(("field", "words"), [("ifmap_words", 2), ("filter_words", 2)])
def test_a_scratch_pad_too_small_for_a_filter_row_is_refused(field, words):
    task = prepare(conv("a"), 1.0, exact=False)
    with pytest.raises(BadInput, match=rf"layer 'a': {field} = 2 is too small for one tile .* must be at least 3"):
        eyeriss.count(task, EYERISS.having("test", **{field: words}))


def test_the_chip_is_described_as_published():
    assert EYERISS_CHIP.multipliers == 168 and EYERISS.multipliers == 1024
    assert math.isclose(EYERISS_CHIP.bytes_per_cycle, 3.6)
