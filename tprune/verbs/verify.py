"""Prove that a pruned model computes what the masked one does, and measure its size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.marian import folder
from tprune.verbs.inputs import open_model

if TYPE_CHECKING:
    from tprune.marian.count import Size
    from tprune.pruning.verify import Verdict


@dataclass(frozen=True)
class Proof:
    """The verdict on a model and its size; `bytes` of its weights is None for a model from the hub.

    `pruned` is False for a stock model: then there was nothing to prove.
    """

    name: str
    id: str
    verdict: Verdict
    size: Size
    pruned: bool
    bytes: int | None


def verify(model: str, *, against: str | None = None, seed: int = 0) -> Proof:
    """Compare `model` with `against`, or with its own masked form; WorkFailed if they differ."""
    folder.check(model)
    if against:
        folder.check(against)
    checkpoint = open_model(model)
    from tprune.marian.count import count
    from tprune.pruning import verify as verification

    other = open_model(against).model if against else None
    verdict = verification.verify(checkpoint.model, other, seed=seed)
    verification.require(verdict, model)
    return Proof(
        checkpoint.name,
        checkpoint.id,
        verdict,
        count(checkpoint.model),
        verification.is_pruned(checkpoint.model),
        sum(file.stat().st_size for file in Path(model).glob("*.safetensors")) if Path(model).is_dir() else None,
    )
