"""Batched translation with HuggingFace `generate`: greedy or beam search with the checkpoint's settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, MarianMTModel

from tprune.base.errors import BadInput

Progress = Callable[[int, int], None]
BATCH_TOKENS = 8192  # padded source tokens of a batch, times beams; bounds the memory that long sentences take


@dataclass(frozen=True)
class Translation:
    """Translations in the order of the sentences.

    `ids[i]` has neither the start token nor padding, but the final </s> if one was produced. `truncated` counts the
    sources that were cut at the model's positions.
    """

    text: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    truncated: int = 0


def translate(
    model: MarianMTModel,
    tokenizer: Any,
    sentences: Sequence[str],
    *,
    beams: int = 1,
    batch_size: int = 64,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> Translation:
    """Translate sentences in batches of similar length. The model's train/eval mode is restored afterwards.

    `max_length` counts target tokens with start and </s>; None takes the checkpoint's. A source longer than the model's
    positions is cut (its </s> kept) and counted. `progress(done, total)` is called after every batch.
    Raises BadInput when `beams`, `batch_size` or `max_length` is too small.
    """
    if batch_size < 1:
        raise BadInput(f"batch size {batch_size} is below 1")
    settings = generation_settings(model, beams=beams, max_length=max_length)
    sources, truncated = encode(tokenizer, sentences, limit=model.config.max_position_embeddings)
    was_training = model.training
    model.eval()
    ids: list[tuple[int, ...]] = [()] * len(sources)
    done = 0
    try:
        for batch in _batches(sources, batch_size, max(1, BATCH_TOKENS // beams)):
            for index, produced in zip(batch, _generate(model, [sources[i] for i in batch], settings), strict=True):
                ids[index] = produced
            done += len(batch)
            if progress is not None:
                progress(done, len(sources))
    finally:
        model.train(was_training)
    return Translation(decode(tokenizer, ids), tuple(ids), truncated)


def generation_settings(model: MarianMTModel, *, beams: int = 1, max_length: int | None = None) -> GenerationConfig:
    """Return the checkpoint's generation settings for a deterministic search with `beams` beams (1: greedy).

    Length penalty, early stopping and forced tokens stay the checkpoint's; `<pad>` can never be produced; the length is
    capped by the model's positions. Raises BadInput when `beams` < 1 or `max_length` < 2.
    """
    if beams < 1:
        raise BadInput(f"beams {beams} is below 1; 1 is greedy search")
    if max_length is not None and max_length < 2:
        raise BadInput(f"max_length {max_length} is below 2 (the start token and </s>)")
    settings = copy.deepcopy(model.generation_config)
    positions = model.config.max_position_embeddings
    own = settings.max_new_tokens + 1 if settings.max_new_tokens else settings.max_length
    settings.max_length = min(max_length or own or positions, positions)
    if settings.max_new_tokens:  # generate() would replace None by the model's setting
        settings.max_new_tokens = settings.max_length - 1
    settings.num_beams = beams
    settings.do_sample = False
    settings.num_return_sequences = 1
    settings.return_dict_in_generate = False
    if beams == 1:  # greedy search ignores these, and generate() warns about them
        settings.early_stopping = False
        settings.length_penalty = 1.0
    pad = [model.config.pad_token_id]
    if pad not in (settings.bad_words_ids or []):
        settings.bad_words_ids = [*(settings.bad_words_ids or []), pad]
    return settings


def encode(tokenizer: Any, sentences: Sequence[str], *, limit: int) -> tuple[list[list[int]], int]:
    """Return source ids, each of at most `limit` tokens and ending in </s>, and how many sentences had to be cut."""
    if not sentences:
        return [], 0
    ids = tokenizer(list(sentences), verbose=False)["input_ids"]
    truncated = sum(len(row) > limit for row in ids)
    return [row if len(row) <= limit else [*row[: limit - 1], tokenizer.eos_token_id] for row in ids], truncated


def decode(tokenizer: Any, ids: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Return the text of target ids without special tokens.

    Since transformers 5, MarianTokenizer uses the source's SentencePiece model for a joint vocabulary by default.
    """
    rows = [list(row) for row in ids]
    if not rows:  # batch_decode takes an empty list for one empty sentence
        return ()
    return tuple(tokenizer.batch_decode(rows, skip_special_tokens=True, use_source_tokenizer=False))


def _batches(sources: Sequence[Sequence[int]], size: int, tokens: int) -> Iterator[list[int]]:
    """Yield lists of indices, longest sentences first, so that peak memory is reached at the start."""
    batch: list[int] = []
    for index in sorted(range(len(sources)), key=lambda i: -len(sources[i])):
        if batch and (len(batch) == size or (len(batch) + 1) * len(sources[batch[0]]) > tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def _generate(model: MarianMTModel, rows: list[list[int]], settings: GenerationConfig) -> list[tuple[int, ...]]:
    pad, width = model.config.pad_token_id, max(map(len, rows))
    input_ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    mask = (torch.arange(width, device=model.device) < lengths[:, None]).long()  # (batch, time)
    produced = model.generate(input_ids=input_ids, attention_mask=mask, generation_config=settings)
    return [_trim(row, _eos_ids(settings, model), pad) for row in produced.tolist()]


def _eos_ids(settings: GenerationConfig, model: MarianMTModel) -> set[int]:
    eos = settings.eos_token_id if settings.eos_token_id is not None else model.config.eos_token_id
    return set(eos) if isinstance(eos, list) else {eos}


def _trim(row: list[int], eos: set[int], pad: int) -> tuple[int, ...]:
    """Return a generated row without its start token and without what follows </s>."""
    ids = row[1:]
    end = next((index + 1 for index, token in enumerate(ids) if token in eos), None)
    return tuple(ids[:end]) if end is not None else tuple(token for token in ids if token != pad)
