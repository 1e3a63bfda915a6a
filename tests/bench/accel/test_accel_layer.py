"""A layer's sizes are those of convolution arithmetic, and a wrong value is refused with its name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from tests.support.accel_layers import shapes
from tprune.base.errors import BadInput
from tprune.bench.accel import networks
from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload


@given(shapes())
def test_the_output_size_is_where_windows_fit(shape):
    sides = zip(shape.size, shape.kernel, shape.strides, shape.paddings, shape.out_size, strict=True)
    for side, length, step, border, found in sides:
        starts = range(-border, side + border - length + 1, step)
        assert found == len(starts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"inputs": 0}, r"Shape.inputs is 0; it must be a whole number, 1 or more"),
        ({"inputs": -3}, r"Shape.inputs is -3"),
        ({"outputs": 2.5}, r"Shape.outputs is 2.5"),
        ({"size": (4, 0)}, r"Shape.size is 0"),
        ({"size": 4}, r"Shape.size is 4; it must be two whole numbers"),
        ({"stride": 0}, r"Shape.stride is 0"),
        ({"padding": -1}, r"Shape.padding is -1; it must be a whole number, 0 or more"),
        ({"padding": (1, -1)}, r"Shape.padding is -1; it must be a whole number, 0 or more"),
        ({"stride": (2, 0)}, r"Shape.stride is 0; it must be a whole number, 1 or more"),
        ({"stride": (1, 1, 1)}, r"Shape.stride is \(1, 1, 1\); it must be a whole number, or two: for height and"),
        ({"groups": 4}, r"Shape.groups is 4; it must divide inputs 6 and outputs 8"),
        ({"kernel": (7, 7)}, r"Shape.kernel is 7x7; it must fit into the input of 4x4 with padding 1"),
    ],
)
def test_a_wrong_shape_is_refused(change, complaint):
    good = {"inputs": 6, "outputs": 8, "size": (4, 4), "kernel": (3, 3), "stride": 1, "padding": 1, "groups": 1}
    with pytest.raises(BadInput, match=complaint):
        Shape(**(good | change))


@pytest.mark.parametrize("density", [-0.1, 1.01, float("nan"), "dense"])
def test_a_density_is_a_share(density):
    with pytest.raises(BadInput, match="Operand.density is .*; it must be a number from 0 to 1"):
        Operand(density)


def test_masks_have_their_layers_shape():
    shape, wrong = Shape(2, 3, (4, 4), (3, 3)), Operand.of(np.ones((3, 2, 3, 2)))
    with pytest.raises(
        BadInput, match=r"layer 'a': the mask of its weights is \(3, 2, 3, 2\); it must be \(3, 2, 3, 3\)"
    ):
        Layer("a", shape, weights=wrong)
    with pytest.raises(BadInput, match="the mask of its activations"):
        Layer("a", shape, activations=wrong)
    with pytest.raises(BadInput, match="the mask of its coefficients"):
        Layer("a", shape, decomposition=Decomposition(2, wrong))


def test_more_bases_than_kernel_places_are_refused():
    with pytest.raises(BadInput, match="layer 'a': 10 bases; a kernel of 9 weights has at most 9"):
        Layer("a", Shape(2, 3, (4, 4), (3, 3)), decomposition=Decomposition(10, Operand(0.5)))


def test_dense_widths_are_not_below_those_that_are_left():
    with pytest.raises(BadInput, match=r"layer 'a': dense is \[1, 3\]; it must not be below .*, \[2, 3\]"):
        Layer("a", Shape(2, 3, (4, 4), (3, 3)), dense=(1, 3))


def test_a_depthwise_layer_had_one_input_a_filter_before_it_was_cut_too():
    layer = Layer("a", Shape(5, 5, (4, 4), (3, 3), groups=5), dense=(12, 12))
    assert (layer.widths, layer.dense_weights) == ((1, 12), 12 * 9)


def test_exact_counting_takes_the_masks_own_share():
    operand = Operand(0.25, np.array([True, False]))
    assert (operand.share(exact=True), operand.share(exact=False), Operand(0.3).share(exact=True)) == (0.5, 0.25, 0.3)


def test_a_workload_is_not_empty_and_its_names_are_unique():
    layer = Layer("a", Shape(2, 3, (4, 4), (3, 3)))
    with pytest.raises(BadInput, match="Workload.layers of 'net' is empty"):
        Workload("net", "trained", ())
    with pytest.raises(BadInput, match="the name 'a' appears twice"):
        Workload("net", "trained", (layer, layer))
    with pytest.raises(BadInput, match="Workload.source is 'guessed'; it must be 'trained' or 'synthetic'"):
        Workload("net", "guessed", (layer,))


@pytest.mark.parametrize(
    ("name", "macs", "weights"),
    [  # in millions, as published or recounted
        ("vgg16-32", 313.73, 15.240),
        ("resnet18-32", 555.42, 11.164),
        ("alexnet-224", 724.4, 60.95),
        ("vgg16-224", 15470, 138.3),
        ("resnet18-224", 1814, 11.68),
        ("resnet50-224", 4089, 25.50),
        ("mobilenet-224", 568.7, 4.209),
    ],
)
def test_named_networks_have_their_known_size(name, macs, weights):
    workload = networks.named(name)
    assert sum(layer.shape.macs for layer in workload.layers) / 1e6 == pytest.approx(macs, rel=1e-3)
    assert sum(layer.shape.weights for layer in workload.layers) / 1e6 == pytest.approx(weights, rel=1e-3)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_named_networks_chain_and_say_that_they_are_synthetic(name):
    workload = networks.named(name)
    assert workload.source == "synthetic" and workload.note.startswith("SYNTHETIC")
    made = {3, *(layer.shape.outputs for layer in workload.layers)}
    assert all(layer.shape.inputs in made or layer.name.startswith("fc") for layer in workload.layers)
    assert workload.layers[0].decomposition is None and workload.layers[0].activations.density == 1


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(
        BadInput, match="network 'lenet' is not known; legal are vgg16-32, .*, a workload.json or an ONNX"
    ):
        networks.named("lenet")
