"""PENNI: bases and coefficients against brute force, the alternation, the threshold, and both executable forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tprune.base.errors import BadInput
from tprune.cnn import nets, penni
from tprune.cnn.forms import BasisConv2d

IMAGE = (3, 9, 8)


def small() -> nn.Sequential:
    """Return strided, biased, oblong, 1 x 1 and grouped convolutions in a row, in eval mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, (2, 1), (1, 0)),
        nn.ReLU(),
        nn.Conv2d(6, 8, (1, 5), padding=(0, 2), bias=False),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
    ).eval()


@pytest.fixture
def net() -> nn.Sequential:
    return small()


def pictures(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def test_all_bases_keep_the_function(net: nn.Sequential) -> None:
    whole = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 1, 3, bias=False)).eval()
    x, fewer = pictures(3, 9, 9), pictures(*IMAGE)
    expected = whole(x)
    assert penni.convert(whole, 9) == {}  # the last one has only 6 kernels for its 9 bases
    torch.testing.assert_close(whole(x), expected)
    notes = penni.convert(net, 5)
    assert notes == {"3": "is 1 x 1: penalised and cut without decomposition", "4": "has 4 groups"}
    assert [type(one).__name__ for one in net] == ["BasisConv2d", "ReLU", "BasisConv2d", "Conv2d", "Conv2d"]
    assert penni.convert(net, 5) == notes  # nothing is decomposed twice
    torch.testing.assert_close(net[2].weight(), small()[2].weight)  # 5 entries, 5 bases
    assert not net[0].training and net(fewer).shape == small()(fewer).shape


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("bases", [1, 3, 9])
def test_the_bases_are_the_best_ones(bases: int, centred: bool) -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(4, 5, 3)
    with torch.no_grad():
        layer.weight += 0.5
    rows = layer.weight.detach().double().view(20, 9)
    rows = rows - rows.mean(0) if centred else rows
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    best = (left[:, :bases] * values[:bases]) @ right[:bases]
    net = nn.Sequential(layer)
    penni.convert(net, bases, centred=centred)
    torch.testing.assert_close(net[0].weight().view(20, 9), best.float(), atol=1e-6, rtol=1e-5)
    basis = net[0].basis.flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(bases), atol=1e-6, rtol=0)


def test_the_penalty_is_the_formula(net: nn.Sequential) -> None:
    penni.convert(net, 2)
    told = penni.penalty(net, 0.5)
    assert repr(told) == "SparseCoefficients(strength=0.5)"
    parts = [net[0].coefficients, net[2].coefficients, net[3].weight]
    expected = 0.5 * sum(part.abs().sum() for part in parts)
    torch.testing.assert_close(told(), expected)
    told.backward()
    for part in parts:
        torch.testing.assert_close(part.grad, 0.5 * part.detach().sign())
    assert net[0].basis.grad is None and net[4].weight.grad is None


@pytest.mark.parametrize(
    ("interval", "sequence"),  # c: coefficients train, b: bases do
    [(1, "bcbcbc"), (2, "cbbccbbcc"), (3, "ccbbbcccbbb"), (5, "ccccbbbbbccccc"), (9, "cccccccc")],
)
def test_the_alternation(net: nn.Sequential, interval: int, sequence: str) -> None:
    penni.convert(net, 2)
    rests = penni.frozen(net, interval)
    assert repr(rests) == f"Alternation(interval={interval})"
    coefficients, bases = [net[0].coefficients, net[2].coefficients], [net[0].basis, net[2].basis]
    flipped, training = [], "c"  # as the authors' code does it, flag by flag
    for epoch in range(len(sequence)):
        if (epoch + 1) % interval == 0:
            training = "b" if training == "c" else "c"
        flipped.append(training)
    assert "".join(flipped) == sequence
    for epoch, train in enumerate(sequence):
        resting = bases if train == "c" else coefficients
        assert all(one is other for one, other in zip(rests(epoch), resting, strict=True)), epoch


