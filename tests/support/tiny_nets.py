"""Tiny random image networks of every shape that is cut, in every form, with zeros strewn over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tprune.cnn.architectures import Inverted, ResNet
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.settings import SCHEMES
from tprune.cnn.shrink import Shrunk, settle, shrink
from tprune.cnn.structure import place

Image = tuple[int, int, int]


def lenet() -> nn.Module:
    """LeNet-5's shape: biases, no batch norm, a map that is flattened before a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip


def vgg() -> nn.Module:
    """VGG's shape: convolution, batch norm, ReLU in a row."""
    layers: list[nn.Module] = []
    for before, width in ((3, 6), (6, 5), (5, 4)):
        layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))


def resnet() -> nn.Module:
    """ResNet's shape: residual sums over identities and over 1 x 1 convolutions."""
    return ResNet((4, 6), 2, 3)


def mobilenet() -> nn.Module:
    """MobileNetV2's shape: depthwise convolutions, ReLU6, residual sums without an activation."""
    stem = (nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
    blocks = (Inverted(4, 4, 1, 1), Inverted(4, 5, 2, 2), Inverted(5, 5, 1, 3))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], Image]] = {
    "lenet": (lenet, (1, 14, 14)),
    "vgg": (vgg, (3, 8, 8)),
    "resnet": (resnet, (3, 8, 8)),
    "mobilenet": (mobilenet, (3, 8, 8)),
}
FORMS = ("plain", *SCHEMES, "basis")


def net(name: str, form: str, seed: int) -> tuple[nn.Module, Image]:
    """Return a random network in eval mode whose every tensor matters, its convolutions in a form, and its image."""
    torch.manual_seed(seed)
    build, image = NETS[name]
    module = build()
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and form != "plain":
            place(module, path, _formed(layer, form))
    return randomised(module, image), image


def _formed(layer: nn.Conv2d, form: str) -> nn.Module:
    about = {"stride": layer.stride, "padding": layer.padding, "bias": layer.bias is not None}
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size
    return BasisConv2d(*sizes, 3, **about) if form == "basis" else SvdConv2d(*sizes, 4, scheme=form, **about)


@torch.no_grad()
def randomised(module: nn.Module, image: Image) -> nn.Module:
    """Redraw every tensor; batch norms have seen a batch, so that outputs differ from image to image."""
    for name, tensor in module.named_parameters():
        if name.endswith("scale"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim > 1:
            tensor.normal_(std=(2 / max(tensor[0].numel(), 1)) ** 0.5)
        else:
            tensor.normal_(mean=1.0 if "bias" not in name else 0.0, std=0.3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.9
    module.train()(images(image, 16))
    return module.eval()


def images(image: Image, count: int = 5) -> Tensor:
    """Return random images (count, channels, height, width)."""
    return torch.randn(count, *image, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def strew(module: nn.Module, share: float, chance: torch.Generator) -> nn.Module:
    """Zero whole outputs, whole inputs and single weights at random, each with a probability of `share`."""

    def zero(tensor: Tensor, *dims: int) -> None:
        shape = [size if dim in dims else 1 for dim, size in enumerate(tensor.shape)]
        tensor *= torch.rand(shape, generator=chance) >= share

    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            zero(layer.weight, 0)
            zero(layer.weight, 1) if layer.weight.shape[1] > 1 else None
            zero(layer.weight, 0, 1)
        elif isinstance(layer, SvdConv2d):
            zero(layer.second, 0)
            zero(layer.first, 1)
            zero(layer.scale, 0)
        elif isinstance(layer, BasisConv2d):
            for dims in ((0,), (1,), (2,), (0, 1, 2)):
                zero(layer.coefficients, *dims)
        elif isinstance(layer, nn.BatchNorm2d):
            keep = torch.rand(layer.num_features, generator=chance) >= share / 2
            for tensor in layer.parameters():
                tensor *= keep
    return module


class Squashed(nn.Module):
    """conv -> norm -> an activation -> conv -> pool -> linear."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.activation, self.two, self.fc = activation, nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.activation(self.norm(self.one(x)))).mean((2, 3)))


@torch.no_grad()
def outputs(module: nn.Module, image: tuple[int, int, int]) -> Tensor:
    return module(images(image))


def cut_exactly(module: nn.Module, image: tuple[int, int, int], tolerance: float = 1e-5) -> Shrunk:
    """Settle and shrink in place; the outputs stay, in shares of the largest."""
    settle(module, image)
    want = outputs(module, image)
    done = shrink(module, image)
    torch.testing.assert_close(outputs(module, image), want, rtol=0, atol=tolerance * max(1.0, float(want.abs().max())))
    return done
