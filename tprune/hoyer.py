"""The Hoyer family of sparsity measures as pure tensor functions (DeepHoyer, Yang, Wen and Li, ICLR 2020).

    H(w)  = sum|w| / sqrt(sum w^2)            in [1, sqrt N]
    HS(w) = (sum|w|)^2 / sum w^2              in [1, N], equal to N0 for N0 equal non-zeros
    SHS   = (sum_g ||w_g||)^2 / sum_g ||w_g||^2   HS over line norms: TPrune's Structured Hoyer Square

All are invariant to the scale of w: they shrink small entries and let large ones grow, instead of shrinking all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TINY = 1e-12  # keeps 0/0 finite; far below any weight that matters


def hoyer(w: Tensor) -> Tensor:
    """Return sum|w| / ||w||_2 over all elements, a scalar; 0 for an all-zero tensor."""
    return hoyers([w])[0]


def hoyer_square(w: Tensor) -> Tensor:
    """Return (sum|w|)^2 / sum w^2 over all elements, a scalar; 0 for an all-zero tensor."""
    return hoyer(w).square()


def hoyers(tensors: Sequence[Tensor]) -> Tensor:
    """Return `hoyer` of every tensor, shape (tensors,), for the price of little more than reading them."""
    return _Hoyers.apply(*tensors)


class _Hoyers(torch.autograd.Function):
    """H(w) with its gradient in closed form, S1 = sum|w| and S2 = sum w^2: dH/dw = (sign(w) - w S1/S2) / sqrt(S2).

    The gradient is made in the memory of the signs: at the size of a layer, fresh memory costs more than arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.signs = [w.sign() for w in tensors]
        s1 = torch.stack([torch.dot(_flat(sign), _flat(w)) for sign, w in zip(ctx.signs, tensors, strict=True)])
        s2 = torch.stack([torch.dot(_flat(w), _flat(w)) for w in tensors]).add_(TINY)
        ctx.save_for_backward(s1, s2, *tensors)
        return s1 / s2.sqrt()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        s1, s2, *tensors = ctx.saved_tensors
        slopes, signs = grad / s2.sqrt(), ctx.signs or [w.sign() for w in tensors]
        pulls = slopes * s1 / s2
        for w, sign, slope, pull in zip(tensors, signs, slopes.unbind(), pulls.unbind(), strict=True):
            sign.mul_(slope).addcmul_(w, pull, value=-1)
        ctx.signs = None  # they are no signs any more
        return tuple(signs)


def _flat(w: Tensor) -> Tensor:
    """All elements of w in the order in which they lie in memory, so that a channels-last kernel is not copied."""
    channels_last = w.ndim == 4 and w.is_contiguous(memory_format=torch.channels_last)
    return (w.permute(0, 2, 3, 1) if channels_last else w).reshape(-1)


def group_hoyer_square(squared_norms: Tensor) -> Tensor:
    """Return (sum_g n_g)^2 / sum_g n_g^2 from the squared group norms n_g^2, shape (groups,); a scalar.

    The gradient of a group that is exactly zero is defined as zero (it stays dead).
    """
    norms = (squared_norms + TINY).sqrt()
    return norms.sum().square() / (squared_norms.sum() + TINY)


def group_lasso(squared_norms: Tensor) -> Tensor:
    """Return sum_g n_g from the squared group norms, a scalar: the penalty of BSSL."""
    return torch.sqrt(squared_norms + TINY).sum()
