"""Trim the output vocabulary: drop tokens that the target side of a corpus never uses.

A dropped token has the `final_logits_bias` `NEVER`, so that no tool that runs Marian can produce it. The trimmed model
is still an ordinary checkpoint. An export leaves the rows of dropped tokens out of the output matrix.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from tprune.base.errors import BadInput
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel

NEVER = -1.0e9  # finite, and below any real logit


def trim(checkpoint: Checkpoint, targets: Sequence[Sequence[int]]) -> Checkpoint:
    """Return a copy of `checkpoint` that produces only tokens in `targets` (token ids), `</s>` and `<unk>`.

    Raises BadInput when there are no targets, or one holds an id beyond the vocabulary.
    """
    size = checkpoint.model.final_logits_bias.shape[-1]
    used = {token for target in targets for token in target}
    if not used or max(used) >= size:
        raise BadInput(
            f"cannot trim a vocabulary of {size} to {len(used)} used tokens (largest {max(used, default=None)})"
        )
    model = copy.deepcopy(checkpoint.model)
    special = {checkpoint.tokenizer.eos_token_id, checkpoint.tokenizer.unk_token_id, model.config.pad_token_id}
    dropped = sorted(set(range(size)) - used - special)
    model.final_logits_bias[0, dropped] = NEVER
    identity = hashlib.sha256(f"{checkpoint.id} {dropped}".encode()).hexdigest()[:16]
    facts = {"criterion": "vocabulary", "keep": 1.0, **checkpoint.facts}
    return replace(checkpoint, model=model, id=identity, name=f"{checkpoint.name}+trim", facts=facts)


def kept_ids(model: PrunedMarianMTModel) -> list[int]:
    """Return the ids, ascending, that are not dropped; `<pad>` and the start token always stay."""
    inputs = {model.config.pad_token_id, model.config.decoder_start_token_id}
    bias = model.final_logits_bias[0].tolist()
    return [i for i, value in enumerate(bias) if value > NEVER / 2 or i in inputs]
