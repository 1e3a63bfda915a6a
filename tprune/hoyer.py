"""The Hoyer family of sparsity measures as pure tensor functions (DeepHoyer, Yang, Wen and Li, ICLR 2020).

    H(w)  = sum|w| / sqrt(sum w^2)            in [1, sqrt N]
    HS(w) = (sum|w|)^2 / sum w^2              in [1, N], equal to N0 for N0 equal non-zeros
    SHS   = (sum_g ||w_g||)^2 / sum_g ||w_g||^2   HS over line norms: TPrune's Structured Hoyer Square

All are invariant to the scale of w: they shrink small entries and let large ones grow, instead of shrinking all.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12  # keeps 0/0 finite; far below any weight that matters


def hoyer(w: Tensor) -> Tensor:
    """Return sum|w| / ||w||_2 over all elements, a scalar; 0 for an all-zero tensor."""
    return w.abs().sum() / (w.square().sum() + TINY).sqrt()


def hoyer_square(w: Tensor) -> Tensor:
    """Return (sum|w|)^2 / sum w^2 over all elements, a scalar; 0 for an all-zero tensor."""
    return w.abs().sum().square() / (w.square().sum() + TINY)


def group_hoyer_square(squared_norms: Tensor) -> Tensor:
    """Return (sum_g n_g)^2 / sum_g n_g^2 from the squared group norms n_g^2, shape (groups,); a scalar.

    The gradient of a group that is exactly zero is defined as zero (it stays dead).
    """
    norms = (squared_norms + TINY).sqrt()
    return norms.sum().square() / (squared_norms.sum() + TINY)


def group_lasso(squared_norms: Tensor) -> Tensor:
    """Return sum_g n_g from the squared group norms, a scalar: the penalty of BSSL."""
    return torch.sqrt(squared_norms + TINY).sum()
