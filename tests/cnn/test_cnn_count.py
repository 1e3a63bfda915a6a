"""Sizes against the published ones, against PyTorch's own counter, and against loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny_nets import FORMS, NETS, net, strew
from tprune.base.errors import BadInput
from tprune.cnn import nets
from tprune.cnn.count import Count, Kept, Row, count, kept, totals
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.structure import place

SHORTCUTS = 16 * 32 + 32 * 64, 2 * 131_072  # weights and MACs of our two 1 x 1 convolutions where papers pad with zeros


def named(name: str) -> Count:
    row = nets.named(name)
    return count(row.build(10), row.image)


# net -> weights and MACs of the convolutions of basic blocks without shortcuts, as published (rounded)
RESNETS = {
    "resnet20": (268_000, 40.55e6),
    "resnet32": (461_000, 68.86e6),
    "resnet56": (848_000, 125.49e6),
    "resnet110": (1_719_000, 252.89e6),
}


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_for_cifar(name):
    weights, macs = RESNETS[name]
    convs = named(name).convs
    assert convs.weights - SHORTCUTS[0] == pytest.approx(weights, abs=500)
    assert convs.macs - SHORTCUTS[1] == pytest.approx(macs, abs=5_000)


def test_vgg_16():
    size = named("vgg16")
    assert (size.convs.macs, size.convs.weights) == (313_196_544, 14_710_464)
    assert size.of({"linear"}).macs == size.of({"linear"}).weights == 512 * 10
    assert size.parameters == size.weights + 2 * 4_224 + 10  # a scale and a shift for every filter, ten biases


def test_resnet_18():
    convs = named("resnet18").convs
    assert (convs.weights, convs.macs) == (11_159_232, 555_417_600)


@pytest.mark.parametrize(("name", "weights"), [("lenet-300-100", 266_200), ("lenet-5", 430_500)])
def test_lenets_count_weights_without_biases(name, weights):
    size = named(name)
    assert size.weights == weights
    biases = {"lenet-300-100": 410, "lenet-5": 580}[name]
    assert size.parameters == weights + biases


def test_mobilenet_v2_has_the_published_size():
    """3.4 million parameters at 1,000 classes: 1280 x 1001 of them in the last layer, which ten classes leave."""
    assert named("mobilenet-v2").parameters == 3_504_872 - 1_281_000 + 12_810


@pytest.mark.parametrize("name", NETS)
def test_macs_are_what_runs(name):
    module, image = net(name, "plain", 0)
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        module(torch.zeros(1, *image))
    assert count(module, image).macs == flops.get_total_flops() // 2


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 8, (3, 5), stride=(1, 2), padding=(2, 0), groups=4),
        nn.Conv2d(4, 6, 3, dilation=2),
        nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", bias=False),
    ],
)
def test_macs_of_any_convolution_by_loops(conv):
    module, places = nn.Sequential(conv), conv(torch.zeros(1, 4, 9, 11)).shape
    conv.weight.data[0, 0] = 0
    loops = 0
    for _ in range(places[2] * places[3]):
        for filters in conv.weight:
            loops += sum(int(kernel.numel()) for kernel in filters)
    row = count(module, (4, 9, 11)).rows[0]
    assert row.macs == loops
    assert row.effective_macs == loops - places[2] * places[3] * conv.weight[0, 0].numel()
    assert row.output == tuple(places[1:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETS)
def test_books_balance(name, form):
    """Zeros are free in the effective figures alone, and the sums are those of the rows."""
    module, image = net(name, form, 0)
    full = count(module, image)
    assert (full.nonzero, full.effective_macs, full.nonzero_parameters) == (full.weights, full.macs, full.parameters)
    assert full.parameters == sum(one.numel() for one in module.parameters()) - sum(
        layer.rank for layer in module.modules() if isinstance(layer, SvdConv2d)
    )  # the singular values belong into the thin convolutions
    sparse = count(strew(module, 0.3, torch.Generator().manual_seed(0)), image)
    assert (sparse.weights, sparse.macs, sparse.parameters) == (full.weights, full.macs, full.parameters)
    for row in sparse.rows:
        assert row.effective_macs <= row.macs and row.nonzero <= row.weights
        assert (row.effective_macs < row.macs) == (row.nonzero < row.weights) or row.kind == "batch-norm"
    assert sparse.effective_macs == sum(row.effective_macs for row in sparse.rows) < sparse.macs


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_an_svd_convolution_is_its_two_thin_ones(scheme, stride):
    layer = SvdConv2d(5, 7, (3, 3), 4, scheme=scheme, stride=(stride, stride), padding=(1, 1))
    nn.init.ones_(layer.scale), nn.init.normal_(layer.first), nn.init.normal_(layer.second)
    first, second = nn.Conv2d(5, 4, 3, stride, 1, bias=False), nn.Conv2d(4, 7, 1, bias=False)
    if scheme == "spatial":
        first = nn.Conv2d(5, 4, (3, 1), (stride, 1), (1, 0), bias=False)
        second = nn.Conv2d(4, 7, (1, 3), (1, stride), (0, 1), bias=False)
    mine, thin = (count(nn.Sequential(one), (5, 8, 12)) for one in (layer, nn.Sequential(first, second)))
    assert (mine.weights, mine.macs, mine.effective_macs) == (thin.weights, thin.macs, thin.macs)
    layer.scale.data[1] = 0
    fewer = count(nn.Sequential(layer), (5, 8, 12))
    assert (4 * fewer.nonzero, 4 * fewer.effective_macs, fewer.macs) == (3 * thin.weights, 3 * thin.macs, thin.macs)


# The vertical convolutions of the two strided layers stride over rows alone: 79.6 M leaves out half of what they cost.
STRIDED = 256 * 3 * 16 * 48 + 64 * 3 * 32 * 96


@pytest.mark.parametrize(("scheme", "ranks", "macs"), [("channel", 688, 45.5e6), ("spatial", 1_881, 79.6e6 + STRIDED)])
def test_full_rank_resnet_20_costs_more_than_dense(scheme, ranks, macs):
    """Without the shortcuts: 45.5 and 79.6 million where the dense network has 40.55."""
    module = nets.named("resnet20").build(10)
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d) and "shortcut" not in path:
            sides = layer.out_channels, layer.in_channels * 9
            if scheme == "spatial":
                sides = layer.out_channels * 3, layer.in_channels * 3
            about = {"scheme": scheme, "stride": layer.stride, "padding": layer.padding}
            factored = SvdConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, min(sides), **about)
            for factor in factored.parameters():
                nn.init.ones_(factor)
            place(module, path, factored)
    size = count(module, (3, 32, 32)).of({"svd-conv"})
    assert sum(layer.rank for layer in module.modules() if isinstance(layer, SvdConv2d)) == ranks
    assert size.macs == pytest.approx(macs, abs=0.05e6)


def test_vgg_16_with_five_bases_is_the_authors_network():
    """Kernels, coefficients and multiply-accumulates of their notebook (section 2.2), linear layers left out."""
    module = nets.named("vgg16").build(10)
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d):
            based = BasisConv2d(layer.in_channels, layer.out_channels, (3, 3), 5, padding=(1, 1))
            nn.init.ones_(based.basis), nn.init.ones_(based.coefficients)
            place(module, path, based)
    decomposed = count(module, (3, 32, 32))
    assert decomposed.coefficients == 8_172_480
    assert decomposed.convs.weights == 8_172_480 + 13 * 5 * 9
    assert decomposed.convs.macs == pytest.approx(182.34e6, abs=0.01e6)


def test_effective_macs_of_a_basis_convolution_are_the_authors_formula():
    layer = BasisConv2d(3, 4, (3, 3), 2, stride=(2, 2), padding=(1, 1))
    nn.init.ones_(layer.basis), nn.init.zeros_(layer.coefficients)
    layer.coefficients.data[1, 2, 0] = layer.coefficients.data[3, 0, 1] = 0.5
    row = count(nn.Sequential(layer), (3, 8, 8)).rows[0]
    assert row.effective_macs == 4 * 4 * (3 * 2 * 9 + 2)
    assert row.macs == 4 * 4 * (3 * 2 * 9 + 24)
    assert (row.weights, row.nonzero, row.coefficients, row.nonzero_coefficients) == (24 + 18, 2 + 18, 24, 2)


def test_the_three_bases_of_the_parameters_left():
    """The authors' VGG-16: 135,817 coefficients left are 1.66 % of the coefficients and 0.92 % of the kernels."""

    def network(weights: int, nonzero: int, others: int, coefficients: int, left: int) -> Count:
        return Count(
            (
                Row("0", "basis-conv", weights, nonzero, 0, 0, coefficients, left, 0, 0, ()),
                Row("1", "batch-norm", 0, 0, others, others, 0, 0, 0, 0, ()),
                Row("2", "linear", 1000, 500, 0, 0, 0, 0, 0, 0, ()),
            )
        )

    dense = network(14_710_464, 14_710_464, 8_448, 0, 0)
    decomposed = network(8_173_065, 8_173_065, 8_448, 8_172_480, 8_172_480)
    now = network(8_173_065, 136_402, 8_448, 8_172_480, 135_817)
    assert kept(dense, decomposed, totals(now)) == Kept(
        pytest.approx(0.0093, abs=5e-5),
        pytest.approx(1 - 0.98338, abs=5e-6),
        pytest.approx((136_402 + 8_448 + 500) / (14_710_464 + 8_448 + 1000)),
    )


def test_a_layer_that_runs_twice_costs_twice_and_one_that_does_not_nothing():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.idle = nn.Conv2d(3, 3, 1), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    conv, idle = count(Twice(), (3, 4, 4)).rows
    assert (conv.macs, idle.macs, idle.weights, idle.output) == (2 * 16 * 9, 0, 4, ())


def test_counting_leaves_the_network_as_it_was():
    module, image = net("resnet", "plain", 0)
    before = {path: tensor.clone() for path, tensor in module.state_dict().items()}
    count(module.train(), image)
    assert module.training and not any(layer._forward_hooks for layer in module.modules())
    assert all(torch.equal(tensor, before[path]) for path, tensor in module.state_dict().items())


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(BadInput, match="layer '0' is ConvTranspose2d; known are conv, linear"):
        count(nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), (3, 8, 8))
    module, _ = net("vgg", "plain", 0)
    with pytest.raises(BadInput, match="Sequential does not take an image of 1 x 8 x 8"):
        count(module, (1, 8, 8))
    assert not any(layer._forward_hooks for layer in module.modules())
