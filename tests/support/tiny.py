"""A network of a few hundred weights and images that it can learn, and what kills a run half-way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tprune.cnn.images import Images
from tprune.cnn.network import Network


def some_images(count: int = 34, shape: tuple[int, int, int] = (2, 6, 6)) -> Images:
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 90, (count, *shape), generator=chance) + 55 * labels[:, None, None, None]
    return Images(pixels.to(torch.uint8), labels, ("a", "b", "c"), "some")


def a_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    return Network(module, "mine", ("a", "b", "c"), (2, 6, 6), (0.5, 0.5), (0.25, 0.25))


def check_same(one: Network, other: Network) -> None:
    theirs = other.module.state_dict()
    assert [name for name, tensor in one.module.state_dict().items() if not torch.equal(tensor, theirs[name])] == []


@dataclass
class Stop:
    """A watch that pulls the plug after so many steps."""

    after: int

    def __call__(self, done: int, steps: int, loss: float) -> None:
        if done == self.after:
            raise KeyboardInterrupt
