"""Penalties over a model: a formula of line norms, summed over sites with a strength of its own for each.

    penalty = sum_sites strength[site] * formula(||w_g||^2 for the lines g of the site)

A site's gradient is small work beside the model's, but twenty sites of three matrices each are sixty little graphs; so
each site's norms are one autograd function with the gradient written out: d||w_g||^2 / dw = 2 w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tprune.hoyer import group_hoyer_square, group_lasso
from tprune.marian import PrunedMarianMTModel
from tprune.sites import Site, line_sums, site_parameters, sites

Formula = Callable[[Tensor], Tensor]  # squared line norms (lines,) -> scalar

FORMULAS: dict[str, Formula] = {"shs": group_hoyer_square, "group-lasso": group_lasso}


class _SquaredNorms(torch.autograd.Function):
    """Squared norms of the lines of one site, from all its parameters at once."""

    @staticmethod
    def forward(ctx: Any, dims: tuple[int, ...], *parameters: Tensor) -> Tensor:
        ctx.dims = dims
        ctx.save_for_backward(*parameters)
        return line_sums(list(zip(parameters, dims, strict=True)), torch.square)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        scale = 2 * gradients[0]
        return None, *(
            p * (scale if p.dim() == 1 else scale.unsqueeze(1 - dim))
            for p, dim in zip(ctx.saved_tensors, ctx.dims, strict=True)
        )


def squared_norms(members: Sequence[tuple[nn.Parameter, int]]) -> Tensor:
    """Return ||w_g||^2 per line, differentiable, shape (lines,)."""
    parameters, dims = zip(*members, strict=True)
    return _SquaredNorms.apply(dims, *parameters)


def over_sites(
    model: PrunedMarianMTModel, formula: Formula, strengths: Mapping[str, float] | None = None
) -> Callable[[], Tensor]:
    """Return `penalty() -> scalar` over the sites of `model`; `strengths` maps a site's name to its weight (default 1).

    Sites of strength 0 cost nothing.
    """
    terms = [
        (float((strengths or {}).get(site.name, 1.0)), site_parameters(model, site))
        for site in sites(model)
        if (strengths or {}).get(site.name, 1.0)
    ]

    def penalty() -> Tensor:
        total = torch.zeros(())
        for strength, members in terms:
            total = total + strength * formula(squared_norms(members))
        return total

    return penalty


def site_norms(model: PrunedMarianMTModel) -> dict[Site, Tensor]:
    """Return the line norms of every site, without gradients. Each tensor (lines,)."""
    with torch.no_grad():
        return {site: squared_norms(site_parameters(model, site)).sqrt() for site in sites(model)}
