"""`Recipe`: how a translation model is trained. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from tprune.base.errors import BadInput

LOOK_EVERY = 5  # steps between two updates of a penalty; `save_every` is a multiple, so that a resumed run keeps pace


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: everything that decides the result, except model, data and penalty."""

    steps: int
    lr: float = 3e-4
    warmup: int = 20
    final_lr_share: float = 0.0  # linear decay from lr to this share of it
    tokens: int = 2048  # padded tokens a batch, per process
    smoothing: float = 0.1
    dropout: float = 0.1
    seed: int = 0
    distill_share: float = 0.5
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("warmup", 0), ("tokens", 1), ("save_every", 1)):
            if getattr(self, name) < low:
                raise BadInput(f"Recipe.{name}: {getattr(self, name)} must be at least {low}")
        if self.save_every % LOOK_EVERY:
            raise BadInput(f"Recipe.save_every: {self.save_every} must be a multiple of {LOOK_EVERY}")
        if not 0 < self.lr < 1:
            raise BadInput(f"Recipe.lr: {self.lr} must lie between 0 and 1")
        for name in ("smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"Recipe.{name}: {getattr(self, name)} must lie in [0, 1)")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of 0-based `step`."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        left = (self.steps - step) / max(self.steps - self.warmup, 1)
        return self.lr * (self.final_lr_share + (1 - self.final_lr_share) * left)
