"""Compare the tokens of two places. A run with other tokens than its reference is wrong, however fast it was."""

from __future__ import annotations

from tprune.bench.runner.contract import Ids

TOLERATED = {"fp32": 0.01, "int8": 0.25}  # share of sentences that may differ between processors


def identical(output: Ids, reference: Ids) -> int:
    """Count the sentences with the same tokens in both."""
    return sum(list(one) == list(other) for one, other in zip(output, reference, strict=True))


def agrees(same: int, sentences: int, precision: str) -> bool:
    """Return whether `same` identical sentences are enough for a run on another processor.

    Kernels round differently on another processor, which can flip a near tie between two words: in fp32 one sentence in
    a hundred may differ. In int8, some processors also quantise activations by other rules.
    """
    return sentences - same <= TOLERATED[precision] * sentences
