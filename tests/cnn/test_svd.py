"""SVD training: the forms keep the function, the penalty is the formula, the cut is the energy rule."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tprune.base.errors import BadInput
from tprune.cnn import nets, svd
from tprune.cnn.forms import SvdConv2d
from tprune.cnn.settings import SCHEMES

IMAGE = (3, 12, 10)
quick = settings(max_examples=40, derandomize=True, database=None, deadline=None)


class Mixed(nn.Module):
    """Convolutions of all kinds: oblong, strided, with bias, used twice, and four that cannot be treated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (5, 3), (2, 1), (2, 1))
        self.twice = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.again = self.twice
        self.short = nn.Conv2d(8, 6, 1, 2)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.dilated = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.same = nn.Conv2d(6, 6, 3, padding="same")
        self.mirrored = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(torch.tanh(self.twice(self.stem(x)))).relu()
        x = self.mirrored(self.same(self.dilated(self.grouped(self.short(x)))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def mixed() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


def pictures(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def layer(scheme: str, rank: int = 3, *, inputs: int = 2, outputs: int = 4) -> SvdConv2d:
    one = SvdConv2d(inputs, outputs, (3, 3), rank, scheme=scheme)
    for parameter in one.parameters():
        nn.init.normal_(parameter)
    return one


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_form_and_the_thin_layers_keep_the_function(mixed: nn.Module, scheme: str) -> None:
    x = pictures(*IMAGE)
    expected = mixed(x)
    notes = svd.convert(mixed, scheme)
    assert notes == {
        "grouped": "has 3 groups",
        "dilated": "is dilated by 2 x 2",
        "same": "is padded by name ('same')",
        "mirrored": "is padded with 'reflect', not zeros",
    }
    assert isinstance(mixed.twice, SvdConv2d) and mixed.again is mixed.twice
    assert not mixed.stem.training
    torch.testing.assert_close(mixed(x), expected)
    assert svd.convert(mixed, scheme) == notes  # nothing is factored twice
    svd.cut(mixed, 0.2)
    expected = mixed(x)
    chosen = svd.thin(mixed, IMAGE)
    assert set(chosen) == {"stem", "twice", "short"} and "pair" in chosen.values()
    assert mixed.again is mixed.twice and not any(isinstance(one, SvdConv2d) for one in mixed.modules())
    torch.testing.assert_close(mixed(x), expected)


@pytest.mark.parametrize(("scheme", "total"), [("channel", 688 + 48), ("spatial", 1881 + 48)])
def test_full_rank_of_resnet20(scheme: str, total: int) -> None:
    # the literature's net has no 1 x 1 shortcuts: 48 ranks fewer
    net = nets.named("resnet20").build(10).eval()
    x = pictures(3, 32, 32)
    expected = net(x)
    assert svd.convert(net, scheme) == {}
    torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)
    assert sum(one.rank for one in net.modules() if isinstance(one, SvdConv2d)) == total
    assert float(svd.penalty(net, "none", 0, 1)().detach()) < 1e-9  # singular vectors are orthonormal
    # no pair is cheaper than its dense layer while every rank is there
    assert set(svd.thin(net, (3, 32, 32)).values()) == {"dense"}


def test_the_ranks_are_the_papers_matrices(mixed: nn.Module) -> None:
    channel, spatial = mixed, copy.deepcopy(mixed)
    svd.convert(channel, "channel")
    svd.convert(spatial, "spatial")
    assert [channel.stem.rank, channel.twice.rank, channel.short.rank] == [8, 8, 6]  # min(outputs, inputs k k)
    assert [spatial.stem.rank, spatial.twice.rank, spatial.short.rank] == [15, 24, 6]  # min(inputs k, outputs k)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("none", lambda s: 0.0),
        ("l1", lambda s: s.abs().sum()),
        ("hoyer", lambda s: s.abs().sum() / s.norm() - 1),
        ("hoyer-square", lambda s: s.abs().sum() ** 2 / s.square().sum() - 1),
    ],
)
def test_the_penalty_is_the_formula(scheme: str, name: str, measure: Callable[[Tensor], Tensor | float]) -> None:
    torch.manual_seed(2)
    net = nn.Sequential(layer(scheme), layer(scheme), layer(scheme, 5, inputs=1, outputs=2)).double()
    expected: Tensor | float = 0.0
    for one in net:
        first, second = one.first.flatten(1), one.second.transpose(0, 1).flatten(1)
        for factor in (first, second):
            short = factor if len(factor) <= factor.shape[1] else factor.T
            gap = short @ short.T - torch.eye(len(short), dtype=torch.float64)
            expected = expected + 0.3 * torch.linalg.matrix_norm(gap) ** 2 / one.rank**2
        expected = expected + 0.7 * measure(one.scale)
    got = svd.penalty(net, name, 0.7, 0.3)()
    torch.testing.assert_close(got, expected)
    parameters = list(net.parameters())
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    for mine, autograds in zip(torch.autograd.grad(got, parameters, allow_unused=True), wanted, strict=True):
        torch.testing.assert_close(mine, autograds)
    svd.penalty(net, name, 0.7, 0.3).backward()
    for parameter, autograds in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, autograds)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_autocast_composes_in_full_precision(scheme: str) -> None:
    one = layer(scheme)
    expected = one.weight()
    with torch.autocast("cpu", torch.bfloat16):
        assert one(pictures(2, 5, 5)).dtype == torch.bfloat16
        assert torch.equal(one.weight(), expected)


def test_the_closed_gradient_against_finite_differences() -> None:
    torch.manual_seed(3)
    factors = [torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *given: svd._Orthogonality.apply(0.3, *given), factors)


