"""The pruning criteria, one row each. Torch-free: functions are named here, and imported when they are used.

To add a criterion, write its functions in one module and add one row; the command line, the checks of settings, reports
and figures follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Criterion:
    """How lines are scored, and the penalty that is applied in training before the cut.

    `scores` names a function (model, evidence) -> site name -> scores (lines,), see `tprune.pruning.scores`; it is not
    used after training under a penalty. `penalty` names a function of squared line weights (lines,) -> scalar, see
    `tprune.pruning.penalty`. With `calibrated`, the evidence has batches of training data. Names are
    `module:function`.
    """

    scores: str
    penalty: str | None = None
    calibrated: bool = False


NORMS = "tprune.pruning.scores:relative_norms"

CRITERIA = {
    "shs": Criterion(NORMS, penalty="tprune.base.hoyer:group_hoyer_square"),
    "group-lasso": Criterion(NORMS, penalty="tprune.base.hoyer:group_lasso"),
    "magnitude": Criterion(NORMS),
    "taylor": Criterion("tprune.pruning.scores:taylor", calibrated=True),
    "random": Criterion("tprune.pruning.scores:random_scores"),
}


def function(name: str) -> Any:
    """Return the function that a row calls `module:function`."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def listed() -> str:
    """Return the names of all criteria for a message: "a, b or c"."""
    *others, last = CRITERIA
    return f"{', '.join(others)} or {last}"
