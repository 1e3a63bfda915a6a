"""The modules that become the methods of an ExecuTorch program: batch 1, in a form that is fast with XNNPACK.

Reasons for shapes and orders (measured on an x86 server, where an operator costs 0.1 to 0.3 microseconds at any size, a
call of XNNPACK 0.2 more, and 65,536 weights 3 microseconds as fp32 and 0.9 as int8):

- The caller owns the cache: a step takes the rows so far and returns the new one, so nothing is copied back. Time comes
  before heads, so that a caller with room for the longest sentence can pass a prefix: work grows with the sentence and
  not with the limit. A penalty masks rows beyond the position.
- Keys are transposed before the product: XNNPACK packs the second operand anyway.
- Layer norm stays `native_layer_norm`, an optimised kernel of 0.3 microseconds; delegated, it would be eight operators.
- Q, K and V are three products: as one, they would have to be sliced apart. As int8 they share one quantised input.

An empty sub-block is its output bias, which vanishes into the layer norm (or the position table) before it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianMTModel

from tprune.export.et.int8 import Products, Table
from tprune.export.graphs.parts import (
    Part,
    embed_scale,
    head_count,
    position_table,
    scaled_table,
    state_widths,
    table_order,
)
from tprune.export.graphs.ports import Port
from tprune.export.graphs.precision import FP32, Precision
from tprune.export.manifest import Limits
from tprune.marian.vocabulary import NEVER, kept_ids


class EncoderMethod(nn.Module):
    """input_ids (1, source) int64 -> keys (1, heads, Q/K width, source), values (1, heads, source, V width) per layer.

    A decoder layer without cross-attention has none; where no layer has any, there is one output of no use, `mask`.
    """

    places: Tensor
    numbers: Tensor

    def __init__(self, model: MarianMTModel, precision: Precision = FP32) -> None:
        super().__init__()
        encoder: Part = model.model.encoder
        int8 = "encoder" in precision.int8
        blocks = [
            block
            for layer in encoder.layers
            for block in (
                _attention(layer.self_attn, layer.self_attn_layer_norm, _SelfAttention, int8),
                _feed_forward(layer, int8),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)
        table, order = scaled_table(encoder), table_order(model)
        self.renumbers = order is not None
        if order is not None:
            table = table[order]
            self.register_buffer("numbers", torch.argsort(order)[:, None])
        self.table = Table(table, int8="embedding" in precision.int8)
        self.width = encoder.config.d_model
        # fp32: the biases of all blocks are folded into it, so its range is too wide for 8 bits
        self.positions = Table(position_table(encoder) + _fold_biases(blocks), int8=False)
        self.register_buffer("places", torch.arange(self.positions.rows.shape[0])[None])
        crosses = [layer.encoder_attn for layer in model.model.decoder.layers if head_count(layer.encoder_attn)]
        self.cross = Products([part for found in crosses for part in (found.k_proj, found.v_proj)], int8=int8)
        self.heads = [head_count(attention) for attention in crosses]
        self.eval().requires_grad_(False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `method_ports(model, limits)["encoder"]`."""
        if self.renumbers:
            input_ids = nn.functional.embedding(input_ids, self.numbers).view(1, -1)
        embedded = self.table(input_ids) + self.positions(self.places[:, : input_ids.shape[1]])
        hidden = embedded.view(-1, self.width)  # (source, d_model)
        for block in self.blocks:
            hidden = block.encode(hidden)
        if not self.heads:
            return (torch.zeros_like(hidden[:, :1]).view(1, 1, 1, -1),)
        states, outputs = self.cross(hidden), list[Tensor]()
        for heads, key, value in zip(self.heads, states[::2], states[1::2], strict=True):
            k, v = _split(key, heads), _split(value, heads)
            outputs += (k.permute(1, 2, 0).view(1, *k.shape[1:], -1), v.transpose(0, 1).view(1, heads, -1, v.shape[2]))
        return tuple(outputs)


