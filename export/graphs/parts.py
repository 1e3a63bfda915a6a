"""Access to the parts of a Marian, HF's own or the pruned one, for exports."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tprune.marian.vocabulary import kept_ids

Part = Any
"""A module of either Marian; torch's types declare its attributes as `Tensor | Module`."""


def scaled_table(side: Part) -> Tensor:
    return side.embed_tokens.weight.detach() * embed_scale(side)


def embed_scale(side: Part) -> float:
    """Return the embedding scale, sqrt(d_model) or 1, from the configuration."""
    return math.sqrt(side.config.d_model) if side.config.scale_embedding else 1.0


def position_table(side: Part) -> Tensor:
    return side.embed_positions.weight.detach()


def head_count(attention: Part) -> int:
    return int(attention.num_heads)


def state_widths(attention: Part) -> list[tuple[str, int, int]]:
    """Yield ("key" or "value", heads, width of one head); nothing without heads."""
    heads = head_count(attention)
    parts = (("key", attention.k_proj), ("value", attention.v_proj)) if heads else ()
    return [(name, heads, projection.out_features // heads) for name, projection in parts]


def table_order(model: Part) -> Tensor | None:
    """Return the token ids (vocabulary) in the order in which both sides' one table is exported; None: as they are.

    The rows of a trimmed vocabulary come first: row i of the output is row i of the table too, the decoder's table is
    the beginning of the encoder's, and an artefact has to store it once.
    """
    table, kept = model.model.encoder.embed_tokens.weight, kept_ids(model)
    if table is not model.model.decoder.embed_tokens.weight or len(kept) == len(table):
        return None
    return torch.tensor([*kept, *sorted(set(range(len(table))) - set(kept))])