def test_the_cut_goes_by_the_deviation_of_what_is_left() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 1, 1))
    penni.convert(net, 1)
    net[0].coefficients.data = torch.tensor([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0]).view(6, 1, 1)  # deviation sqrt(7)
    net[1].weight.data = torch.tensor([3.0, -3.0, 0.1, -0.1, 0.0, 0.0]).view(1, 6, 1, 1)
    assert penni.cut(net, 0.5) == {"0": (4, 6), "1": (2, 6)}
    assert net[0].coefficients.flatten().tolist() == [-4.0, -2.0, 0.0, 0.0, 2.0, 4.0]
    assert net[1].weight.flatten().tolist() == [3.0, -3.0, 0.0, 0.0, 0.0, 0.0]
    assert penni.cut(net, 0.8)["0"] == (2, 6)  # now sqrt(10): 2.5; over all entries it would be 2.06
    assert penni.cut(net, 1.0) == {"0": (2, 6), "1": (2, 6)}  # the largest stay at any level up to 1
    net[1].weight.data = torch.tensor([9.0, -1.0, 1.0, 1.0, -1.0, 0.0]).view(1, 6, 1, 1)
    with pytest.raises(BadInput, match="level 1.5 would empty layer '0'; the largest that leaves something is 1"):
        penni.cut(net, 1.5)
    assert int(net[1].weight.count_nonzero()) == 5  # nothing was cut anywhere
    net[0].coefficients.data = torch.tensor([-1.4, -1.0, -1.0, 1.0, 1.0, 1.4]).view(6, 1, 1)  # 1.4 / 1.149: 1.2185
    with pytest.raises(BadInput, match="leaves something is 1.21$"):  # not rounded up
        penni.cut(net, 1.22)
    assert penni.cut(copy.deepcopy(net), 1.21)["0"] == (2, 6)
    net[0].coefficients.data.zero_()
    assert penni.cut(net, 1.5) == {"0": (0, 6), "1": (1, 6)}
    assert penni.cut(net, 0.0) == {"0": (0, 6), "1": (1, 6)}


@pytest.mark.parametrize("faster", ["dense", "basis"])
def test_both_executable_forms_are_the_same_function(net: nn.Sequential, faster: str) -> None:
    penni.convert(net, 3)
    penni.cut(net, 0.5)
    net[2].coefficients.data[:, :, 1] = 0  # a basis that nothing uses
    expected, seen = net(pictures(*IMAGE)), []

    def seconds(layer: nn.Module, x: Tensor) -> float:
        seen.append(tuple(x.shape))
        return 1.0 if isinstance(layer, nn.Conv2d) == (faster == "dense") else 2.0

    chosen = penni.execute(net, IMAGE, seconds)
    times = {"dense": 1.0, "basis": 2.0} if faster == "dense" else {"dense": 2.0, "basis": 1.0}
    assert chosen == {path: {"form": faster, **times} for path in ("0", "2")}
    assert set(seen) == {(1, 3, 9, 8), (1, 6, 5, 6)}
    torch.testing.assert_close(net(pictures(*IMAGE)), expected)
    if faster == "basis":
        depthwise, pointwise = net[2]
        assert (depthwise.groups, depthwise.out_channels, pointwise.in_channels) == (6, 12, 12)
    assert not any(isinstance(one, BasisConv2d) for one in net.modules())


def test_the_faster_form_is_found_by_measuring() -> None:
    net = nets.named("resnet20").build(10).eval()
    penni.convert(net, 5)
    penni.cut(net, 1.0)
    x = pictures(3, 32, 32)
    expected = net(x)
    chosen = penni.execute(net, (3, 32, 32))
    assert len(chosen) == 19
    assert all(one["form"] == min(("dense", "basis"), key=one.__getitem__) for one in chosen.values())
    assert all(one["dense"] > 0 and one["basis"] > 0 for one in chosen.values())
    torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)


def test_a_dead_layer_and_one_that_is_never_called() -> None:
    idle = Idle()
    penni.convert(idle, 2)
    idle.used.coefficients.data.zero_()
    expected = idle(pictures(2, 5, 5))
    chosen = penni.execute(idle, (2, 5, 5), lambda layer, x: float(isinstance(layer, nn.Conv2d)))
    assert (chosen["used"]["form"], chosen["idle"]) == ("basis", {"form": "dense", "dense": 0.0, "basis": 0.0})
    torch.testing.assert_close(idle(pictures(2, 5, 5)), expected)


class Idle(nn.Module):
    """A network that does not call one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: penni.convert(net, 0), "bases 0 must be 1 to 9: the kernels of layer '0' have 9 entries"),
        (lambda net: penni.convert(net, 6), "bases 6 must be 1 to 5: the kernels of layer '2' have 5 entries"),
        (lambda net: penni.penalty(net, 1e-4), "no BasisConv2d layer; convert it first"),
        (lambda net: penni.penalty(net, -1.0), "strength -1.0 must be 0 or a positive number"),
        (lambda net: penni.frozen(net, 0), "interval 0 must be at least 1 epoch"),
        (lambda net: penni.cut(net, -0.1), "level -0.1 must be a number of standard deviations, 0 or more"),
        (lambda net: penni.cut(net, math.nan), "level nan must be a number"),
        (lambda net: penni.execute(net, IMAGE), "no BasisConv2d layer"),
        (lambda net: penni.convert(nn.Sequential(nn.Conv2d(3, 4, 1)), 2), "that PENNI supports: 0 is 1 x 1"),
    ],
)
def test_bad_input(net: nn.Sequential, call: Callable[[nn.Module], object], message: str) -> None:
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(BadInput, match=message):
        call(net)
    assert net.state_dict().keys() == before.keys()  # nothing was half done


def test_other_bases_are_said(net: nn.Sequential) -> None:
    penni.convert(net, 2)
    assert penni.convert(net, 3)["0"] == "has 2 bases already"
