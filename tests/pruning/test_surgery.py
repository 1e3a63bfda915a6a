"""Cutting is exact: masked == cut == expanded, for any Marian and any plan; and the size is what the plan says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MarianConfig, MarianMTModel

from tests.support.marians import PLANS, configs, few, full_plan, generated, inputs, logits, random_plan, stock
from tprune.base.errors import BadInput
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.plan import Plan
from tprune.pruning.surgery import cut, expand, mask, shapes

seeds, kinds = st.integers(0, 10_000), st.sampled_from(PLANS)


def parameters(model: MarianMTModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_same(ours: MarianMTModel, theirs: MarianMTModel) -> None:
    """In float32 as it is used, and in float64, where there is no rounding to hide behind. Converts both."""
    batch = inputs(theirs.config)
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-5, rtol=1e-5)
    assert generated(ours, batch) == generated(theirs, batch)
    torch.testing.assert_close(logits(ours.double(), batch), logits(theirs.double(), batch), atol=1e-10, rtol=0)
    ours.float()
    theirs.float()


@few
@given(configs(), seeds, kinds)
def test_cut_is_masked(config: MarianConfig, seed: int, kind: str) -> None:
    big = PrunedMarianMTModel.from_stock(stock(config, seed))
    plan = random_plan(big, seed, kind)
    small = cut(big, plan)
    check_same(small, mask(big, plan))
    d = config.d_model
    assert parameters(small) == parameters(big) - full_plan(big).parameters(d) + plan.parameters(d)
    assert parameters(big) == parameters(stock(config))


@few
@given(configs(), seeds, kinds)
def test_expand_is_a_stock_marian(config: MarianConfig, seed: int, kind: str) -> None:
    big = PrunedMarianMTModel.from_stock(stock(config, seed))
    plan = random_plan(big, seed, kind)
    wide = expand(cut(big, plan))
    assert type(wide) is MarianMTModel
    assert wide.config.to_dict() == stock(config).config.to_dict() | {"architectures": wide.config.architectures}
    check_same(wide, mask(big, plan))
    assert parameters(wide) == parameters(big)
    check_same(PrunedMarianMTModel.from_stock(wide), wide)


@few
@given(configs(), seeds, kinds)
def test_a_cut_model_can_be_cut_again(config: MarianConfig, seed: int, kind: str) -> None:
    once = cut(big := PrunedMarianMTModel.from_stock(stock(config, seed)), random_plan(big, seed))
    plan = random_plan(once, seed + 1, kind)
    twice = cut(once, plan)
    check_same(twice, mask(once, plan))
    check_same(expand(twice), twice)
    d = config.d_model
    assert parameters(twice) == parameters(once) - full_plan(once).parameters(d) + plan.parameters(d)


def test_the_full_plan_changes_nothing(tiny_model) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    same = cut(big, full_plan(big))
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in big.state_dict().items())


def test_cutting_and_masking_leave_the_model_alone(tiny_model) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    before = {name: tensor.clone() for name, tensor in big.state_dict().items()}
    plan = random_plan(big, 1)
    for small in (cut(big, plan), mask(big, plan), expand(big)):
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in big.state_dict().items())


def test_mode_dtype_and_generation_settings_move_along(tiny_model) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model).double().train()
    big.generation_config.max_length = 7
    small = cut(big, random_plan(big, 2))
    for model in (small, expand(small)):
        assert model.training
        assert model.dtype == torch.float64
        assert model.generation_config.max_length == 7
    small.generation_config.max_length = 9
    assert big.generation_config.max_length == 7


def test_shapes_of_a_cut_model_are_the_plans(tiny_model) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    assert shapes(big)["decoder.layers.1.encoder_attn"] == (4, 4, 4)
    plan = random_plan(big, 3)
    of = shapes(cut(big, plan))
    for name, attention in plan.attention.items():
        assert of[name] == (len(attention.heads), attention.width("qk"), attention.width("vo"))
    assert {name: of[name] for name in plan.ffn} == {name: (len(kept),) for name, kept in plan.ffn.items()}


@pytest.mark.parametrize("act", [cut, mask])
def test_a_plan_of_another_model(tiny_model, act) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    plan = full_plan(big)
    alien = Plan(plan.attention, {**plan.ffn, "encoder.layers.0.ffn": (0, 32)})
    with pytest.raises(BadInput, match=r"encoder.layers.0.ffn: line 32 is not below width 32"):
        act(big, alien)
