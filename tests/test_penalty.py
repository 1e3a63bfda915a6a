"""Penalties over a model against autograd of the formula written naively."""

from __future__ import annotations

import pytest
import torch
from marians import random_plan
from torch import Tensor

from tprune.marian import PrunedMarianMTModel
from tprune.penalty import FORMULAS, over_sites, site_norms, squared_norms
from tprune.sites import sites
from tprune.surgery import cut


@pytest.fixture
def model(tiny_model) -> PrunedMarianMTModel:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    return cut(big, random_plan(big, 5))


def naive_norms(model: PrunedMarianMTModel) -> dict[str, Tensor]:
    """Line norms by the book: one concatenated row of owned weights a line."""
    norms = {}
    for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
        for i, layer in enumerate(stack.layers):
            blocks = {"self_attn": layer.self_attn} | (
                {"encoder_attn": layer.encoder_attn} if side == "decoder" else {}
            )
            for name, attention in blocks.items():
                if attention.num_heads:
                    q, k, v, o = (getattr(attention, f"{x}_proj") for x in ("q", "k", "v", "out"))
                    qk = torch.cat([q.weight, q.bias[:, None], k.weight, k.bias[:, None]], 1)
                    vo = torch.cat([v.weight, v.bias[:, None], o.weight.T], 1)
                    norms[f"{side}.layers.{i}.{name}.qk"] = qk.norm(dim=1)
                    norms[f"{side}.layers.{i}.{name}.vo"] = vo.norm(dim=1)
            if layer.fc1.out_features:
                rows = torch.cat([layer.fc1.weight, layer.fc1.bias[:, None], layer.fc2.weight.T], 1)
                norms[f"{side}.layers.{i}.ffn"] = rows.norm(dim=1)
    return norms


NAIVE = {"shs": lambda n: n.sum() ** 2 / (n**2).sum(), "group-lasso": lambda n: n.sum()}


@pytest.mark.parametrize("name", sorted(FORMULAS))
@pytest.mark.parametrize("strengths", [None, {"encoder.layers.0.ffn": 0.0, "decoder.layers.1.encoder_attn.qk": 2.5}])
def test_value_and_gradient_are_the_naive_ones(model, name: str, strengths: dict | None) -> None:
    trained = [p for p in model.parameters() if p.requires_grad and p.numel()]
    value = over_sites(model, FORMULAS[name], strengths)()
    ours = torch.autograd.grad(value, trained, allow_unused=True)
    norms = naive_norms(model)
    assert list(norms) == [place.name for place in sites(model)]
    expected = sum((strengths or {}).get(site, 1.0) * NAIVE[name](n) for site, n in norms.items())
    theirs = torch.autograd.grad(expected, trained, allow_unused=True)
    torch.testing.assert_close(value, expected)
    for parameter, mine, other in zip(trained, ours, theirs, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(zero if mine is None else mine, zero if other is None else other)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_gradcheck(name: str) -> None:
    torch.manual_seed(0)
    members = [torch.randn(5, 3), torch.randn(5), torch.randn(4, 5)]
    members = [member.double().requires_grad_() for member in members]
    assert torch.autograd.gradcheck(
        lambda *parts: FORMULAS[name](squared_norms(list(zip(parts, (0, 0, 1), strict=True)))), members
    )


def test_sites_of_strength_zero_get_no_gradient(model) -> None:
    over_sites(model, FORMULAS["shs"], {place.name: 0.0 for place in sites(model)[1:]})().backward()
    touched = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert touched and all(name.startswith(f"model.{sites(model)[0].sub_block}") for name in touched)


def test_a_model_without_sites_costs_nothing(tiny_model) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    assert float(over_sites(cut(big, random_plan(big, 0, "nothing")), FORMULAS["shs"])()) == 0


def test_site_norms_are_the_naive_ones(model) -> None:
    norms = naive_norms(model)
    for site, values in site_norms(model).items():
        assert not values.requires_grad
        torch.testing.assert_close(values, norms[site.name].detach())


def test_shs_over_the_model_does_not_see_scale(model) -> None:
    penalty = over_sites(model, FORMULAS["shs"])
    before = float(penalty().detach())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    assert float(penalty().detach()) == pytest.approx(before, rel=1e-5)
