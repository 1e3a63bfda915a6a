"""A penalty applied beside the optimiser instead of through it, as AdamW does with weight decay.

Adam divides every gradient by its own size. A penalty in the loss would lose what makes it selective: under Structured
Hoyer Square a line far below the others and one just above them would move at the same speed. So the optimiser sees
the task alone, and after its step every line is rescaled by the penalty's own gradient. With the relative norms
r_g = ||w_g|| / scale of a site and a formula F:

    r_g <- max(0, r_g - strength * dF/dr_g)        w_g <- w_g * (new r_g / old r_g)

For group lasso (dF/dr = 1) this is its proximal operator, soft thresholding of the lines. For SHS with S = sum r and
Q = sum r^2, dF/dr_g = 2 S/Q (1 - r_g S/Q): lines below Q/S shrink and lines above it grow.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tprune.marian import PrunedMarianMTModel
from tprune.penalty import Formula, squared_norms
from tprune.sites import site_parameters, sites


class Decoupled:
    """Callable (strength) -> None that rescales the lines of every site of `model` once, in place."""

    def __init__(
        self,
        model: PrunedMarianMTModel,
        formula: Formula,
        scales: Mapping[str, float],
        factors: Mapping[str, float] | None = None,
    ) -> None:
        """`scales` give each site's typical line norm; `factors` multiply the strength per site (default 1)."""
        self.formula = formula
        self.places = [
            (site_parameters(model, site), scales[site.name], (factors or {}).get(site.name, 1.0))
            for site in sites(model)
        ]

    def __call__(self, strength: float) -> None:
        """Take one step of size `strength` (relative norm per unit of gradient)."""
        for members, scale, factor in self.places:
            with torch.no_grad():
                relative = squared_norms(members).sqrt() / scale
            shrunk = (relative - strength * factor * self._slope(relative)).clamp_min(0)
            ratio = shrunk / relative.clamp_min(1e-12)
            with torch.no_grad():
                for parameter, dim in members:
                    parameter.mul_(ratio if parameter.dim() == 1 else ratio.unsqueeze(1 - dim))

    def _slope(self, relative: Tensor) -> Tensor:
        """Return dF/dr for every line; zero for a line that is exactly zero."""
        r = relative.detach().clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.formula(r.square()), r)
        return slope
