"""Which layers share channels, by hand for small networks; what is not supported is fixed, and says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.tiny_nets import FORMS, NETS, net
from tprune.base.errors import BadInput
from tprune.cnn.channels import Space, dry_run, evaluating, spaces
from tprune.cnn.forms import BasisConv2d
from tprune.cnn.rounding import EightBit

IMAGE = (3, 8, 8)


def sharing(found: tuple[Space, ...]) -> list[tuple[int, str, str, str]]:
    """Return size, writers, links and readers of every space, paths joined."""
    return [
        (
            space.size,
            " ".join(end.path for end in space.writers),
            " ".join(link.path for link in space.links if link.path),
            " ".join(end.path if end.repeat == 1 else f"{end.path}*{end.repeat}" for end in space.readers),
        )
        for space in found
    ]


@pytest.mark.parametrize("form", FORMS)
def test_lenet(form):
    found = spaces(*net("lenet", form, 0))
    assert sharing(found) == [
        (1, "", "", "0"),
        (4, "0", "", "3"),
        (5, "3", "", "7*4"),  # a map of 2 x 2 was flattened
        (7, "7", "", "9"),
        (3, "9", "", ""),
    ]
    assert [space.fixed for space in found] == ["the network's input", "", "", "", "the network's output"]


@pytest.mark.parametrize("form", FORMS)
def test_vgg(form):
    assert sharing(spaces(*net("vgg", form, 0)))[1:-1] == [(6, "0", "1", "4"), (5, "4", "5", "8"), (4, "8", "9", "13")]


@pytest.mark.parametrize("form", FORMS)
def test_a_residual_sum_unites_its_writers(form):
    a, b, c, d = (f"stages.{stage}.{block}" for stage in (0, 1) for block in (0, 1))
    assert sharing(spaces(*net("resnet", form, 0))) == [
        (3, "", "", "conv1"),
        (
            4,
            f"conv1 {a}.conv2 {b}.conv2",
            f"bn1 {a}.bn2 {b}.bn2",
            f"{a}.conv1 {b}.conv1 {c}.conv1 {c}.shortcut.0",
        ),
        (4, f"{a}.conv1", f"{a}.bn1", f"{a}.conv2"),
        (4, f"{b}.conv1", f"{b}.bn1", f"{b}.conv2"),
        (6, f"{c}.conv1", f"{c}.bn1", f"{c}.conv2"),
        (
            6,
            f"{c}.conv2 {c}.shortcut.0 {d}.conv2",
            f"{c}.bn2 {c}.shortcut.1 {d}.bn2",
            f"{d}.conv1 fc",
        ),
        (6, f"{d}.conv1", f"{d}.bn1", f"{d}.conv2"),
        (3, "fc", "", ""),
    ]


def test_a_depthwise_convolution_carries_its_channels():
    found = sharing(spaces(*net("mobilenet", "plain", 0)))
    assert found[1] == (4, "0 3.layers.3", "1 3.layers.0 3.layers.1 3.layers.4", "3.layers.3 4.layers.0")
    assert found[2] == (8, "4.layers.0", "4.layers.1 4.layers.3 4.layers.4", "4.layers.6")


def test_values_stand_in_the_order_of_the_network():
    """The residual sum is a value of its own: what reads before it does not read what it adds."""
    space = spaces(*net("resnet", "plain", 0))[1]
    stem, first, _ = (end.value for end in space.writers)
    before, *_, after, _ = (end.value for end in space.readers)
    assert stem < before < first < after
    assert all(link.source < link.target for link in space.links)


@pytest.mark.parametrize("name", NETS)
def test_every_layer_has_its_ends_once(name):
    module, image = net(name, "plain", 0)
    found = spaces(module, image)
    written = [end.path for space in found for end in space.writers]
    read = [end.path for space in found for end in space.readers]
    linked = [link.path for space in found for link in space.links if link.path]
    layers = [path for path, layer in module.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    norms = [path for path, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert sorted(written) == sorted(read)
    assert sorted(written + linked) == sorted(layers + norms)
    for space in found:
        assert all(module.get_submodule(end.path).weight.shape[0] == space.size for end in space.writers)
        assert all(module.get_submodule(end.path).weight.shape[1] == space.size * end.repeat for end in space.readers)


class Between(nn.Module):
    """a -> something -> b, whose weights mix channels."""

    def __init__(self, something: Callable[[Tensor], Tensor] | nn.Module, width: int = 4) -> None:
        super().__init__()
        self.a, self.something, self.b = nn.Conv2d(3, 4, 3, padding=1), something, nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.something(self.a(x)))


def between(something: Callable[[Tensor], Tensor] | nn.Module, width: int = 4) -> Space:
    """Return the space that the first convolution writes."""
    return next(space for space in spaces(Between(something, width), IMAGE) if space.writers)


UNDERSTOOD = {
    "avg_pool": lambda x: functional.avg_pool2d(x, 2),
    "max_pool": lambda x: functional.max_pool2d(x, 2),
    "adaptive": lambda x: functional.adaptive_max_pool2d(x, 2),
    "upsampled": nn.Upsample(scale_factor=2, mode="bilinear"),
    "interpolated": lambda x: functional.interpolate(x, scale_factor=0.5),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "mean of two": lambda x: torch.mean(x, dim=-1, keepdim=True),
    "and back": lambda x: x.flatten(2).reshape(x.shape),
    "activations": lambda x: functional.gelu(functional.hardswish(x.relu_().clamp(max=6))).contiguous(),
    "doubled": lambda x: x + x,
    "scaled": lambda x: 0.5 * x / 3 - x,
    "product": lambda x: x * x.abs(),
    "eight bits": EightBit(),
}


@pytest.mark.parametrize("something", UNDERSTOOD)
def test_what_keeps_channels_apart_is_understood(something):
    space = between(UNDERSTOOD[something])
    assert (space.fixed, space.constants, [end.path for end in space.readers]) == ("", {}, ["b"])


@pytest.mark.parametrize(
    ("something", "why"),
    [
        (torch.sigmoid, "sigmoid (sigmoid) of 0 is not 0"),
        (nn.Softplus(), "softplus (something) of 0 is not 0"),
        (lambda x: x + 1, "add (add) of 0 is not 0"),
        (lambda x: 1 - x, "sub (sub) of 0 is not 0"),
        (lambda x: x.clamp(min=0.1), "clamp (clamp) of 0 is not 0"),
        (lambda x: 1 / x, "truediv (truediv) of 0 is not 0"),
    ],
)
def test_what_makes_something_of_nothing_is_said(something, why):
    space = between(something)
    assert (space.fixed, list(space.constants.values())) == ("", [why])


class Tripled(nn.Module):
    """An operator with weights that nobody here knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("something", "width", "why"),
    [
        (lambda x: torch.cat([x, x], 1), 8, "cat (cat) is not supported"),
        (lambda x: x.chunk(2, 1)[0], 2, "chunk (chunk) is not supported"),
        (lambda x: x[:, :3], 3, "getitem (getitem) is not supported"),
        (lambda x: x.transpose(1, 2), 8, "transpose (transpose) is not supported"),
        (lambda x: x.view(x.size(0), 2, 2, 8, 8).transpose(1, 2).reshape(x.shape), 4, "view (view) is not supported"),
        (lambda x: x.reshape(x.size(0), -1, 4, 4), 16, "its maps are joined before layer 'b'"),
        (lambda x: x.mean(1, keepdim=True), 1, "mean (mean) is not supported"),
        (lambda x: torch.softmax(x, 1), 4, "softmax (softmax) is not supported"),
        (lambda x: functional.pad(x, (0, 0, 0, 0, 1, 1)), 6, "pad (pad) is not supported"),
        (lambda x: x / x.abs(), 4, "truediv (truediv) is not supported"),
        (nn.PixelShuffle(2), 1, "pixelshuffle (something) is not supported"),
        (nn.GroupNorm(2, 4), 4, "groupnorm (something) is not supported"),
        (nn.PReLU(4), 4, "prelu (something) is not supported"),
        (
            lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
            4,
            "maxpool2dwithindices (max_pool2d_with_indices) is not supported",
        ),
        (nn.Conv2d(4, 6, 3, groups=2), 6, "layer 'something' is a grouped convolution"),
        (nn.Conv2d(4, 8, 3, groups=4), 8, "layer 'something' is a grouped convolution"),
        (nn.BatchNorm2d(4, affine=False), 4, "batch norm 'something' has no weight and bias"),
        (nn.Linear(8, 5), 4, "layer 'something' is applied to 4 dimensions"),
        (Tripled(), 4, "mul (mul) is not supported"),
    ],
)
def test_what_is_not_understood_is_fixed_and_said(something, width, why):
    found = spaces(Between(something, width), IMAGE)
    assert next(space for space in found if space.writers).fixed == why
    assert all(space.fixed for space in found)


