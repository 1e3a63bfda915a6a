"""Greedy and beam search over a batch of sentences with a started `Step`.

A finished sentence stays in the batch and its outputs are ignored: sentences of similar length end at about the same
time, and removing a row means copying all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tprune.export.manifest import Special
from tprune.export.search.beam import Beams

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Step(Protocol):
    """A decoder graph with its cache, opened by a runtime. `logits` is an array (batch, vocabulary)."""

    logits: Floats

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        """Start `batch` rows with empty caches; every encoded sentence has the same number of rows."""

    def run(self, position: int, token: int | Ints) -> int:
        """Run one step, which updates `logits` and extends the cache. Returns ns inside the runtime."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Copy row `rows[i]` of the cache to row i (beam search)."""


def greedy(step: Step, sentences: int, special: Special, never: Sequence[int], limit: int) -> list[list[int]]:
    """Return the most probable tokens of each sentence, as rows of the output matrix.

    `special` and `never` (forbidden tokens) are such rows too; `limit` counts the start token.
    """
    tokens = np.full(sentences, special.start, dtype=np.int64)
    outputs: list[list[int]] = [[] for _ in range(sentences)]
    left = set(range(sentences))
    for position in range(limit - 1):
        step.run(position, tokens)
        step.logits[:, never] = -np.inf
        tokens = step.logits.argmax(axis=1)
        if special.forced_eos is not None and position == limit - 2:
            tokens[:] = special.forced_eos
        for row in left:
            outputs[row].append(int(tokens[row]))
        left -= {row for row in left if tokens[row] == special.eos}
        if not left:
            break
    return outputs


def beam(step: Step, searches: Sequence[Beams], special: Special, never: Sequence[int], limit: int) -> None:
    """Run searches of equal width to their ends; each uses that many rows of the batch."""
    width = searches[0].width
    tokens = np.full((len(searches), width), special.start, dtype=np.int64)
    parents = np.arange(tokens.size).reshape(tokens.shape)
    left = set(range(len(searches)))
    for position in range(limit - 1):
        step.run(position, tokens.ravel())
        log_probs = _log_softmax(step.logits)
        log_probs[:, never] = -np.inf  # after the softmax, as in HF
        if special.forced_eos is not None and position == limit - 2:
            log_probs[:] = -np.inf
            log_probs[:, special.forced_eos] = 0.0
        for i in sorted(left):
            chosen, goes_on = searches[i].advance(log_probs[i * width : (i + 1) * width])
            parents[i] = i * width + np.array(chosen)
            tokens[i] = [hypothesis[-1] for hypothesis in searches[i].running]
            if not goes_on:
                left.remove(i)
        if not left:
            break
        step.reorder(parents.ravel().tolist())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
