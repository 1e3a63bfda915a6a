"""Networks of other people, as their code has them: what is supported is cut exactly, what is not stays whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support.tiny_nets import Squashed, cut_exactly, outputs, randomised, strew
from tprune.cnn.shrink import settle

IMAGE = (3, 8, 8)


class Functional(nn.Module):
    """As tutorials write it: functionals, views, an in-place sum, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 2, 2)
        self.fc1, self.fc2 = nn.Linear(4 * 16, 6), nn.Linear(6, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.a(x))), 2)
        y = functional.leaky_relu(self.b(x), 0.1)
        y += self.c(x) * 0.5
        y = functional.dropout(y, 0.5, self.training).view(x.size(0), -1)
        return self.fc2(functional.relu6(self.fc1(y)))


class Squeezing(nn.Module):
    """Squeeze-and-excitation: a scale of every channel, from a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up, self.b = (
            nn.Conv2d(3, 5, 3),
            nn.Conv2d(5, 3, 1),
            nn.Conv2d(3, 5, 1),
            nn.Conv2d(5, 4, 1),
        )
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        scale = functional.adaptive_avg_pool2d(x, 1)
        x = x * torch.sigmoid(self.up(torch.relu(self.down(scale))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(self.b(x), 1), 1))


class Branches(nn.Module):
    """Channels side by side (cat), a grouped convolution and a channel shuffle: what is not supported."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.grouped = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 8, 3, groups=2)
        self.shuffle, self.c, self.d = nn.ChannelShuffle(2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(torch.cat([self.a(x), self.b(x)], 1))
        return self.d(torch.relu(self.c(self.shuffle(x)))).flatten(2).mean(-1)


class Recurrent(nn.Module):
    """One convolution called three times: its inputs are its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.again, self.b = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 2, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(3):
            x = torch.relu(self.again(x))
        return self.b(x).flatten(1)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([Functional, Squeezing, Branches, Recurrent, lambda: Squashed(nn.Sigmoid())]),
    st.integers(0, 10**6),
    st.floats(0, 0.9),
)
def test_other_peoples_networks_shrink_exactly(build, seed, share):
    torch.manual_seed(seed)
    module = strew(randomised(build(), IMAGE), share, torch.Generator().manual_seed(seed))
    cut_exactly(module, IMAGE)


def test_functionals_and_views_are_understood():
    module = randomised(Functional(), IMAGE)
    for layer in (module.b, module.c):
        layer.weight.data[2] = 0
    module.fc1.weight.data[3] = 0
    cut_exactly(module, IMAGE)
    assert (module.b.out_channels, module.fc1.in_features, module.fc2.in_features) == (3, 48, 5)


def test_an_excited_channel_that_nobody_reads_goes_from_all_four_layers():
    module = randomised(Squeezing(), IMAGE)
    module.b.weight.data[:, 4] = 0
    module.down.weight.data[:, 4] = 0
    cut_exactly(module, IMAGE)
    assert [module.a.out_channels, module.down.in_channels, module.up.out_channels, module.b.in_channels] == [4] * 4


def test_a_layer_called_again_loses_what_nobody_writes():
    module = randomised(Recurrent(), IMAGE)
    module.a.weight.data[3] = 0
    module.again.weight.data[3] = 0
    cut_exactly(module, IMAGE)
    assert (module.a.out_channels, module.again.in_channels, module.again.out_channels) == (4, 4, 4)


class AddedInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y.add_(self.b(x))
        return self.c(functional.relu(y)).mean((2, 3))


def silence(layer: nn.Module, channel: int) -> None:
    layer.weight.data[channel] = 0
    layer.bias.data[channel] = 0


def test_what_was_changed_in_place_is_read_as_it_became():
    module = randomised(AddedInPlace(), IMAGE)
    silence(module.a, 2)
    before = outputs(module, IMAGE)
    settle(module, IMAGE)
    assert torch.equal(outputs(module, IMAGE), before)  # b still writes the channel
    silence(module.b, 2)
    cut_exactly(module, IMAGE)
    assert (module.a.out_channels, module.b.out_channels, module.c.in_channels) == (5, 5, 5)


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        beside = functional.conv2d(x, self.a.weight, self.a.bias, padding=1)
        return self.b(functional.relu(self.a(x))).mean((2, 3)) + beside.mean((1, 2, 3)).unsqueeze(1)


class CalledOnMapsOfTwoSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.fc = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        four = functional.adaptive_avg_pool2d(self.a(x), 2).flatten(1)
        return self.fc(four) + self.fc(functional.adaptive_avg_pool2d(self.b(x), 1).flatten(1))


class CalledOnPlacesToo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.a(x).mean((2, 3))) + self.fc(self.b(x).flatten(2).transpose(1, 2)).mean(1)


class OfOneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.view(y.size(0), 8, y.size(2), y.size(3))).mean((2, 3))


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(functional.adaptive_avg_pool2d(self.a(x), 1).squeeze())


@pytest.mark.parametrize(
    "build", [UsedTwice, CalledOnMapsOfTwoSizes, CalledOnPlacesToo, OfOneSize, Squeezed], ids=lambda one: one.__name__
)
def test_channels_whose_number_the_code_relies_on_are_left_alone(build):
    module = randomised(build(), IMAGE)
    silence(module.a, 1)
    before = outputs(module, IMAGE)
    cut_exactly(module, IMAGE)
    assert torch.equal(outputs(module, IMAGE), before)
    assert module.a.out_channels == build().a.out_channels


def test_a_norm_without_a_bias_of_its_own():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1))
    randomised(module, IMAGE)[0].weight.data[1] = 0
    cut_exactly(module, IMAGE)
    assert module[1].num_features == 3


def test_layers_that_share_a_weight_are_left_alone():
    module = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
    module[1].weight = module[0].weight
    module[0].weight.data[1] = 0
    cut_exactly(module, IMAGE)
    assert [layer.out_channels for layer in module] == [3, 3, 3]