def shuffled(x: Tensor) -> Tensor:
    """Shuffle channels as ShuffleNet does."""
    return x.view(x.size(0), 2, 2, 8, 8).transpose(1, 2).reshape(x.size(0), -1, 8, 8)


def joined(x: Tensor) -> Tensor:
    """Make of every channel four."""
    return x.reshape(x.size(0), -1, 4, 4)


@pytest.mark.parametrize(("something", "width"), [(nn.ChannelShuffle(2), 4), (shuffled, 4), (joined, 16)])
def test_what_comes_after_is_still_cut(something, width):
    module = nn.Sequential(Between(something, width), nn.ReLU(), nn.Conv2d(2, 2, 1))
    found = spaces(module, IMAGE)
    assert [[end.path for end in space.writers] for space in found if not space.fixed] == [["0.b"]]


def test_maps_flattened_to_different_sizes_are_not_summed():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 16, 1), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            wide = functional.adaptive_avg_pool2d(self.a(x), 2).flatten(1)
            return self.fc(wide + functional.adaptive_avg_pool2d(self.b(x), 1).flatten(1))

    found = spaces(Mixed(), IMAGE)
    why = "add (add) of differently flattened maps is not supported"
    assert [space.fixed for space in found if space.size in (4, 16)] == [why, why, why]


