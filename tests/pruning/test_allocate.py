"""From scores to a plan: within the budget, the best lines, widths in steps, nothing silently wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MarianConfig

from tests.support.marians import configs, few, full_plan, random_plan, stock
from tprune.base.errors import BadInput
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.allocate import allocate
from tprune.pruning.sites import sites
from tprune.pruning.surgery import cut, shapes

Scores = dict[str, torch.Tensor]


def random_scores(model: PrunedMarianMTModel, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {place.name: torch.rand(place.lines, generator=generator) for place in sites(model)}


def check_widths(width: int, full: int, step: int) -> None:
    assert width % step == 0 or width == full


@few
@given(configs(), st.integers(0, 100), st.floats(0.001, 1), st.sampled_from([1, 3, 8]))
def test_within_the_budget_and_in_steps(config: MarianConfig, seed: int, keep: float, round_to: int) -> None:
    model = PrunedMarianMTModel.from_stock(stock(config))
    plan = allocate(model, random_scores(model, seed), keep=keep, round_to=round_to)
    d = config.d_model
    assert plan.kept_weights(d) <= keep * full_plan(model).kept_weights(d)
    plan.check_against(shapes(model))
    for name, shape in shapes(model).items():
        if len(shape) == 1:
            check_widths(len(plan.ffn[name]), shape[0], round_to)
        else:
            check_widths(plan.attention[name].width("qk"), shape[1], round_to)
            check_widths(plan.attention[name].width("vo"), shape[2], round_to)


def test_close_to_the_budget_on_a_real_size(tiny_config) -> None:
    model = PrunedMarianMTModel.from_stock(stock(tiny_config(d_model=32, encoder_ffn_dim=128, decoder_ffn_dim=128)))
    whole = full_plan(model).kept_weights(32)
    for keep in (0.7, 0.5, 0.3):
        plan = allocate(model, random_scores(model, 1), keep=keep, round_to=4)
        assert keep - 0.05 < plan.kept_weights(32) / whole <= keep


def test_the_best_lines_stay(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    scores = random_scores(model, 7)
    plan = allocate(model, scores, keep=0.4, round_to=2)
    for name, kept in plan.ffn.items():
        gone = sorted(set(range(32)) - set(kept))
        if kept and gone:
            assert scores[name][list(kept)].min() >= scores[name][gone].max()
    for name, attention in plan.attention.items():
        both = torch.cat([scores[f"{name}.{kind}"].reshape(4, 4) for kind in ("qk", "vo")], 1).mean(1)
        gone = sorted(set(range(4)) - set(attention.heads))
        if attention.heads and gone:
            assert both[list(attention.heads)].min() >= both[gone].max()
        for kind, lines in (("qk", attention.qk), ("vo", attention.vo)):
            values = scores[f"{name}.{kind}"].reshape(4, 4)
            for head, kept in zip(attention.heads, lines, strict=True):
                assert set(values[head].topk(len(kept)).indices.tolist()) == set(kept)


def test_dead_lines_go_first(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    scores = {name: torch.ones_like(values) for name, values in random_scores(model, 0).items()}
    scores["encoder.layers.1.ffn"][:16] = 0.0
    scores["decoder.layers.0.self_attn.qk"][:] = scores["decoder.layers.0.self_attn.vo"][:] = 0.0
    whole = full_plan(model).kept_weights(16)
    dead = (16 + 2 * 16) * 2 * 16
    plan = allocate(model, scores, keep=(whole - dead) / whole, round_to=8)
    assert plan.kept_weights(16) == whole - dead
    assert plan.ffn["encoder.layers.1.ffn"] == tuple(range(16, 32))
    assert plan.attention["decoder.layers.0.self_attn"].heads == ()


def test_everything_stays_at_one(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    plan = allocate(model, random_scores(model, 0), keep=1)
    assert (plan.attention, plan.ffn) == (full_plan(model).attention, full_plan(model).ffn)
    assert plan.facts == {"keep": 1, "round_to": 8}


@pytest.mark.parametrize("round_to", [1, 8])
def test_a_budget_below_one_step_empties_the_model(tiny_model, round_to: int) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    assert allocate(model, random_scores(model, 0), keep=1e-6, round_to=round_to).kept_weights(16) == 0


def test_a_cut_model_is_pruned_again(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 3))
    again = cut(small, allocate(small, random_scores(small, 1), keep=0.5, round_to=2))
    assert 0 < full_plan(again).kept_weights(16) <= 0.5 * full_plan(small).kept_weights(16)


def test_nothing_left_to_prune(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    empty = cut(model, random_plan(model, 0, "nothing"))
    assert allocate(empty, {}, keep=0.5).kept_weights(16) == 0


@pytest.mark.parametrize("keep", [1.5, 0, -0.1, float("nan")])
def test_a_budget_out_of_range(tiny_model, keep: float) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    with pytest.raises(BadInput, match=rf"--keep {keep:g}: the share of prunable weights to keep must lie in \(0, 1\]"):
        allocate(model, {}, keep=keep)


def test_scores_that_cannot_be(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    scores = random_scores(model, 0)
    with pytest.raises(BadInput, match="--round-to 0: must be at least 1"):
        allocate(model, scores, keep=0.5, round_to=0)
    with pytest.raises(BadInput, match=r"scores of encoder.layers.0.ffn: shape \(3,\) is not \(32,\)"):
        allocate(model, scores | {"encoder.layers.0.ffn": torch.ones(3)}, keep=0.5)
    with pytest.raises(BadInput, match="scores of encoder.layers.0.ffn are not all finite"):
        allocate(model, scores | {"encoder.layers.0.ffn": torch.full((32,), torch.nan)}, keep=0.5)
