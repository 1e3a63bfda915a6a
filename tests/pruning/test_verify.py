"""The proof that a cut model is the masked one: it passes where that is so and fails at the smallest tampering."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.support.marians import PLANS, random_plan, stock
from tprune.base.errors import BadInput, WorkFailed
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.surgery import cut, expand, mask
from tprune.pruning.verify import SENTENCES, TOLERANCE, Verdict, require, verify


@pytest.fixture
def big(tiny_config) -> PrunedMarianMTModel:
    return PrunedMarianMTModel.from_stock(stock(tiny_config()))


@pytest.mark.parametrize("kind", sorted(set(PLANS)))
def test_a_cut_model_is_its_masked_original_and_its_expansion(big, kind: str) -> None:
    plan = random_plan(big, 3, kind)
    small = cut(big, plan)
    for verdict in (verify(small), verify(small, mask(big, plan)), verify(small, expand(small))):
        assert verdict.passed
        assert verdict.max_abs_logit_diff <= TOLERANCE
        assert verdict.identical == verdict.sentences == SENTENCES
        require(verdict, "small")


@pytest.mark.parametrize(
    "name",
    [
        "model.encoder.layers.0.self_attn.out_proj.bias",
        "model.decoder.layers.1.encoder_attn_layer_norm.weight",
        "model.decoder.layers.0.fc2.bias",
        "final_logits_bias",
    ],
)
def test_a_tampered_model_is_found_out(big, name: str) -> None:
    plan = random_plan(big, 3)
    small = cut(big, plan)
    with torch.no_grad():
        small.state_dict()[name].view(-1)[1] += 1e-3
    verdict = verify(small, mask(big, plan))
    assert not verdict.passed
    assert verdict.max_abs_logit_diff > TOLERANCE
    with pytest.raises(
        WorkFailed, match=r"small: the cut model differs from the masked one \(logits by .*tolerance 1e-"
    ):
        require(verdict, "small")


def test_another_plan_is_another_model(big) -> None:
    verdict = verify(cut(big, random_plan(big, 3)), mask(big, random_plan(big, 4)))
    assert verdict.identical < verdict.sentences
    with pytest.raises(WorkFailed, match=rf"{verdict.identical} of {SENTENCES} greedy translations identical"):
        require(verdict, "small")


def test_one_other_translation_is_enough_to_fail() -> None:
    assert Verdict(TOLERANCE, SENTENCES, SENTENCES).passed
    assert not Verdict(0.0, SENTENCES - 1, SENTENCES).passed
    assert not Verdict(2 * TOLERANCE, SENTENCES, SENTENCES).passed
    assert not Verdict(float("nan"), SENTENCES, SENTENCES).passed


def test_the_models_are_left_as_they_were(big) -> None:
    plan = random_plan(big, 3)
    small, reference = cut(big, plan), mask(big, plan)
    before = [copy.deepcopy(network.state_dict()) for network in (small, reference)]
    small.train()
    verify(small, reference)
    assert small.training
    for network, state in zip((small, reference), before, strict=True):
        for name, tensor in network.state_dict().items():
            assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name])


def test_the_trial_follows_the_seed(big) -> None:
    small, other = cut(big, random_plan(big, 3)), mask(big, random_plan(big, 4))
    first, again, another = (verify(small, other, seed=seed).max_abs_logit_diff for seed in (1, 1, 2))
    assert first == again != another


def test_models_of_different_vocabularies_are_not_compared(big, tiny_config) -> None:
    other = stock(tiny_config(vocab_size=60, decoder_vocab_size=60))
    with pytest.raises(BadInput, match=r"vocabularies of 112 and 60 pieces are not one model's"):
        verify(cut(big, random_plan(big, 3)), other)
