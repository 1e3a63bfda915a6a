"""Verify that a cut model computes the same as the full-size model with zeros in the place of cut lines.

The reference is HuggingFace's own Marian, so it shares no attention or surgery code with the cut model. Inputs are
random token ids with padding: the identity must hold for every input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import MarianMTModel

from tprune.base.errors import BadInput, WorkFailed
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.config import stock_sizes
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.surgery import expand

TOLERANCE = 1e-8  # largest logit difference, in float64, where rounding is negligible even if ill-conditioned
SENTENCES, SOURCE, TARGET = 8, 24, 24  # batch and lengths (tokens) of the trial


@dataclass(frozen=True, slots=True)
class Verdict:
    """Largest absolute logit difference, and how many of the greedy translations are identical."""

    max_abs_logit_diff: float
    identical: int
    sentences: int

    @property
    def passed(self) -> bool:
        return self.max_abs_logit_diff <= TOLERANCE and self.identical == self.sentences

    def __repr__(self) -> str:
        return (
            f"Verdict({'passed' if self.passed else 'FAILED'}: logits within {self.max_abs_logit_diff:.1e}, "
            f"{self.identical} of {self.sentences} greedy translations identical)"
        )


def verify(
    model: Checkpoint | PrunedMarianMTModel, against: Checkpoint | MarianMTModel | None = None, *, seed: int = 0
) -> Verdict:
    """Compare a model with `against` (default: its own zero-filled stock expansion) and return the verdict.

    Raises BadInput when the two have different vocabularies.
    """
    cut = copy.deepcopy(model.model if isinstance(model, Checkpoint) else model).double()
    other = against.model if isinstance(against, Checkpoint) else against
    reference = (expand(cut) if other is None else copy.deepcopy(other)).double()
    ours, theirs = cut.config, reference.config
    if (ours.vocab_size, ours.decoder_vocab_size) != (theirs.vocab_size, theirs.decoder_vocab_size):
        raise BadInput(
            f"cannot compare: vocabularies of {ours.vocab_size} and {theirs.vocab_size} pieces are not one model's"
        )
    source, mask, target = _trial(cut, seed)
    with torch.inference_mode():
        logits = [
            network.eval()(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
            for network in (cut, reference)
        ]
        greedy = [_greedy(network, source, mask) for network in (cut, reference)]
    difference = float((logits[0] - logits[1]).abs().max())
    identical = sum(a == b for a, b in zip(*greedy, strict=True))
    return Verdict(difference, identical, SENTENCES)


def is_pruned(model: PrunedMarianMTModel) -> bool:
    """Return whether any matrix of the model is smaller than a stock Marian's of its configuration."""
    config = model.config
    sides = (("encoder", config.encoder_sizes), ("decoder", config.decoder_sizes))
    return any(sizes != stock_sizes(config, side) for side, sizes in sides)


def require(verdict: Verdict, what: str) -> None:
    """Raise WorkFailed unless the verdict passed."""
    if not verdict.passed:
        raise WorkFailed(
            f"{what}: the cut model differs from the masked one (logits by {verdict.max_abs_logit_diff:.2g}, tolerance "
            f"{TOLERANCE:g}; {verdict.identical} of {verdict.sentences} greedy translations identical)"
        )


def _trial(model: PrunedMarianMTModel, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random source ids, their mask (rows of decreasing length) and random decoder input."""
    generator = torch.Generator().manual_seed(seed)
    positions = model.config.max_position_embeddings
    source_length, target_length = min(SOURCE, positions), min(TARGET, positions)
    source = torch.randint(0, model.config.vocab_size, (SENTENCES, source_length), generator=generator)
    target = torch.randint(0, model.config.decoder_vocab_size, (SENTENCES, target_length), generator=generator)
    lengths = torch.linspace(source_length, min(2, source_length), SENTENCES).long()
    mask = (torch.arange(source_length)[None] < lengths[:, None]).long()
    return source.masked_fill(mask == 0, model.config.pad_token_id), mask, target


def _greedy(model: MarianMTModel, source: Tensor, mask: Tensor) -> list[list[int]]:
    length = min(TARGET, model.config.max_position_embeddings)
    ids: list[list[int]] = model.generate(
        input_ids=source, attention_mask=mask, num_beams=1, do_sample=False, max_length=length
    ).tolist()
    return ids
