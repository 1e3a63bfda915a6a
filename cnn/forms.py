"""The forms that training gives a convolution: by its singular vectors and values, or by a shared kernel basis.

Both compose the kernel from their factors and run one ordinary convolution. That is the same function as running the
factors one after the other, at about the dense layer's cost: full-rank factors would be up to twice as many products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SCHEMES = ("channel", "spatial")


class SvdConv2d(nn.Module):
    """A convolution W = second · diag(|scale|) · first of `rank` singular values (SVD training, section 3).

    channel: first (rank, inputs, k, k), second (outputs, rank, 1, 1): W as an outputs x (inputs k k) matrix.
    spatial: first (rank, inputs, k, 1), second (outputs, rank, 1, k): W as an (outputs k) x (inputs k) matrix.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        rank: int,
        *,
        scheme: str,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.rank, self.scheme = inputs, outputs, rank, scheme
        self.kernel, self.stride, self.padding = (_two(one) for one in (kernel, stride, padding))
        (height, width), spatial = self.kernel, scheme == "spatial"
        self.first = nn.Parameter(torch.empty(rank, inputs, height, 1 if spatial else width))
        self.second = nn.Parameter(torch.empty(outputs, rank, 1, width if spatial else 1))
        self.scale = nn.Parameter(torch.empty(rank))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def weight(self) -> Tensor:
        """Return the composed kernel (outputs, inputs, k, k) in full precision."""
        with torch.autocast(self.scale.device.type, enabled=False):
            second = self.second * self.scale.abs()[:, None, None]
            if self.scheme == "channel":
                return (second.flatten(1) @ self.first.flatten(1)).view(self.outputs, self.inputs, *self.kernel)
            return torch.einsum("orx,riy->oiyx", second[:, :, 0, :], self.first[..., 0])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) as the convolution with `weight()` does."""
        return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding)

    def about(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        geometry = {"kernel": list(self.kernel), "stride": list(self.stride), "padding": list(self.padding)}
        return {
            "inputs": self.inputs, "outputs": self.outputs, "rank": self.rank, "scheme": self.scheme, **geometry,
            "bias": self.bias is not None,
        }  # fmt: skip


class BasisConv2d(nn.Module):
    """A convolution whose kernels are combinations of `bases` kernels that the layer shares (PENNI, section 3.1).

    W[o, i] = sum_b coefficients[o, i, b] · basis[b], with coefficients (outputs, inputs, bases), basis (bases, k, k).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        bases: int,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.bases = inputs, outputs, bases
        self.kernel, self.stride, self.padding = (_two(one) for one in (kernel, stride, padding))
        self.basis = nn.Parameter(torch.empty(bases, *self.kernel))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, bases))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def weight(self) -> Tensor:
        """Return the composed kernel (outputs, inputs, k, k) in full precision."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return (self.coefficients @ self.basis.flatten(1)).view(self.outputs, self.inputs, *self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) as the convolution with `weight()` does."""
        return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding)

    def about(self) -> dict[str, Any]:
        """Return what rebuilds this layer."""
        geometry = {"kernel": list(self.kernel), "stride": list(self.stride), "padding": list(self.padding)}
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "bases": self.bases}
        return {**sizes, **geometry, "bias": self.bias is not None}


def _two(one: Sequence[int]) -> tuple[int, int]:
    return (int(one[0]), int(one[1]))
