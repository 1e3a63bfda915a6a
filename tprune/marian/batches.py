"""Length-bucketed token batches in a fixed order: the same seed gives the same batches, also after a resume.

A batch has pairs of similar length, as many as fit into `tokens` padded target (or source, if longer) tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100  # the label of a padded position


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids: source and source_mask (batch, source time); decoder_input and labels (batch, target time)."""

    source: Tensor
    source_mask: Tensor
    decoder_input: Tensor
    labels: Tensor


def schedule(lengths: Sequence[tuple[int, int]], *, tokens: int, seed: int) -> Iterator[list[int]]:
    """Yield index lists without end; the order of each epoch depends on `seed` only."""
    epoch = 0
    while True:
        order = random.Random(f"{seed}/{epoch}")  # noqa: S311 - shuffling, not secrets
        yield from _epoch(lengths, tokens, order)
        epoch += 1


def in_order(lengths: Sequence[tuple[int, int]], *, tokens: int) -> list[list[int]]:
    """Return index lists that cover all pairs once, shortest first, for evaluation."""
    return _pack(sorted(range(len(lengths)), key=lambda i: (lengths[i][1], lengths[i][0])), lengths, tokens)


def _epoch(lengths: Sequence[tuple[int, int]], tokens: int, order: random.Random) -> list[list[int]]:
    # noise on the length mixes the members of a bucket between epochs
    keys = [max(pair) + order.uniform(-1.5, 1.5) for pair in lengths]
    batches = _pack(sorted(range(len(lengths)), key=keys.__getitem__), lengths, tokens)
    order.shuffle(batches)
    return batches


def _pack(ranked: Sequence[int], lengths: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = 0
    for i in ranked:
        longest = max(longest, *lengths[i])
        if batches and longest * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = max(lengths[i])
    return batches


def collate(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, pad: int, start: int) -> Batch:
    """Return one padded batch; the decoder input is the target shifted right behind the start token."""
    source = _pad(sources, pad)
    labels = _pad(targets, IGNORED)
    shifted = _pad([[start, *target[:-1]] for target in targets], pad)
    mask = torch.zeros_like(source)
    for row, ids in enumerate(sources):
        mask[row, : len(ids)] = 1
    return Batch(source, mask, shifted, labels)


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    out = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for row, ids in enumerate(rows):
        out[row, : len(ids)] = torch.tensor(list(ids), dtype=torch.long)
    return out
