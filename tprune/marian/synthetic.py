"""Models of realistic size with random weights, to measure speed: `make("opus-mt", length=20)`, and `sources` for it.

The bias of `</s>` is far below every other logit, and it is never forced. So every translation has the maximum length.
"""

from __future__ import annotations

import hashlib
import io
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base.stamp import write_json

if TYPE_CHECKING:
    from transformers import MarianTokenizer

    from tprune.marian.checkpoint import Checkpoint

NO_EOS = -1e4  # bias of </s>: below every other logit, yet not a dropped token (`vocabulary.NEVER`)


@dataclass(frozen=True)
class Size:
    """Sizes of a Marian whose encoder and decoder are alike; `vocabulary` is shared."""

    d_model: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int = 512


SIZES = {"opus-mt": Size(d_model=512, layers=6, heads=8, ffn=2048, vocabulary=58_101)}


def make(name: str, *, length: int, seed: int = 0) -> Checkpoint:
    """Return a random Marian of one of `SIZES` that translates everything into `length` tokens."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.model import PrunedMarianMTModel

    size = SIZES[name]
    pad = size.vocabulary - 1
    config = MarianConfig(
        d_model=size.d_model,
        vocab_size=size.vocabulary,
        decoder_vocab_size=size.vocabulary,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=size.ffn,
        decoder_ffn_dim=size.ffn,
        max_position_embeddings=size.positions,
        activation_function="swish",
        scale_embedding=True,
        eos_token_id=0,
        bos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=pad,
        decoder_start_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config).eval()
    model.final_logits_bias[0, config.eos_token_id] = NO_EOS
    generation = model.generation_config
    generation.bad_words_ids, generation.max_length, generation.num_beams = [[pad]], length + 1, 1
    digest = hashlib.sha256(f"{size} {length} {seed}".encode()).hexdigest()
    return Checkpoint(PrunedMarianMTModel.from_stock(model), _tokenizer(size.vocabulary), digest[:16], f"{name}-size")


def sources(count: int, length: int, vocabulary: int, *, seed: int = 0) -> list[list[int]]:
    """Return random sentences of `length` ids each, `</s>` (0) at the end; never `<unk>` (1) or `<pad>` (the last)."""
    chance = random.Random(seed)
    return [[*(chance.randrange(2, vocabulary - 1) for _ in range(length - 1)), 0] for _ in range(count)]


def _tokenizer(vocabulary: int) -> MarianTokenizer:
    """Return a tokenizer with `</s>` 0, `<unk>` 1, made-up words and `<pad>` last; it never sees real text."""
    import sentencepiece
    from transformers import MarianTokenizer

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"]),
        model_writer=trained,
        vocab_size=8,
        hard_vocab_limit=False,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    words = ["</s>", "<unk>", *(f"w{number}" for number in range(2, vocabulary - 1)), "<pad>"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("source.spm", "target.spm"):
            (folder / file).write_bytes(trained.getvalue())
        write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer", "model_max_length": 512})
        return MarianTokenizer.from_pretrained(name)
