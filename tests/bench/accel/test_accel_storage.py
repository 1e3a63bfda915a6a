"""Compressed sizes: the worked example, the three index formats against encoders, and channel shrinking."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.accel_layers import conv
from tprune.bench.accel import storage
from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload


@pytest.mark.parametrize(("bases", "shrink", "ratio"), [(5, True, 335), (6, True, 284), (5, False, 57), (6, False, 47)])
def test_the_worked_example(bases, shrink, ratio):
    assert round(storage.worked_example(bases, shrink=shrink)) == ratio


masks = st.builds(
    lambda seed, density, size: np.random.default_rng(seed).random(size) < density,
    st.integers(0, 999),
    st.sampled_from((0.0, 0.02, 0.3, 1.0)),
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4)),
)


@given(masks)
def test_run_lengths_are_what_an_encoder_writes(mask):
    best = math.inf
    for width in range(1, 17):
        fields = run = 0
        for value in mask.ravel():
            if not value:
                run += 1
                continue
            while run >= 2**width - 1:  # a filler stands for as many zeros as the field can count
                fields, run = fields + 1, run - (2**width - 1)
            fields, run = fields + 1, 0
        best = min(best, fields * width)
    assert storage.run_lengths(mask) == best


@given(masks)
def test_coordinates_hold_every_place(mask):
    row = mask[0].size
    place, count = max(1, math.ceil(math.log2(row))), math.floor(math.log2(row)) + 1
    assert storage.coordinates(mask) == sum(count + place * int(one.sum()) for one in mask)
    assert 2**place >= row and 2**count > row


def net(mask, dense=None):
    shape = Shape(mask.shape[1], mask.shape[0], (4, 4), (3, 3), 1, 1)
    split = Decomposition(mask.shape[2], Operand.of(mask))
    return Workload("net", "trained", (Layer("conv", shape, decomposition=split, dense=dense),))


def test_the_parts_of_a_decomposed_layer_add_up():
    mask = np.zeros((4, 8, 2), bool)
    mask[0, :4] = True
    size = storage.sizes(net(mask), exact=True)["bit mask", False]
    assert (size.places, size.signs, size.bases, size.scales, size.weights, size.norms) == (64, 8, 144, 64, 0, 128)
    assert size.compressed == 64 + 8 + 144 + 64 + 128
    assert size.ratio == 4 * 8 * 9 * 32 / size.compressed
    assert size.decomposed_ratio == 4 * 8 * 9 * 32 / (64 + 8 + 144 + 64)


def test_channels_that_nothing_uses_are_left_out():
    mask = np.zeros((64, 64, 2), bool)
    mask[:8, :8] = True
    sizes = storage.sizes(net(mask), exact=True)
    assert sizes["bit mask", False].places == 64 * 64 * 2
    assert sizes["bit mask", True].places == 8 * 8 * 2 + 64 + 64  # and a bit a channel says which


def test_channels_that_were_cut_count_only_without_shrinking():
    mask = np.ones((4, 4, 2), bool)
    sizes = storage.sizes(net(mask, dense=(8, 16)), exact=True)
    whole, left = sizes["bit mask", False], sizes["bit mask", True]
    assert (whole.places, left.places) == (8 * 16 * 2, 4 * 4 * 2)
    assert whole.original == left.original == 8 * 16 * 9 * 32
    assert (whole.norms, left.norms) == (16 * 32, 4 * 32)


def test_what_is_not_decomposed_is_stored_as_eight_bits():
    plain = conv(inputs=4, outputs=8, kernel=3, coefficients=None)
    size = storage.sizes(Workload("net", "synthetic", (plain,)), exact=True)["run length", True]
    assert size.weights == 4 * 8 * 9 * 8 and size.places == 0 and size.decomposed_ratio is None


def test_a_pointwise_layer_has_no_basis():
    layer = conv(inputs=16, outputs=16, kernel=1, coefficients=0.5)
    assert storage.sizes(Workload("net", "synthetic", (layer,)), exact=True)["bit mask", True].bases == 0


def test_a_density_alone_gives_the_size_of_a_drawn_mask():
    layer = conv(inputs=64, outputs=64, coefficients=0.05)
    size = storage.sizes(Workload("net", "synthetic", (layer,)), exact=False)["bit mask", True]
    assert size.signs == pytest.approx(64 * 64 * 6 * 0.05, rel=0.05)
    again = replace(layer, name="other")
    assert storage.sizes(Workload("net", "synthetic", (again,)), exact=False)["bit mask", True].signs != size.signs
