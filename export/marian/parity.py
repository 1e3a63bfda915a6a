"""Compare an artefact with its PyTorch model: greedy tokens and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import MarianMTModel

from tprune.export.manifest import ParityResult
from tprune.export.marian.open import open_translator
from tprune.marian.vocabulary import NEVER

TOLERANCE = 1.0e-3
"""Largest logit difference that fp32 arithmetic in another order explains (logits are about 1 to 30)."""


@dataclass(frozen=True)
class Comparison:
    """The result, and the index of the first sentence with other tokens."""

    result: ParityResult
    first_different: int | None

    @property
    def passed(self) -> bool:
        """Whether every sentence has the same tokens and every logit is within `TOLERANCE`."""
        return self.result.identical == self.result.sentences and self.result.max_abs_logit_diff <= TOLERANCE

    def complaint(self) -> str:
        """Describe the difference in one line."""
        found = self.result
        where = "" if self.first_different is None else f", first at sentence {self.first_different}"
        return (
            f"{found.identical} of {found.sentences} sentences have PyTorch's greedy tokens{where}, "
            f"logits differ by up to {found.max_abs_logit_diff:.2e} (at most {TOLERANCE:.0e} is legal)"
        )


def compare(model: MarianMTModel, folder: Path, sources: Sequence[Sequence[int]], *, threads: int = 1) -> Comparison:
    """Translate `sources` (token ids) with the model and with the artefact in `folder`, one sentence at a time.

    Logits are compared along PyTorch's tokens.
    """
    artefact = open_translator(folder, threads)
    limit = artefact.manifest.limits.target
    different, largest = list[int](), 0.0
    for i, source in enumerate(sources):
        expected = greedy(model, source, limit)
        if artefact.greedy(source).ids != expected:
            different.append(i)
        found = artefact.logits(source, expected)
        wanted = _logits(model, source, expected)[:, : found.shape[1]]
        apart = np.abs(found - wanted)
        apart[wanted < NEVER / 2] = 0.0  # dropped from the vocabulary: the artefact has no such row
        largest = max(largest, float(apart.max()))
    result = ParityResult(len(sources), len(sources) - len(different), largest)
    return Comparison(result, different[0] if different else None)


@torch.no_grad()
def greedy(model: MarianMTModel, source: Sequence[int], max_length: int) -> tuple[int, ...]:
    """Return the greedy tokens of HF `generate` for one sentence, without `<pad>` and start token."""
    ids = torch.tensor([list(source)])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_beams=1,
        do_sample=False,
        max_length=max_length,
        bad_words_ids=[[model.config.pad_token_id]],
    )
    return tuple(found[0, 1:].tolist())


@torch.no_grad()
def _logits(
    model: MarianMTModel, source: Sequence[int], target: Sequence[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    before = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
    return model(input_ids=torch.tensor([list(source)]), decoder_input_ids=before).logits[0].numpy()
