"""How hard a penalty presses: the strength follows the lines that must die, instead of being guessed.

To keep a share k of the prunable weights, the best line that has to go must shrink to nothing. Its relative norm r (over
its site's scale in the dense model) has to fall by r in the steps that are left, so with a penalty that takes about
`strength` off a line's relative norm per step (see `tprune.decoupled`) the strength is

    strength = GAIN * r / (steps left)

looked at anew every few steps: more when the task pushes back, less when the lines die early, none once they are dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.criteria import Evidence, relative_norms
from tprune.marian import PrunedMarianMTModel

DEAD = 0.1  # relative norm below which a line counts as dead: it holds under 1 % of a typical line's energy
EVERY = 5  # steps between two looks
GAIN = 1.2  # the task pushes back
SETTLE = 0.1  # share of the steps, at the end, by which the lines should be dead


def boundary(model: PrunedMarianMTModel, scales: Mapping[str, float], keep: float) -> float:
    """Return the relative norm of the best line that has to go when a share `keep` of the lines stays."""
    norms = _all(model, scales).sort().values
    return float(norms[min(int((1 - keep) * len(norms)), len(norms) - 1)])


def dead_share(model: PrunedMarianMTModel, scales: Mapping[str, float]) -> float:
    """Return the share of all lines whose relative norm is below `DEAD`."""
    return float((_all(model, scales) < DEAD).float().mean())


def _all(model: PrunedMarianMTModel, scales: Mapping[str, float]) -> Tensor:
    return torch.cat(list(relative_norms(model, Evidence(scales)).values()))


@dataclass(frozen=True)
class Pressure:
    """Callable (step, strength) -> strength for `train.Regulariser`; depends on the model and the step alone."""

    model: PrunedMarianMTModel
    scales: Mapping[str, float]  # of the dense model
    keep: float
    steps: int

    def __call__(self, step: int, strength: float) -> float:
        """Return the strength for `step` (0-based), looking at the model every `EVERY` steps."""
        if step % EVERY:
            return strength
        left = max((1 - SETTLE) * self.steps - step, EVERY)
        return GAIN * boundary(self.model, self.scales, self.keep) / left
