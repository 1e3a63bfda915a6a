"""8-bit products and tables of an ONNX graph, in place of `FloatProduct` and `FloatTable`.

Weights are symmetric 8-bit integers, activations are quantised dynamically, sums are 32-bit, outputs are fp32. Two
operators of ONNX Runtime do this (measured with one thread, x86 with VNNI, 256 to 58,101 columns): `MatMulNBits` takes
half the time of `DynamicQuantizeMatMul` for the one row of a decoder step, and twice its time for the fourteen rows of
an encoder's sentence.

- `RowsProduct`: signed weights with one scale a column, activations with one scale a call (S8S8 on ARM). On x86 without
  VNNI two neighbouring products are added in 16 bits; unless the target has exact sums, a column's scale is so large
  that they fit. That costs a third of a bit instead of the whole bit of weights halved (`reduce_range`).
- `RowProduct`, `BlockTable`: one scale for every block of a column, weights and activations alike. Blocks lie along
  the rows of a table, so that one copy serves both the looking up and the projecting.

A product without a bias holds the negative weight and is subtracted from its addend: ONNX Runtime would fuse an
addition with the layer norm after it into `SkipLayerNormalization`, which takes 1.6 microseconds for one row where the
two take 0.95, and twenty for fourteen rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.onnx import ops

DOMAIN = "com.microsoft"
MOST = 127.0
BLOCKS = (256, 128, 64, 32, 16)  # legal for MatMulNBits; the last block of a column is padded with zeros
ZERO = 128  # zero point of unsigned storage


class RowsProduct(nn.Module):
    """states (..., in) @ weight (in, out) + addend for many tokens; see `FloatProduct`."""

    weight: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, *, exact: bool = False) -> None:
        """`exact`: all target processors sum 8-bit products exactly (see `tprune.export.targets`)."""
        super().__init__()
        scale = _scale(weight.abs().amax(0) if exact else _largest_pair(weight))
        signed = -weight if bias is None else weight
        self.register_buffer("weight", (signed / scale).round().to(torch.int8).contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int8))
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor, addend: Tensor | None = None) -> Tensor:
        inputs = [states, self.weight, self.scale, self.zero, self.bias]
        shape = (*states.shape[:-1], self.weight.shape[1])
        product = ops.symbolic(f"{DOMAIN}::DynamicQuantizeMatMul", inputs, dtype=states.dtype, shape=shape, version=1)
        return product if addend is None else addend - product


class RowProduct(nn.Module):
    """states (..., in) @ weight (in, out) + addend for one token a sentence; see `FloatProduct`."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.table = BlockTable(-weight.T if bias is None else weight.T)
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor, addend: Tensor | None = None) -> Tensor:
        product = self.table.project(states, self.bias)
        return product if addend is None else addend - product


class BlockTable(nn.Module):
    """A table (rows, width) in blocks: integers (rows, blocks, block), fp32 scales (rows, blocks)."""

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, self.width = weight.shape
        self.block = best_block(self.width)
        blocks = -(-self.width // self.block)
        padded = nn.functional.pad(weight, (0, blocks * self.block - self.width)).view(rows, blocks, self.block)
        scales = _scale(padded.abs().amax(2))
        self.register_buffer("weight", ((padded / scales[:, :, None]).round() + ZERO).to(torch.uint8))
        self.register_buffer("scales", scales)

    def look_up(self, ids: Tensor) -> Tensor:
        """Return the rows (ids' shape, width)."""
        flat = ids.flatten()
        rows = ops.symbolic(
            f"{DOMAIN}::GatherBlockQuantized",
            [self.weight, flat, self.scales[:, :, None]],
            {"bits": 8, "block_size": self.block, "gather_axis": 0, "quantize_axis": 2},
            dtype=self.scales.dtype,
            shape=(flat.shape[0], *self.weight.shape[1:]),
            version=1,
        )
        return rows.reshape(*ids.shape, -1)[..., : self.width]

    def project(self, states: Tensor, bias: Tensor | None) -> Tensor:
        """Return states (..., width) @ weight.T + bias: (..., rows)."""
        rows = len(self.weight)
        return ops.symbolic(
            f"{DOMAIN}::MatMulNBits",
            [states, self.weight, self.scales, None, None, bias],
            # accuracy_level 4 allows int8 activations
            {"K": self.width, "N": rows, "bits": 8, "block_size": self.block, "accuracy_level": 4},
            dtype=states.dtype,
            shape=(*states.shape[:-1], rows),
            version=1,
        )


def best_block(width: int) -> int:
    """Return the block that stores `width` numbers in the fewest bytes, scales and padding included."""
    return min(BLOCKS, key=lambda block: -(-width // block) * (block + 4))


def _largest_pair(weight: Tensor) -> Tensor:
    """Return, per column of (in, out), the largest sum of two neighbouring weights of one sign, as a magnitude.

    In steps of a 127th of it, two weights that are rounded up have a sum of at most 128 = `targets.PAIR`.
    """
    pairs = nn.functional.pad(weight, (0, 0, 0, len(weight) % 2)).unflatten(0, (-1, 2))
    return torch.maximum(pairs.clamp(min=0.0).sum(1), (-pairs).clamp(min=0.0).sum(1)).amax(0)


def _scale(largest: Tensor) -> Tensor:
    """Return the value of one integer step; 1 where all is zero."""
    step = largest / MOST  # underflows to 0 for tiny `largest`
    return torch.where(step > 0, step, torch.ones_like(step))
