"""Translation: the same tokens as stock HuggingFace `generate`, in order, whatever the batching; nothing crashes it."""

from __future__ import annotations

import pytest
import torch
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES
from tprune.base.errors import BadInput
from tprune.marian.translate import Translation, decode, encode, generation_settings, translate

EOS, PAD, POSITIONS = 0, 111, 64


@pytest.fixture
def tokenizer(tiny_tokenizer_folder):
    return MarianTokenizer.from_pretrained(tiny_tokenizer_folder)


@pytest.fixture
def model(tiny_model):
    tiny_model.generation_config.max_length = 24
    return tiny_model


def stock(model, tokenizer, sentence, beams) -> tuple[int, ...]:
    """Return what plain HuggingFace produces for one sentence alone."""
    batch = tokenizer([sentence], return_tensors="pt")
    row = model.generate(**batch, num_beams=beams, do_sample=False)[0].tolist()
    return tuple(token for token in row[1:] if token != PAD)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_same_tokens_as_stock_generate_one_by_one(model, tokenizer, beams, batch_size):
    got = translate(model, tokenizer, SENTENCES, beams=beams, batch_size=batch_size)
    assert got.ids == tuple(stock(model, tokenizer, sentence, beams) for sentence in SENTENCES)
    assert got.truncated == 0
    assert len(set(got.ids)) > 1  # a test on identical outputs would not see a wrong order


def test_text_is_the_decoded_ids_without_special_tokens(model, tokenizer):
    got = translate(model, tokenizer, SENTENCES[:3])
    assert got.text == decode(tokenizer, got.ids)
    assert not any(mark in text for text in got.text for mark in ("</s>", "<pad>", "▁"))


def test_decoding_is_the_inverse_of_encoding(tokenizer):
    ids = tokenizer(text_target=list(SENTENCES))["input_ids"]
    assert decode(tokenizer, ids) == SENTENCES
    assert decode(tokenizer, [()]) == ("",)


def test_decoding_takes_the_target_pieces_even_with_a_joint_vocabulary(tokenizer, monkeypatch):
    ids = tokenizer(text_target=[SENTENCES[6]])["input_ids"]
    monkeypatch.setattr(tokenizer, "spm_source", None)
    assert decode(tokenizer, ids) == (SENTENCES[6],)


@pytest.mark.parametrize("beams", [1, 2])
def test_pad_is_never_produced_even_when_its_logit_wins(model, tokenizer, beams):
    model.generation_config.bad_words_ids = None  # a checkpoint whose settings forgot it
    with torch.no_grad():
        model.final_logits_bias[0, PAD] = 1e4
    got = translate(model, tokenizer, SENTENCES[:2], beams=beams)
    assert all(PAD not in row for row in got.ids)


def test_ids_end_with_eos_and_stop_there(model, tokenizer):
    with torch.no_grad():
        model.final_logits_bias[0, EOS] = 1e4
    assert translate(model, tokenizer, SENTENCES).ids == ((EOS,),) * len(SENTENCES)


def test_max_length_counts_the_start_token(model, tokenizer):
    with torch.no_grad():
        model.final_logits_bias[0, EOS] = -1e4
    assert {len(row) for row in translate(model, tokenizer, SENTENCES[:2], max_length=7).ids} == {6}
    assert {len(row) for row in translate(model, tokenizer, SENTENCES[:2], max_length=999).ids} == {POSITIONS - 1}


def test_max_new_tokens_of_a_checkpoint_is_its_length(model):
    model.generation_config.max_new_tokens = 9
    assert generation_settings(model).max_length == 10
    assert generation_settings(model, max_length=5).max_new_tokens == 4


def test_settings_keep_what_a_checkpoint_says(model):
    model.generation_config.update(length_penalty=0.6, early_stopping=True, num_beams=6, do_sample=True, max_length=500)
    settings = generation_settings(model, beams=4)
    assert (settings.num_beams, settings.do_sample, settings.max_length) == (4, False, POSITIONS)
    assert (settings.length_penalty, settings.early_stopping) == (0.6, True)
    assert settings.bad_words_ids == [[PAD]]
    assert model.generation_config.num_beams == 6  # a copy was changed


def test_a_sentence_beyond_the_positions_is_cut_and_counted(model, tokenizer):
    sentences = [SENTENCES[0], "dog " * 5000, SENTENCES[1]]
    got = translate(model, tokenizer, sentences)
    assert got.truncated == 1
    assert (got.ids[0], got.ids[2]) == translate(model, tokenizer, [SENTENCES[0], SENTENCES[1]]).ids
    rows, _ = encode(tokenizer, sentences, limit=POSITIONS)
    assert len(rows[1]) == POSITIONS
    assert rows[1][-1] == EOS


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored_even_after_a_failure(model, tokenizer, training):
    model.train(training)
    translate(model, tokenizer, SENTENCES[:1])
    assert model.training is training

    def fail(done, total):
        raise RuntimeError(f"{done} of {total}")

    with pytest.raises(RuntimeError, match="1 of 1"):
        translate(model, tokenizer, SENTENCES[:1], progress=fail)
    assert model.training is training


def test_progress_counts_up_to_the_total(model, tokenizer):
    seen = []
    translate(model, tokenizer, SENTENCES, batch_size=5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_nothing_to_translate(model, tokenizer):
    assert translate(model, tokenizer, []) == Translation((), (), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams 0 is below 1"),
        ({"batch_size": 0}, "batch size 0 is below 1"),
        ({"max_length": 1}, "max_length 1 is below 2"),
    ],
)
def test_bad_settings(model, tokenizer, settings, message):
    with pytest.raises(BadInput, match=message):
        translate(model, tokenizer, SENTENCES, **settings)


def test_shared_model_translates_as_stock_generate(shared):
    folder = shared / "models" / "marian-multi30k-en-de"
    real, words = MarianMTModel.from_pretrained(folder).eval(), MarianTokenizer.from_pretrained(folder)
    sentences = ["A man in an orange hat starring at something.", "Two dogs."]
    batch = words(sentences, return_tensors="pt", padding=True)
    expected = words.batch_decode(real.generate(**batch, num_beams=1), skip_special_tokens=True)
    assert list(translate(real, words, sentences).text) == expected
    assert expected[0] == "Ein Mann mit orangefarbenem Hut starrt auf etwas."
