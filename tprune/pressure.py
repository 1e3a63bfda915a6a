"""How hard a penalty presses: the strength follows the lines that must die, instead of being guessed.

To keep a share k of the prunable weights, the k-th best line must become far smaller than the typical kept one. That
line's relative norm (norm over its site's root mean square) is steered down a straight line on the log scale, from
where it starts to `DEAD`, by raising the strength while it lags behind and easing it while it is ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tprune.criteria import relative_norms
from tprune.marian import PrunedMarianMTModel

DEAD = 0.1  # relative norm below which a line counts as dead: it holds under 1 % of a typical line's energy
EVERY = 5  # steps between two looks


def boundary(model: PrunedMarianMTModel, keep: float) -> float:
    """Return the relative norm of the best line that has to go when a share `keep` of the lines stays."""
    norms = torch.cat(list(relative_norms(model).values())).sort().values
    index = min(int((1 - keep) * len(norms)), len(norms) - 1)
    return float(norms[index])


def dead_share(model: PrunedMarianMTModel) -> float:
    """Return the share of all lines whose relative norm is below `DEAD`."""
    norms = torch.cat(list(relative_norms(model).values()))
    return float((norms < DEAD).float().mean())


@dataclass(slots=True)
class Pressure:
    """Callable (step, strength) -> strength for `train.Regulariser`; depends on the model and the step alone."""

    model: PrunedMarianMTModel
    keep: float
    steps: int
    up: float = 1.25
    down: float = 1.1
    start: float = 1.0  # the boundary before training

    def __post_init__(self) -> None:
        self.start = max(boundary(self.model, self.keep), DEAD)

    def __call__(self, step: int, strength: float) -> float:
        """Return the strength for `step` (0-based), looking at the model every `EVERY` steps."""
        if step == 0 or step % EVERY:
            return strength
        done = step / self.steps
        wanted = math.exp((1 - done) * math.log(self.start) + done * math.log(DEAD))
        return strength * self.up if boundary(self.model, self.keep) > wanted else strength / self.down
