from __future__ import annotations

import itertools
import re

import pytest
from transformers import MarianMTModel, MarianTokenizer

from tprune.base.errors import BadInput
from tprune.demo.build import MAX_TOKENS, SPLITS, VOCABULARY, build, make_corpora, make_model
from tprune.demo.journey import journey, share_done
from tprune.demo.phrases import (
    ADJECTIVES,
    THINGS,
    clock,
    date,
    euros,
    noun_phrase,
    ordinal,
    plural_phrase,
    sentence_pairs,
)
from tprune.marian import corpus
from tprune.marian.train import Recipe

ITEMS = {noun.en: noun for noun in THINGS}


@pytest.mark.parametrize(
    ("hour", "minute", "english", "german"),
    [
        (1, 0, "one o'clock", "ein Uhr"),
        (7, 0, "seven o'clock", "sieben Uhr"),
        (1, 5, "five past one", "fünf nach eins"),
        (7, 15, "quarter past seven", "Viertel nach sieben"),
        (7, 20, "twenty past seven", "zwanzig nach sieben"),
        (7, 25, "twenty-five past seven", "fünf vor halb acht"),
        (12, 30, "half past twelve", "halb eins"),
        (7, 35, "twenty-five to eight", "fünf nach halb acht"),
        (7, 40, "twenty to eight", "zwanzig vor acht"),
        (12, 45, "quarter to one", "Viertel vor eins"),
    ],
)
def test_clock_times_are_said_as_a_german_says_them(hour, minute, english, german):
    assert (clock(hour, minute).en, clock(hour, minute).nom) == (english, german)


@pytest.mark.parametrize(
    ("noun", "adjective", "definite", "nom", "acc", "dat"),
    [
        ("table", 1, True, "der alte Tisch", "den alten Tisch", "dem alten Tisch"),
        ("table", 1, False, "ein alter Tisch", "einen alten Tisch", "einem alten Tisch"),
        ("lamp", 0, True, "die rote Lampe", "die rote Lampe", "der roten Lampe"),
        ("lamp", 0, False, "eine rote Lampe", "eine rote Lampe", "einer roten Lampe"),
        ("book", 2, True, "das neue Buch", "das neue Buch", "dem neuen Buch"),
        ("book", 2, False, "ein neues Buch", "ein neues Buch", "einem neuen Buch"),
        ("ball", None, False, "ein Ball", "einen Ball", "einem Ball"),
    ],
)
def test_articles_and_adjectives_agree_in_gender_and_case(noun, adjective, definite, nom, acc, dat):
    pair = None if adjective is None else ADJECTIVES[adjective]
    phrase = noun_phrase(ITEMS[noun], pair, definite=definite)
    assert (phrase.nom, phrase.acc, phrase.dat) == (nom, acc, dat)


def test_the_other_phrases_are_inflected_too():
    assert noun_phrase(ITEMS["chair"], ADJECTIVES[1], definite=False).en == "an old chair"
    assert plural_phrase(ITEMS["coat"], ADJECTIVES[5], 21).acc == "einundzwanzig grüne Mäntel"
    assert date(3, 5).en == "the third of May"
    assert date(3, 5).dat == "dritten Mai"
    assert (ordinal(7).nom, ordinal(21).dat) == ("siebte", "einundzwanzigsten")
    assert (euros(1).nom, euros(1, 50).acc) == ("ein Euro", "einen Euro und fünfzig Cent")
    assert euros(1500).en == "one thousand five hundred euros"


def test_a_meaning_has_one_translation_only():
    pairs = set(itertools.islice(sentence_pairs(1), 5000))
    assert len({english for english, _ in pairs}) == len({german for _, german in pairs}) == len(pairs)
    for english, german in pairs:
        assert re.fullmatch(r"[A-Z][A-Za-z',\- ]+\.", english)
        assert re.fullmatch(r"[A-Z][A-Za-zäöüÄÖÜß, ]+\.", german)


@pytest.fixture(scope="module")
def corpora():
    return make_corpora(seed=3)


def test_the_splits_are_of_the_stated_size_and_disjoint(corpora):
    assert {split: len(found) for split, found in corpora.items()} == SPLITS
    for side in ("source", "target"):
        sentences = [sentence for found in corpora.values() for sentence in getattr(found, side)]
        assert len(set(sentences)) == sum(SPLITS.values())


def test_the_corpus_depends_on_the_seed_alone(corpora):
    assert {split: found.id for split, found in make_corpora(seed=3).items()} == {
        split: found.id for split, found in corpora.items()
    }
    assert make_corpora(seed=4)["test"].id != corpora["test"].id


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return build(tmp_path_factory.mktemp("demo"), seed=3, recipe=Recipe(steps=1, tokens=64, warmup=0, dropout=0.0))


def test_the_data_folder_is_read_back_as_the_same_corpora(demo, corpora):
    for split, made in corpora.items():
        assert corpus.load(demo.data, split=split).id == made.id


def test_the_tokenizer_is_a_marian_one_and_loses_nothing(demo, corpora):
    tokenizer = MarianTokenizer.from_pretrained(demo.dense)
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (0, 1, VOCABULARY - 1)
    assert len(tokenizer) == VOCABULARY
    sources = tokenizer(list(corpora["test"].source))["input_ids"]
    targets = tokenizer(text_target=list(corpora["test"].target))["input_ids"]
    for ids in (*sources, *targets):
        assert 1 not in ids
        assert ids[-1] == 0
        assert len(ids) <= MAX_TOKENS
    assert tuple(tokenizer.batch_decode(sources, skip_special_tokens=True)) == corpora["test"].source
    assert tuple(tokenizer.batch_decode(targets, skip_special_tokens=True)) == corpora["test"].target


def test_the_dense_folder_is_a_stock_marian_that_was_trained(demo):
    model = MarianMTModel.from_pretrained(demo.dense)
    fresh = make_model(VOCABULARY, seed=3)
    assert model.config.model_type == "marian"
    assert model.config.pad_token_id == model.config.decoder_start_token_id == VOCABULARY - 1
    weight = "model.encoder.layers.0.fc1.weight"
    change = (model.state_dict()[weight] - fresh.state_dict()[weight]).abs().max()
    assert 0 < change < 0.01  # one small step away from where it began
    assert not model.get_input_embeddings().weight[VOCABULARY - 1].any()  # decoding starts from a zero embedding


def test_a_folder_that_is_taken_is_refused_before_anything_is_made(demo):
    with pytest.raises(BadInput, match=r"output folder '.*data' exists and is not empty"):
        build(demo.data.parent)


def test_what_is_left_is_told_by_what_is_done(demo, tmp_path):
    calls = journey(tmp_path, demo)
    shares = [share_done(calls, number) for number in range(len(calls) + 1)]
    assert shares == sorted(set(shares))  # every call counts
    assert 0.2 < shares[0] < 0.4  # the training's
    assert shares[-1] == 1.0
