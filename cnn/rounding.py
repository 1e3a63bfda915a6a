"""8-bit rounding with straight-through gradients.

A rounded value is a float with the value that 8-bit hardware would use; 0 stays exactly 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tprune.cnn import strided  # noqa: F401 - replaces a broken operator of torch

LEVELS = 127  # of weights, on each side of 0
STEPS = 255  # from the lowest activation to the highest
MEMORY = 0.9  # decay of the moving average of the range, per training batch


class Straight(torch.autograd.Function):
    """Returns the second tensor; the gradient passes to the first unchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, instead: Tensor) -> Tensor:
        """Return `instead`."""
        return instead.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient unchanged."""
        return gradient, None


def straight(values: Tensor, instead: Tensor) -> Tensor:
    """Return `instead` with the gradient of `values`."""
    return Straight.apply(values, instead)


def rounded(values: Tensor, *, by_output: bool = False) -> Tensor:
    """Return `values` on a symmetric grid of 255 levels up to the largest magnitude of all, or of each `values[o]`.

    The gradient is straight-through.
    """
    magnitudes = values.detach().abs()
    most = magnitudes.amax(tuple(range(1, values.ndim)), keepdim=True) if by_output else magnitudes.amax()
    scale = (most / LEVELS).clamp(min=torch.finfo(values.dtype).tiny)
    return straight(values, (values.detach() / scale).round() * scale)


class EightBit(nn.Module):
    """Rounds a layer's input to 256 levels (0 included) between the lowest and the highest value seen in training.

    Values outside are clipped and get no gradient. Before the first batch in training mode, values are unchanged.
    """

    range: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; in training mode, update the range first."""
        if self.training:
            self.follow(x.detach())
        low, high = self.range.unbind()
        scale = torch.where(high > low, (high - low) / STEPS, 1.0)
        zero = (-low / scale).round()  # the level of 0
        steps = x / scale
        steps = (straight(steps, steps.detach().round()) + zero).clamp(0, STEPS) - zero
        return torch.where(high > low, steps * scale, x)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """Update the moving average of the range with that of `x`."""
        seen = torch.stack([x.min().clamp(max=0), x.max().clamp(min=0)]).to(self.range)
        known = bool((self.range != 0).any())
        self.range.copy_(MEMORY * self.range + (1 - MEMORY) * seen if known else seen)

    def about(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer: none; its range is a buffer."""
        return {}
