"""Whether two places gave the same tokens: a run that did not is wrong, however fast it was."""

from __future__ import annotations

from tprune.bench.runner.contract import Ids

TOLERATED = {"fp32": 0.01, "int8": 0.25}  # share of sentences that may differ from another processor's


def identical(output: Ids, reference: Ids) -> int:
    """Return how many sentences have the same tokens in both."""
    return sum(list(one) == list(other) for one, other in zip(output, reference, strict=True))


def agrees(same: int, sentences: int, precision: str) -> bool:
    """Say whether `same` of `sentences` with a reference's tokens are enough for a run on another processor.

    Kernels of another processor round otherwise, and a near tie between two words may then fall the other way: one
    sentence in a hundred may differ in fp32. In int8 activations are quantised by other rules on some processors.
    """
    return sentences - same <= TOLERATED[precision] * sentences
