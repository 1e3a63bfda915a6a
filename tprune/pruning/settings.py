"""Settings of pruning and of the sensitivity analysis: every default and every legal value, stated once. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tprune.base.errors import BadInput
from tprune.marian.recipe import LOOK_EVERY
from tprune.pruning.criteria import CRITERIA

MIN_STEPS = LOOK_EVERY + 1  # the penalty first reads Adam's moments after LOOK_EVERY steps
TYPES = ("q", "k", "v", "o", "fc1", "fc2")  # the six weight matrices that BSSL analyses
DIRECTIONS = ("paper", "opposite")
JOURNAL = "runs.jsonl"  # of an analysis: its finished runs, in its output folder


@dataclass(frozen=True, slots=True)
class Settings:
    """What to prune and how.

    With `strength` None the strength of the penalty follows `keep` (see `tprune.pruning.pressure`). With `keep` None
    the lines that the penalty drives to zero are removed.
    """

    keep: float | None = 0.5
    criterion: str = "shs"
    steps: int = 200
    finetune_steps: int = 400
    lr: float = 5e-4
    finetune_lr: float = 5e-4
    strength: float | None = None
    round_to: int = 8
    seed: int = 0
    distill: bool = False
    tokens: int = 2048

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        elif self.strength is None:
            raise BadInput("--keep or --strength must be given: they set how much to cut")
        if self.criterion not in CRITERIA:
            raise BadInput(f"--criterion {self.criterion!r}: must be one of {', '.join(CRITERIA)}")
        for name, low in (("steps", 0), ("finetune_steps", 0), ("round_to", 1), ("tokens", 1)):
            if getattr(self, name) < low:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {low}")
        for name in ("lr", "finetune_lr"):
            if not 0 < getattr(self, name) < 1:
                flag = f"--{name.replace('_', '-')}"
                raise BadInput(f"{flag} {getattr(self, name):g}: must lie between 0 and 1, e.g. 5e-4")
        self._check_penalty()

    def _check_penalty(self) -> None:
        if self.penalised and self.steps < MIN_STEPS:
            raise BadInput(
                f"--steps {self.steps}: a penalty needs at least {MIN_STEPS} (0: cut without training first)"
            )
        if self.strength is not None and self.strength <= 0:
            raise BadInput(f"--strength {self.strength:g}: must be above 0 (leave it out to follow --keep)")
        if self.strength is not None and not self.penalised:
            raise BadInput(f"--strength needs a penalty and --steps above 0; {self.criterion!r} has none: give --keep")

    @property
    def penalised(self) -> bool:
        """Whether there is a training phase before the cut."""
        return CRITERIA[self.criterion].penalty is not None and self.steps > 0


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """What to analyse. The opposite direction is a control: it runs at the middle (of two: the lower) strength only.

    A strength of 1 lets the median line of the model die within `steps`, as far as training does not hold it up.
    `threshold` is the share of a block's root mean square line norm before the run, below which a line is dead.
    `limit` and `dev_limit` cap the sentence pairs; `bleu_sentences` dev sentences are translated after each run.
    """

    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    steps: int = 40
    lr: float = 2e-4
    block_types: tuple[str, ...] = (*TYPES, "all")
    directions: tuple[str, ...] = DIRECTIONS
    threshold: float = 0.1
    seed: int = 0
    tokens: int = 1024
    limit: int | None = None
    dev_limit: int | None = 300
    bleu_sentences: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0 or list(self.strengths) != sorted(set(self.strengths)):
            raise BadInput(f"AnalysisSettings.strengths: {self.strengths} must be above 0 and rising, e.g. 0.5, 1, 2")
        for name, legal in (("block_types", (*TYPES, "all")), ("directions", DIRECTIONS)):
            given = getattr(self, name)
            if not given or len(set(given)) != len(given) or not set(given) <= set(legal):
                raise BadInput(f"AnalysisSettings.{name}: {given} must be one or more of {', '.join(legal)}, each once")
        if "paper" not in self.directions:
            raise BadInput(
                "AnalysisSettings.directions: the paper's direction must be among them (the opposite is a control)"
            )
        for name, low in (("steps", 1), ("tokens", 1), ("limit", 1), ("dev_limit", 1), ("bleu_sentences", 0)):
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise BadInput(f"AnalysisSettings.{name}: {getattr(self, name)} must be at least {low}")
        if not 0 < self.threshold < 1:
            raise BadInput(f"AnalysisSettings.threshold: {self.threshold:g} must lie between 0 and 1")
        if not 0 < self.lr < 1:
            raise BadInput(f"AnalysisSettings.lr: {self.lr:g} must lie between 0 and 1")

    @classmethod
    def quick(cls, **changes: Any) -> AnalysisSettings:
        """Return settings for a first look: under a minute for a tiny model (d_model 128, 2 + 2 layers)."""
        return cls(**{"strengths": (0.7, 1.5), "steps": 16, "tokens": 512, "dev_limit": 100, **changes})


def check_keep(keep: float) -> None:
    """Raise BadInput unless `keep` is a share of the prunable weights in (0, 1]."""
    if not 0 < keep <= 1:
        raise BadInput(f"--keep {keep:g}: the share of prunable weights to keep must lie in (0, 1], e.g. 0.5")


def check_limit(limit: float) -> None:
    """Raise BadInput unless `limit` is a percentage in [0, 100)."""
    if not 0 <= limit < 100:
        raise BadInput(f"--max-bleu-drop {limit:g}: must be a relative loss in per cent, from 0 to below 100")