def test_nothing_to_add_is_zero() -> None:
    assert float(svd.penalty(nn.Sequential(layer("channel")), "none", 1, 0)()) == 0
    net = nn.Sequential(layer("channel"))
    nothing = svd.penalty(net, "hoyer", 0, 0)
    assert float(nothing()) == 0
    nothing.backward()
    assert {p.grad for p in net.parameters()} == {None}


def test_the_penalty_tells_what_it_is() -> None:
    told = svd.penalty(nn.Sequential(layer("channel")), "hoyer-square", 0.01, 1.0)
    assert repr(told) == "LowRank(name='hoyer-square', strength=0.01, orthogonality=1.0)"


def fewest(values: list[float], energy: float) -> int:
    """Return how many values are needed, by trying every count of the largest squares."""
    squares = sorted((value * value for value in values), reverse=True)
    enough = (1 - energy) * math.fsum(squares)
    return next(count for count in range(1, len(values) + 1) if math.fsum(squares[:count]) >= enough * (1 - 1e-12))


@quick
@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=8),
    st.sampled_from([0.0, 1e-6, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 0.999]),
)
def test_the_energy_rule_against_brute_force(values: list[int], energy: float) -> None:
    kept = svd._kept(torch.tensor(values, dtype=torch.float64), energy).tolist()
    assert kept == sorted(set(kept))
    lost = [abs(value) for at, value in enumerate(values) if at not in kept]
    assert max(lost, default=0) <= min(abs(values[at]) for at in kept)
    assert len(kept) == fewest([float(value) for value in values], energy)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_cut_removes_the_small_ones_and_nothing_else(scheme: str) -> None:
    torch.manual_seed(4)
    net = nn.Sequential(layer(scheme, 4))
    net[0].scale.data = torch.tensor([0.1, -4.0, 0.0, 3.0])
    masked = copy.deepcopy(net[0])
    masked.scale.data = torch.tensor([0.0, -4.0, 0.0, 3.0])
    assert svd.cut(net, 0.001) == {"0": (4, 2)}
    assert net[0].scale.tolist() == [-4.0, 3.0] and net[0].about()["rank"] == 2
    torch.testing.assert_close(net[0].weight(), masked.weight())
    assert svd.cut(net, 0.0) == {"0": (2, 2)}
    net[0].scale.data.zero_()
    assert svd.cut(net, 0.5) == {"0": (2, 1)}


def test_a_pair_that_costs_as_much_becomes_dense() -> None:
    # 8 -> 8, 3 x 3: dense 576 a pixel; channel-wise rank r costs 72 r + 8 r, spatial-wise 24 r + 24 r at stride 1
    ranks = {"channel": (7, 8), "spatial": (11, 12)}
    for scheme, (below, at) in ranks.items():
        for rank, form in ((below, "pair"), (at, "dense")):
            net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
            svd.convert(net, scheme)
            full = net[0].rank
            net[0].scale.data = torch.tensor([1.0] * rank + [0.0] * (full - rank))
            svd.cut(net, 0.0)
            assert svd.thin(net, (8, 6, 6)) == {"0": form}, (scheme, rank)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: svd.convert(net, "diagonal"), "scheme 'diagonal' must be channel or spatial"),
        (lambda net: svd.penalty(net, "hoyer", 1, 1), "no SvdConv2d layer; convert it first"),
        (lambda net: svd.penalty(net, "l2", 1, 1), "penalty 'l2' must be one of none, hoyer, hoyer-square, l1"),
        (lambda net: svd.penalty(net, "l1", -1, 1), "strength -1 must be 0 or a positive number"),
        (lambda net: svd.penalty(net, "l1", 1, math.inf), "orthogonality inf must be 0 or a positive number"),
        (lambda net: svd.cut(net, 1.0), r"energy 1.0 must be in \[0, 1\)"),
        (lambda net: svd.cut(net, -0.1), r"energy -0.1 must be in \[0, 1\)"),
        (lambda net: svd.cut(net, math.nan), r"energy nan must be in \[0, 1\)"),
        (lambda net: svd.cut(net, 0.1), "no SvdConv2d layer"),
        (lambda net: svd.thin(net, IMAGE), "no SvdConv2d layer"),
    ],
)
def test_bad_input(mixed: nn.Module, call: Callable[[nn.Module], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call(mixed)


def test_an_image_that_the_network_does_not_take(mixed: nn.Module) -> None:
    svd.convert(mixed, "channel")
    mixed.train()
    with pytest.raises(BadInput, match="the network does not accept an image of 1 x 12 x 10: .*channels"):
        svd.thin(mixed, (1, 12, 10))
    assert isinstance(mixed.stem, SvdConv2d) and mixed.training


def test_what_cannot_be_treated_at_all() -> None:
    alone = nn.Conv2d(3, 4, 3)
    with pytest.raises(BadInput, match="put it into a Sequential"):
        svd.convert(alone, "channel")
    with pytest.raises(BadInput, match="no convolution that SVD training supports: 0 has 4 groups"):
        svd.convert(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), "channel")
    with pytest.raises(BadInput, match="no convolution that SVD training supports$"):
        svd.convert(nn.Sequential(nn.Linear(4, 4)), "channel")
    broken = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    broken[1].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(BadInput, match="layer '1' has weights that are not finite"):
        svd.convert(broken, "channel")
    assert type(broken[0]) is nn.Conv2d  # nothing was half done


def test_another_scheme_is_said() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    svd.convert(net, "channel")
    assert svd.convert(net, "spatial") == {"0": "is factored already, by channel"}
