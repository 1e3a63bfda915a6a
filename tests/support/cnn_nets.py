"""Tiny random image networks with every kind of layer, and images for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tprune.base.pixels import Pixels
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.network import Network

IMAGE = (3, 12, 10)
CLASSES = ("cat", "dog", "eel", "fox")


class Tiny(nn.Module):
    """Two branches that meet, a depthwise layer, a norm that follows no convolution, and both training forms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.svd = SvdConv2d(8, 8, (3, 3), 3, scheme="spatial", padding=(1, 1), bias=True)
        self.svd_norm = nn.BatchNorm2d(8)
        self.basis = BasisConv2d(8, 8, (3, 3), 2, padding=(1, 1))
        self.basis_norm = nn.BatchNorm2d(8)
        self.alone = nn.BatchNorm2d(8)
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.relu = nn.ReLU()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(CLASSES)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, 12, 10) to (batch, 4)."""
        x = self.relu(self.stem_norm(self.stem(x)))
        y = self.relu(self.svd_norm(self.svd(x))) + self.basis_norm(self.basis(x))
        return self.head(self.depth(self.alone(y)))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and every norm's statistics seeded values that none has by default."""
    chance = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=chance) * 0.4
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=chance))
            layer.running_var.copy_(torch.rand(layer.num_features, generator=chance) + 0.2)
    return module.eval()


def network(seed: int = 0, **changes: object) -> Network:
    """Return `Tiny` with random weights, its head centred so that no class wins for every image."""
    facts: dict[str, object] = {"history": [], "mean": (0.5, 0.45, 0.4), "std": (0.25, 0.2, 0.3)} | changes
    one = Network(randomised(Tiny(), seed), "tiny", CLASSES, IMAGE, **facts)  # type: ignore[arg-type]
    with torch.no_grad():
        one.module.head[2].bias -= one.module(one.normalise(torch.from_numpy(images(50).data))).mean(0)
    return one


def images(count: int = 12, shape: tuple[int, int, int] = IMAGE, seed: int = 1) -> Pixels:
    """Return random images, of many colours, with random labels."""
    chance = np.random.default_rng(seed)
    data = chance.integers(0, 256, (count, shape[0], 1, 1)) // 2 + chance.integers(0, 128, (count, *shape))
    data = data.astype(np.uint8)
    return Pixels(data, chance.integers(0, len(CLASSES), count), CLASSES, "made-up/test")


@torch.no_grad()
def classes(one: Network, pixels: Pixels) -> list[int]:
    """Return the class that PyTorch gives every image."""
    return one.module(one.normalise(torch.from_numpy(pixels.data))).argmax(1).tolist()
