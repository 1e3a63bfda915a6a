"""The Hoyer family of sparsity measures and their gradients (DeepHoyer, Yang, Wen and Li, ICLR 2020).

    H(w)  = sum|w| / sqrt(sum w^2)            in [1, sqrt N]
    HS(w) = (sum|w|)^2 / sum w^2              in [1, N], equal to N0 for N0 equal non-zeros
    SHS   = (sum_g ||w_g||)^2 / sum_g ||w_g||^2   HS over line norms: TPrune's Structured Hoyer Square

All are invariant to the scale of w: they shrink small entries and let large entries grow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TINY = 1e-12  # keeps 0/0 finite; far below any weight that matters


def hoyer(w: Tensor) -> Tensor:
    """Return sum|w| / ||w||_2 over all elements, a scalar; 0 for an all-zero tensor."""
    return w.abs().sum() / (w.square().sum() + TINY).sqrt()


def hoyer_square(w: Tensor) -> Tensor:
    """Return (sum|w|)^2 / sum w^2 over all elements, a scalar; 0 for an all-zero tensor."""
    return hoyer(w).square()


@torch.no_grad()
def add_hoyer_gradients(tensors: Sequence[Tensor], strength: float, *, square: bool) -> None:
    """Add the gradient of `strength * hoyer(w)`, or of `hoyer_square`, to every tensor's `.grad`.

    With S1 = sum|w| and S2 = sum w^2: dH/dw = (sign(w) - w S1/S2) / sqrt(S2) and dHS/dw = 2 S1/S2 (sign(w) - w S1/S2).
    Written with few passes over memory, which cost more than the arithmetic at the size of a layer.
    """
    signs = [w.sign() for w in tensors]
    dots = [torch.dot(_flat(one, w), _flat(w, w)) for w, sign in zip(tensors, signs, strict=True) for one in (sign, w)]
    sums = torch.stack(dots).tolist()  # one synchronisation with the device
    for w, sign, s1, s2 in zip(tensors, signs, sums[::2], sums[1::2], strict=True):
        s2 += TINY
        slope = strength * (2 * s1 / s2 if square else s2**-0.5)
        gradient(w).add_(sign, alpha=slope).add_(w, alpha=-slope * s1 / s2)


def gradient(w: Tensor) -> Tensor:
    """Return `w.grad`; create it as zeros if it is None."""
    if w.grad is None:
        w.grad = torch.zeros_like(w)
    return w.grad


def _flat(tensor: Tensor, like: Tensor) -> Tensor:
    """Flatten in the memory order of `like`, so that a channels-last kernel is not copied."""
    channels_last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return (tensor.permute(0, 2, 3, 1) if channels_last else tensor).reshape(-1)


def group_hoyer_square(squared_norms: Tensor) -> Tensor:
    """Return (sum_g n_g)^2 / sum_g n_g^2 from the squared group norms n_g^2, shape (groups,); a scalar.

    The gradient of a group that is exactly zero is defined as zero (it stays dead).
    """
    norms = (squared_norms + TINY).sqrt()
    return norms.sum().square() / (squared_norms.sum() + TINY)


def group_hoyer_square_slopes(squared_norms: Tensor) -> Tensor:
    """Return the derivative of `group_hoyer_square` by each squared norm, shape (groups,)."""
    norms, whole = (squared_norms + TINY).sqrt(), squared_norms.sum() + TINY
    ratio = norms.sum() / whole
    return ratio / norms - ratio.square()


def group_lasso(squared_norms: Tensor) -> Tensor:
    """Return sum_g n_g from the squared group norms, a scalar: the penalty of BSSL."""
    return torch.sqrt(squared_norms + TINY).sum()


def group_lasso_slopes(squared_norms: Tensor) -> Tensor:
    """Return the derivative of `group_lasso` by each squared norm, shape (groups,)."""
    return 0.5 * (squared_norms + TINY).rsqrt()