def test_shapes_from_size_are_no_operation_on_channels():
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(144, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.fc(x.view(x.shape[0], x.size(1) * 36))

    assert sharing(spaces(Viewed(), IMAGE))[1] == (4, "a", "", "fc*36")


class Deciding(nn.Module):
    """Control flow on what it computes, which no trace can follow."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x for _ in range(len(x))])


class Unlisted(nn.Module):
    """A layer in a list that PyTorch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Deciding(), r"Deciding cannot be traced by torch.fx: .* at 'if x.sum\(\) > 0:' \(line \d+ of forward\)"),
        (Counting(), r"Counting cannot be traced by torch.fx: 'len' is not supported .* \(line \d+ of forward\)"),
        (Between(Unlisted()), r"Between cannot be traced .*: module is not installed as a submodule, at .* of forward"),
    ],
)
def test_what_cannot_be_traced_is_named(module, message):
    with pytest.raises(BadInput, match=message):
        spaces(module.train(), IMAGE)
    assert module.training


def test_an_image_of_another_size_is_refused():
    module, _ = net("lenet", "basis", 0)
    with pytest.raises(
        BadInput, match="Sequential does not take an image of 1 x 20 x 14 .channels, height, width.: .*shapes"
    ):
        spaces(module, (1, 20, 14))


def test_a_module_is_held_in_evaluation_only_for_the_while():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    module[1].eval()
    with evaluating(module):
        assert not module.training and not torch.is_grad_enabled()
        dry_run(module, IMAGE, lambda x: module(x).shape, batch=3)
    assert module.training and module[0].training and not module[1].training
    assert torch.is_grad_enabled() and int(module[0].num_batches_tracked) == 0


def test_a_form_in_a_container_of_its_own_is_a_leaf():
    module = nn.Sequential(nn.Sequential(EightBit(), BasisConv2d(3, 4, (3, 3), 2)), nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert sharing(spaces(module, IMAGE)) == [(3, "", "", "0.1"), (4, "0.1", "", "2"), (2, "2", "", "")]
