"""The demo's ingredients: a corpus with exact references, a tokeniser trained on it, and a tiny Marian.

    demo = build("demo")  # demo.data and demo.dense, in about a minute

Everything is made here from a seed; nothing is downloaded.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tprune.base.stamp import check_vacant, new_folder, write_json, write_text
from tprune.demo.journey import Demo
from tprune.demo.phrases import sentence_pairs
from tprune.marian.corpus import Corpus, Pairs, tokenise
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.recipe import Recipe
from tprune.marian.train import Watch, train

SPLITS = {"train": 12_000, "val": 300, "test": 300}
VOCABULARY = 800
WIDTH = 96
HEADS = 4
MAX_TOKENS = 64  # the grammar's longest sentence has fewer pieces
RECIPE = Recipe(steps=800, lr=3e-3, warmup=80, tokens=512, dropout=0.0)


def build(out: Path | str, *, seed: int = 0, recipe: Recipe = RECIPE, watch: Watch | None = None) -> Demo:
    """Write the corpus to `out/data` and a Marian trained on it to `out/dense`, a folder as the hub has them.

    `watch` is called after every training step. Raises BadInput when one of the folders exists and is not empty.
    """
    demo = Demo(check_vacant(Path(out) / "data"), check_vacant(Path(out) / "dense"))
    corpora = make_corpora(seed)
    with new_folder(demo.data) as data, new_folder(demo.dense) as dense:  # both or neither
        write_corpora(corpora.values(), data)
        write_tokenizer([*corpora["train"].source, *corpora["train"].target], dense)
        tokenizer = MarianTokenizer.from_pretrained(dense)
        model = make_model(len(tokenizer), seed=seed)
        pairs = tokenise(corpora["train"], tokenizer, MAX_TOKENS)
        fit(model, pairs, replace(recipe, seed=seed), watch=watch)
        model.save_pretrained(dense)
    return demo


def fit(model: MarianMTModel, pairs: Pairs, recipe: Recipe, *, watch: Watch | None = None) -> None:
    """Train a stock Marian in place with `tprune.marian.train`, through a `PrunedMarianMTModel` of full sizes."""
    working = PrunedMarianMTModel.from_stock(model)
    train(working, pairs, recipe, watch=watch)
    model.load_state_dict(working.state_dict())
    model.eval()


def make_corpora(seed: int = 0) -> dict[str, Corpus]:
    """Return the splits train, val and test, English to German; no sentence occurs twice, in one or across them."""
    stream = _distinct(seed)
    corpora = {}
    for split, size in SPLITS.items():
        source, target = zip(*(next(stream) for _ in range(size)), strict=True)
        corpora[split] = Corpus(source, target, name="demo", split=split, language="de")
    return corpora


def _distinct(seed: int) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for pair in sentence_pairs(seed):
        if seen.isdisjoint(pair):
            seen.update(pair)
            yield pair


def write_corpora(corpora: Iterable[Corpus], folder: Path | str) -> None:
    """Write each corpus as `SPLIT.en` and `SPLIT.de`, one sentence a line."""
    for corpus in corpora:
        for language, lines in (("en", corpus.source), ("de", corpus.target)):
            write_text(Path(folder) / f"{corpus.split}.{language}", "".join(f"{line}\n" for line in lines))


def write_tokenizer(sentences: Iterable[str], folder: Path | str, *, vocabulary: int = VOCABULARY) -> None:
    """Train a SentencePiece unigram model for both languages and write it as a MarianTokenizer folder.

    `vocabulary` counts every entry: `</s>` is 0, `<unk>` is 1 and `<pad>` the last, as in published Marians.
    """
    folder, trained = Path(folder), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=trained,
        vocab_size=vocabulary - 1,  # <pad> is ours, not SentencePiece's
        character_coverage=1.0,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        num_threads=1,  # more would sum in another order from run to run
        minloglevel=2,
    )
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(trained.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    ids = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    write_json(folder / "vocab.json", ids | {"<pad>": len(pieces)})
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": MAX_TOKENS})


def make_model(vocabulary: int, *, seed: int = 0) -> MarianMTModel:
    """Return an untrained Marian of 2 + 2 layers whose special ids fit `write_tokenizer`'s vocabulary."""
    pad = vocabulary - 1
    config = MarianConfig(
        vocab_size=vocabulary,
        decoder_vocab_size=vocabulary,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        activation_function="swish",
        scale_embedding=True,
        max_position_embeddings=MAX_TOKENS,
        init_std=WIDTH**-0.5,  # word vectors as long as the positions': it learns to align in a third of the steps
        dropout=0.0,  # so short a training never sees a sentence often enough to overfit
        attention_dropout=0.0,
        activation_dropout=0.0,
        eos_token_id=0,
        bos_token_id=0,
        forced_eos_token_id=0,
        pad_token_id=pad,
        decoder_start_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
    generation = model.generation_config
    generation.bad_words_ids, generation.max_length, generation.num_beams = [[pad]], MAX_TOKENS, 1
    return model
