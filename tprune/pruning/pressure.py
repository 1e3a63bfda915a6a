"""How hard a penalty presses: the strength follows the lines that must die, instead of being guessed.

To keep a share k of the prunable weights, the best line that has to go must shrink to nothing. Its weight m
(see `tprune.pruning.penalty`) has to fall by m in the steps that are left, so with a penalty that takes about
`strength` off a line per step the strength is

    strength = GAIN * m / (steps left)

looked at anew every few steps: more when the task pushes back, less when the lines die early, none once they are dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.marian.recipe import LOOK_EVERY
from tprune.pruning.penalty import Decoupled

DEAD = 0.1  # weight below which a line counts as dead: a tenth of the dense model's median line
GAIN = 1.2  # the task pushes back
SETTLE = 0.1  # share of the steps, at the end, by which the lines should be dead


@dataclass(frozen=True)
class Pressure:
    """Callable (step, strength) -> strength for `train.Regulariser`; depends on the lines and the step alone."""

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
    """Return the weight of the worst line that stays when a share `keep` of the lines stays: the next one has to go."""
    ranked = torch.cat(list(weights)).sort().values
    return float(ranked[min(int((1 - keep) * len(ranked)), len(ranked) - 1)])


def dead_share(weights: Sequence[Tensor]) -> float:
    """Return the share of the lines whose weight is below `DEAD`."""
    return float((torch.cat(list(weights)) < DEAD).float().mean())
