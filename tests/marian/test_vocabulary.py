"""A trimmed vocabulary: the same translations in every tool, and a smaller matrix in the artefact."""

from __future__ import annotations

import pytest
import torch
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tprune.base.errors import BadInput
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import kept_ids, trim


@pytest.fixture
def dense(tiny_config, tiny_tokenizer_folder):
    tiny_model = randomised(MarianMTModel(tiny_config(encoder_layers=1, decoder_layers=1)))
    tiny_model.generation_config.max_length = 12
    tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    return Checkpoint(PrunedMarianMTModel.from_stock(tiny_model), tokenizer, id="0" * 16, name="tiny")


def test_only_used_and_special_tokens_stay(dense):
    small = trim(dense, [[5, 9, 0], [7, 5, 0]])
    assert kept_ids(small.model) == [0, 1, 5, 7, 9, 111]  # </s>, <unk>, the used ones, <pad>
    assert len(kept_ids(dense.model)) == 112
    saved = count(dense.model).macs - count(small.model).macs
    assert saved == 16 * 16 * (112 - 6)  # target tokens * d_model * dropped rows
    assert (small.name, small.facts["criterion"], small.id) != (dense.name, "vocabulary", dense.id)


def test_dropped_tokens_never_win(dense):
    source = torch.tensor([[3, 8, 0], [4, 0, 111]])
    before = dense.model.generate(source, num_beams=1, max_length=10)
    unwanted = next(int(i) for i in before[0, 1:] if i not in (0, 1, 111))
    small = trim(dense, [[i for i in range(2, 111) if i != unwanted]])
    assert unwanted not in small.model.generate(source, num_beams=1, max_length=10)


def test_the_artefact_has_fewer_rows_and_the_same_translations(dense, tmp_path):
    small = trim(dense, [list(range(0, 90, 2))])
    manifest = to_onnx(small, tmp_path / "small", sentences=SENTENCES[:3])  # parity with PyTorch is part of it
    assert manifest.output_ids == tuple(kept_ids(small.model))
    assert manifest.tensors["decoder_step"].outputs[0].shape == ("batch", len(manifest.output_ids))
    artefact = runtime.open(tmp_path / "small")
    ids = dense.tokenizer(SENTENCES[0])["input_ids"]
    assert set(artefact.greedy(ids).ids) <= set(manifest.output_ids)
    assert artefact.translate([ids])[0] == artefact.greedy(ids).ids
    assert artefact.beam(ids, 1) == artefact.greedy(ids).ids


@pytest.mark.parametrize("targets", [[], [[112]]])
def test_refuses_what_is_no_target(dense, targets):
    with pytest.raises(BadInput, match="cannot trim a vocabulary of 112"):
        trim(dense, targets)