class StepMethod(nn.Module):
    """One decoder step: token and position (1) int64, rows so far of self keys/values, cross keys/values.

    Rows of (1, past, heads, width) that lie at `position` or beyond are not looked at, whatever finite numbers they
    hold; there is at least one. Tokens are numbered by `kept_ids(model)`. Returns logits (1, kept vocabulary) of the
    next token, then this token's row (1, 1, heads, width) of every self key/value.
    """

    places: Tensor
    columns: Tensor

    def __init__(self, model: MarianMTModel, limits: Limits, precision: Precision = FP32) -> None:
        super().__init__()
        decoder: Part = model.model.decoder
        int8 = "decoder" in precision.int8
        blocks: list[Part] = [
            block
            for layer in decoder.layers
            for block in (
                _attention(layer.self_attn, layer.self_attn_layer_norm, _SelfAttention, int8),
                _attention(layer.encoder_attn, layer.encoder_attn_layer_norm, _CrossAttention, int8),
                _feed_forward(layer, int8),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)
        kept = torch.tensor(kept_ids(model))
        order = table_order(model)  # the whole table, as in the encoder: its first rows are the kept ones
        table = scaled_table(decoder)[kept if order is None else order]
        self.table = Table(table, int8="embedding" in precision.int8)
        self.positions = Table(position_table(decoder) + _fold_biases(blocks), int8="embedding" in precision.int8)
        # Column i is row i - 1 of the cache, valid if less than the position; column 0 is the new row.
        self.register_buffer("places", -NEVER * torch.arange(limits.target)[:, None])
        self.register_buffer("columns", -NEVER * torch.arange(limits.target + 1)[None])
        bias = model.final_logits_bias.detach()[0]
        matrix = model.lm_head.weight.detach()
        if blocks and model.lm_head.weight is decoder.embed_tokens.weight:
            # Use the scaled table again, so that it is stored once; the last norm divides by the scale.
            matrix = scaled_table(decoder)
            with torch.no_grad():
                blocks[-1].norm.weight /= embed_scale(decoder)
                blocks[-1].norm.bias /= embed_scale(decoder)
        self.output = Products([_linear(matrix[kept], bias[kept])], int8="output" in precision.int8)
        shapes = [port.shape for port in method_ports(model, limits)["decoder_step"][0][2:]]
        self.first_past = next((i for i, shape in enumerate(shapes) if "past" in shape), None)
        self.eval().requires_grad_(False)

    def forward(self, token: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take and return tensors in the order of `method_ports(model, limits)["decoder_step"]`."""
        hidden = self.table(token) + self.positions(position)
        penalty = None
        if self.first_past is not None:
            columns = self.columns[:, : tensors[self.first_past].shape[1] + 1]
            penalty = torch.relu(columns - nn.functional.embedding(position, self.places))
        left, rows = list(tensors), list[Tensor]()
        for block in self.blocks:
            state = (left.pop(0), left.pop(0)) if block.has_state else ()
            hidden, new = block.step(hidden, penalty, *state)
            rows += new
        return (*self.output(hidden), *rows)


def method_ports(model: MarianMTModel, limits: Limits) -> dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]]:
    """Return method name -> (inputs, outputs); "source" is at most `limits.source` and "past" `limits.target`."""
    cross: list[Port] = []
    rows: list[Port] = []
    step: list[Port] = []
    for i, layer in enumerate(model.model.decoder.layers):
        for part, heads, width in state_widths(layer.self_attn):
            step.append(Port(f"past_{part}_{i}", "float32", (1, "past", heads, width)))
            rows.append(Port(f"present_{part}_{i}", "float32", (1, 1, heads, width)))
        for part, heads, width in state_widths(layer.encoder_attn):
            sizes = (width, "source") if part == "key" else ("source", width)
            cross.append(Port(f"cross_{part}_{i}", "float32", (1, heads, *sizes)))
            step.append(cross[-1])
    ids = Port("input_ids", "int64", (1, "source"))
    token, position = Port("token", "int64", (1,)), Port("position", "int64", (1,))
    logits = Port("logits", "float32", (1, len(kept_ids(model))))
    encoded = tuple(cross) or (Port("mask", "float32", (1, 1, 1, "source")),)
    return {"encoder": ((ids,), encoded), "decoder_step": ((token, position, *step), (logits, *rows))}


class _Empty(nn.Module):
    """An empty sub-block: its norm, and an output bias that `_fold_biases` moves away."""

    has_state = False

    def __init__(self, out: nn.Linear, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)
        self.bias = out.bias.detach()

    def encode(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden)

    def step(self, hidden: Tensor, penalty: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.norm(hidden), ()


class _FeedForward(nn.Module):
    has_state = False

    def __init__(self, layer: Part, int8: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = Products([layer.fc1], int8=int8), Products([layer.fc2], int8=int8)
        self.norm = copy.deepcopy(layer.final_layer_norm)
        self.activation = layer.activation_fn

    def encode(self, hidden: Tensor) -> Tensor:
        (inner,) = self.fc1(hidden)
        (inner,) = self.fc2(self.activation(inner))
        return self.norm(hidden + inner)

    def step(self, hidden: Tensor, penalty: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.encode(hidden), ()


class _SelfAttention(nn.Module):
    has_state = True

    def __init__(self, attention: Part, norm: nn.LayerNorm, int8: bool) -> None:
        super().__init__()
        self.heads = head_count(attention)
        query = _scaled(attention.q_proj, attention.scaling)
        self.project = Products([query, attention.k_proj, attention.v_proj], int8=int8)
        self.inner = attention.out_proj.in_features
        self.out, self.norm = Products([attention.out_proj], int8=int8), copy.deepcopy(norm)

    def encode(self, hidden: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.project(hidden))
        inner = _attend(q.transpose(0, 1), k.permute(1, 2, 0), v.transpose(0, 1))
        (output,) = self.out(inner.transpose(0, 1).contiguous().view(-1, self.inner))
        return self.norm(hidden + output)

    def step(self, hidden: Tensor, penalty: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        q, key, value = self.project(hidden)
        row = (key.view(1, 1, self.heads, -1), value.view(1, 1, self.heads, -1))
        k, v = torch.cat((row[0], keys), dim=1), torch.cat((row[1], values), dim=1)
        k = k.permute(0, 2, 3, 1).view(self.heads, k.shape[3], -1)
        v = v.transpose(1, 2).view(self.heads, -1, v.shape[3])
        (output,) = self.out(_attend(q.view(self.heads, 1, -1), k, v, penalty).view(1, -1))
        return self.norm(hidden + output), row


class _CrossAttention(nn.Module):
    """Attention to keys (1, heads, Q/K width, source) and values (1, heads, source, V width)."""

    has_state = True

    def __init__(self, attention: Part, norm: nn.LayerNorm, int8: bool) -> None:
        super().__init__()
        self.heads = head_count(attention)
        self.query = Products([_scaled(attention.q_proj, attention.scaling)], int8=int8)
        self.out, self.norm = Products([attention.out_proj], int8=int8), copy.deepcopy(norm)

    def step(
        self, hidden: Tensor, penalty: Tensor | None, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        k, v = keys.view(self.heads, keys.shape[2], -1), values.view(self.heads, -1, values.shape[3])
        (q,) = self.query(hidden)
        (output,) = self.out(_attend(q.view(self.heads, 1, -1), k, v).view(1, -1))
        return self.norm(hidden + output), ()


def _attention(attention: Part, norm: nn.LayerNorm, kind: type[nn.Module], int8: bool) -> nn.Module:
    return kind(attention, norm, int8) if head_count(attention) else _Empty(attention.out_proj, norm)


def _feed_forward(layer: Part, int8: bool) -> nn.Module:
    return _FeedForward(layer, int8) if layer.fc1.out_features else _Empty(layer.fc2, layer.final_layer_norm)


def _attend(q: Tensor, keys: Tensor, values: Tensor, penalty: Tensor | None = None) -> Tensor:
    """(heads, n, a), (heads, a, m), (heads, m, b) -> (heads, n, b); the scale is in `q`, `penalty` (1, m) comes off."""
    scores = torch.bmm(q, keys)
    return torch.bmm(torch.softmax(scores if penalty is None else scores - penalty, dim=-1), values)


def _split(states: Tensor, heads: int) -> Tensor:
    """(time, heads * width) -> (time, heads, width); -1 is time, because XNNPACK allows one inferred size."""
    return states.view(-1, heads, states.shape[1] // heads)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _scaled(projection: nn.Linear, factor: float) -> nn.Linear:
    scaled = copy.deepcopy(projection)
    with torch.no_grad():
        scaled.weight.mul_(factor)
        scaled.bias.mul_(factor)
    return scaled


def _fold_biases(blocks: Sequence[Part]) -> Tensor:
    """Move the output biases of empty sub-blocks to the layer before; return the first one, or zero."""
    with torch.no_grad():
        for before, block in zip(blocks, blocks[1:], strict=False):
            if isinstance(block, _Empty):
                before.norm.bias += block.bias
    return blocks[0].bias if blocks and isinstance(blocks[0], _Empty) else torch.zeros(())
