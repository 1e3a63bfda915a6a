"""A penalty that is decoupled from the optimiser, like AdamW's weight decay, and uses Adam's metric.

Adam divides every gradient by its own size, so a penalty in the loss would lose its selectivity: under Structured Hoyer
Square, a line far below the others and one just above them would move at the same speed. Here the optimiser sees only
the task loss; after its step every line is rescaled by a proximal step in the metric of the optimiser (Yun, Lozano and
Yang, NeurIPS 2021). With d_g the root mean square of Adam's second moment over line g, relative to that over the
model, a line's weight is

    m_g = ||w_g|| d_g / median over the model        (its size, times the sensitivity of the loss to it)

and the step for a formula F of these weights, per site, is

    m_g <- max(0, m_g - strength * dF/dm_g)        w_g <- w_g * (new m_g / old m_g)

For group lasso (dF/dm = 1) this is soft thresholding of the lines. For SHS with S = sum m and Q = sum m^2,
dF/dm_g = 2 S/Q (1 - m_g S/Q): lines below Q/S shrink, weaker ones faster, and lines above it stay unchanged (the
formula would let them grow, which changes nothing in a scale-free measure but disturbs the network).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.sites import Site, line_sums, site_parameters, sites

Formula = Callable[[Tensor], Tensor]  # squared line weights (lines,) -> scalar


class Decoupled:
    """A callable (strength) that rescales the lines of every site of `model` once, in place."""

    def __init__(
        self, model: PrunedMarianMTModel, formula: Formula, factors: Mapping[str, float] | None = None
    ) -> None:
        """`factors` multiply the strength per site (default 1)."""
        self.formula = formula
        self.places: list[tuple[Site, list[tuple[nn.Parameter, int]]]] = [
            (site, site_parameters(model, site)) for site in sites(model)
        ]
        self.factors = factors or {}
        self.costs: list[Tensor] = []  # per site, d_g of every line at the last look, each (lines,)
        self.memory: dict[str, float] = {}  # "unit": the median of ||w_g|| d_g at the first look; survives a resume

    def __call__(self, strength: float) -> None:
        """Take one step of size `strength`; does nothing before the first `look`."""
        if not strength or not self.costs:
            return
        for (site, members), weight in zip(self.places, self.weights(), strict=True):
            slope = self._slope(weight)
            shrunk = (weight - strength * self.factors.get(site.name, 1.0) * slope).clamp_min(0)
            ratio = (shrunk / weight.clamp_min(1e-12)).clamp_max(1)
            with torch.no_grad():
                for parameter, dim in members:
                    parameter.mul_(ratio if parameter.dim() == 1 else ratio.unsqueeze(1 - dim))

    @torch.no_grad()
    def look(self, optimiser: torch.optim.Optimizer) -> None:
        """Read d_g of every line from Adam's second moment; does nothing before the optimiser's first step."""
        if not optimiser.state or not self.places:
            return
        found = []
        for site, members in self.places:
            # weights without gradient (an encoder that no cross-attention reads) have no moments: cost 0
            moments = [(optimiser.state[p].get("exp_avg_sq", torch.zeros_like(p)), dim) for p, dim in members]
            elements = sum(p.numel() for p, _ in members) / site.lines
            found.append((line_sums(moments, torch.clone) / elements).sqrt())
        mean = float(torch.cat(found).square().mean().sqrt()) or 1.0  # the scale of all gradients together is no cost
        self.costs = [cost / mean for cost in found]
        if "unit" not in self.memory:
            self.memory["unit"] = float(torch.cat(self.weights(unit=1.0)).median()) or 1.0

    @torch.no_grad()
    def weights(self, unit: float | None = None) -> list[Tensor]:
        """Return m_g of every line, per site, each (lines,)."""
        return [
            line_sums(members, torch.square).sqrt() * cost / (unit or self.memory["unit"])
            for (_, members), cost in zip(self.places, self.costs, strict=True)
        ]

    def scores(self) -> dict[str, Tensor]:
        """Return m_g by site name; the cut ranks the lines by it."""
        return {site.name: weight for (site, _), weight in zip(self.places, self.weights(), strict=True)}

    def _slope(self, weight: Tensor) -> Tensor:
        """Return dF/dm for every line."""
        m = weight.detach().clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.formula(m.square()), m)
        return slope
