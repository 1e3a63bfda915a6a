"""Eight bits: numbers rounded to a grid of 256 levels, straight through in the backward pass.

A rounded value is the number that an 8-bit machine would compute with, held as a float; 0 stays exactly 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tprune.cnn import strided  # noqa: F401 - replaces a broken operator of torch

LEVELS = 127  # either side of 0 for weights
STEPS = 255  # from the lowest activation to the highest
MEMORY = 0.9  # of the range seen so far, at every batch of training


class Straight(torch.autograd.Function):
    """Gives the second tensor for the first; the gradient goes to the first as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, instead: Tensor) -> Tensor:
        """Return what is to stand for `values`."""
        return instead.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient as it came."""
        return gradient, None


def straight(values: Tensor, instead: Tensor) -> Tensor:
    """Return `instead` with the gradient of `values`."""
    return Straight.apply(values, instead)


def rounded(values: Tensor, *, by_output: bool = False) -> Tensor:
    """Return `values` on a symmetric grid of 255 levels up to their largest magnitude: of all, or of each `values[o]`.

    The gradient is passed straight through.
    """
    magnitudes = values.detach().abs()
    most = magnitudes.amax(tuple(range(1, values.ndim)), keepdim=True) if by_output else magnitudes.amax()
    scale = (most / LEVELS).clamp(min=torch.finfo(values.dtype).tiny)
    return straight(values, (values.detach() / scale).round() * scale)


class EightBit(nn.Module):
    """Rounds a layer's input to 256 levels between the lowest and the highest value seen in training, 0 among them.

    Values outside are clipped and get no gradient. Until it has seen a batch in training mode it lets all pass.
    """

    range: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of the same shape; in training the range follows its values."""
        if self.training:
            self.follow(x.detach())
        low, high = self.range.unbind()
        scale = torch.where(high > low, (high - low) / STEPS, 1.0)
        zero = (-low / scale).round()  # the level that stands for 0
        steps = x / scale
        steps = (straight(steps, steps.detach().round()) + zero).clamp(0, STEPS) - zero
        return torch.where(high > low, steps * scale, x)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """Widen or narrow the range a little towards that of `x`."""
        seen = torch.stack([x.min().clamp(max=0), x.max().clamp(min=0)]).to(self.range)
        known = bool((self.range != 0).any())
        self.range.copy_(MEMORY * self.range + (1 - MEMORY) * seen if known else seen)

    def about(self) -> dict[str, Any]:
        """Return what rebuilds it: nothing; its range is a weight of the network."""
        return {}
