"""Set the strength of a penalty from the budget.

To keep a share k of the prunable weights, the best line that must be cut has to shrink to zero. Its weight m (see
`tprune.pruning.penalty`) must fall by m in the remaining steps. A penalty takes about `strength` off a line per step,
so the strength is

    strength = GAIN * m / (steps left)

It is updated every few steps: higher when the task loss resists, lower when lines die early, zero once they are dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.marian.recipe import LOOK_EVERY
from tprune.pruning.penalty import Decoupled

DEAD = 0.1  # weight below which a line counts as dead: a tenth of the dense model's median line
GAIN = 1.2  # more than needed, because the task loss resists
SETTLE = 0.1  # share of the steps, at the end, by which the lines should be dead


@dataclass(frozen=True)
class Pressure:
    """A callable (step, strength) -> strength for `train.Regulariser`; depends on lines and step only."""

    press: Decoupled
    keep: float
    steps: int

    def __call__(self, step: int, strength: float) -> float:
        """Return the strength for the steps from `step` (0-based) on."""
        if not self.press.costs:
            return strength
        left = max((1 - SETTLE) * self.steps - step, LOOK_EVERY)
        return GAIN * boundary(self.press.weights(), self.keep) / left


def boundary(weights: Sequence[Tensor], keep: float) -> float:
    """Return the weight of the weakest kept line when a share `keep` of the lines is kept."""
    ranked = torch.cat(list(weights)).sort().values
    return float(ranked[min(int((1 - keep) * len(ranked)), len(ranked) - 1)])


def dead_share(weights: Sequence[Tensor]) -> float:
    """Return the share of the lines whose weight is below `DEAD`."""
    return float((torch.cat(list(weights)) < DEAD).float().mean())
