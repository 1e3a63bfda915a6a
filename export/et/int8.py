"""Products and tables of an ExecuTorch method, fp32 or int8.

Weights are quantised at export, symmetrically per output row; inputs at run time, asymmetrically per row. XNNPACK
recognises the quantise-dequantise pairs around a `linear` and runs one integer kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

QUANTISED = torch.ops.quantized_decomposed
LOWEST, HIGHEST = -127, 127
"""Symmetric range, without -128."""


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise (rows, n) to int8 (rows, n) and scales (rows); the error is at most half a scale."""
    # Defines the operators of `QUANTISED`. Imported here because it needs ExecuTorch and takes ten seconds.
    import executorch.exir.passes._quant_patterns_and_replacements  # noqa: F401

    largest = weight.abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / HIGHEST, 1.0)
    return (weight / scale[:, None]).round().clamp(LOWEST, HIGHEST).to(torch.int8), scale


class Products(nn.Module):
    """Multiply hidden (rows, n) with several linear layers; int8 products share one quantisation of the input."""

    def __init__(self, parts: Sequence[nn.Linear], *, int8: bool) -> None:
        super().__init__()
        self.int8 = int8
        self.sizes = [part.out_features for part in parts]
        for i, part in enumerate(parts):
            weight, scale = quantise_rows(part.weight.detach()) if int8 else (part.weight.detach().clone(), None)
            self.register_buffer(f"weight_{i}", weight)
            self.register_buffer(f"bias_{i}", part.bias.detach().clone())
            if scale is not None:
                self.register_buffer(f"scale_{i}", scale)
                self.register_buffer(f"zero_{i}", torch.zeros(len(scale), dtype=torch.int64))

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        if self.int8:
            scale, zero = QUANTISED.choose_qparams_per_token_asymmetric(hidden, torch.int8)
            whole = QUANTISED.quantize_per_token(hidden, scale, zero, -128, 127, torch.int8)
            hidden = QUANTISED.dequantize_per_token(whole, scale, zero, -128, 127, torch.int8, torch.float32)
        return tuple(
            nn.functional.linear(hidden, self._weight(i), self.get_buffer(f"bias_{i}")) for i in range(len(self.sizes))
        )

    def _weight(self, i: int) -> Tensor:
        weight = self.get_buffer(f"weight_{i}")
        if not self.int8:
            return weight
        scale, zero = self.get_buffer(f"scale_{i}"), self.get_buffer(f"zero_{i}")
        found: Tensor = QUANTISED.dequantize_per_channel(weight, scale, zero, 0, LOWEST, HIGHEST, torch.int8)
        return found


class Table(nn.Module):
    """Look up rows of a matrix: ids -> (ids, n), float32."""

    rows: Tensor
    scale: Tensor

    def __init__(self, matrix: Tensor, *, int8: bool) -> None:
        super().__init__()
        self.int8 = int8
        rows, scale = quantise_rows(matrix) if int8 else (matrix, None)
        self.register_buffer("rows", rows)
        if scale is not None:
            self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        if not self.int8:
            return nn.functional.embedding(ids, self.rows)
        found: Tensor = QUANTISED.embedding_byte(self.rows, self.scale, None, LOWEST, HIGHEST, ids)
        return found
