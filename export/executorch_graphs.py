"""The modules that become the methods of an ExecuTorch program: batch 1, in forms that XNNPACK takes and is quick at.

What the shapes and orders are for (measured; one operator costs about 0.35 microseconds whatever its size):

- The cache is the caller's: a step takes the rows so far and returns the new one, so nothing is copied back. Time comes
  before heads, which lets a caller with room for the longest sentence pass a prefix of it: work grows with the sentence
  and not with the limit. A row of the table `masks` hides what lies beyond the position.
- Keys are transposed before they are multiplied: XNNPACK packs the second operand anyway.
- Layer norm stays `native_layer_norm`, an optimised kernel of 0.4 microseconds: in delegated operators it has eight.
- Q, K and V are three products: as one, they would have to be sliced apart.

An empty sub-block is its output bias, which vanishes into the layer norm (or the position table) before it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianMTModel

from export.manifest import Limits
from export.marian_graphs import Part, Port, head_count, position_table, scaled_table, state_widths
from tprune.vocabulary import NEVER, kept_ids


class EncoderMethod(nn.Module):
    """input_ids (1, source) int64 -> keys (1, heads, Q/K width, source), values (1, heads, source, V width) per layer.

    A decoder layer without cross-attention has none; where no layer has any, there is one output of no use, `mask`.
    """

    table: Tensor
    positions: Tensor

    def __init__(self, model: MarianMTModel) -> None:
        super().__init__()
        encoder: Part = model.model.encoder
        blocks = [
            block
            for layer in encoder.layers
            for block in (_attention(layer.self_attn, layer.self_attn_layer_norm, _SelfAttention), _feed_forward(layer))
        ]
        self.blocks: Any = nn.ModuleList(blocks)
        self.register_buffer("table", scaled_table(encoder))
        self.register_buffer("positions", position_table(encoder) + _fold_biases(blocks))
        crosses = [layer.encoder_attn for layer in model.model.decoder.layers if head_count(layer.encoder_attn)]
        self.keys: Any = nn.ModuleList(copy.deepcopy(attention.k_proj) for attention in crosses)
        self.values: Any = nn.ModuleList(copy.deepcopy(attention.v_proj) for attention in crosses)
        self.heads = [head_count(attention) for attention in crosses]
        self.eval().requires_grad_(False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `method_ports(model, limits)["encoder"]`."""
        embedded = nn.functional.embedding(input_ids, self.table) + self.positions[: input_ids.shape[1]]
        hidden = embedded.view(-1, self.table.shape[1])  # (source, d_model)
        for block in self.blocks:
            hidden = block.encode(hidden)
        if not self.heads:
            return (torch.zeros_like(hidden[:, :1]).view(1, 1, 1, -1),)
        outputs = list[Tensor]()
        for heads, key, value in zip(self.heads, self.keys, self.values, strict=True):
            k, v = _split(key(hidden), heads), _split(value(hidden), heads)
            outputs += (k.permute(1, 2, 0).view(1, *k.shape[1:], -1), v.transpose(0, 1).view(1, heads, -1, v.shape[2]))
        return tuple(outputs)


class StepMethod(nn.Module):
    """One decoder step: token and position (1) int64, rows so far of self keys/values, cross keys/values.

    Rows of (1, past, heads, width) that lie at `position` or beyond are not looked at, whatever finite numbers they
    hold; there is at least one. Tokens are numbered by `kept_ids(model)`. Returns logits (1, kept vocabulary) of the
    next token, then this token's row (1, 1, heads, width) of every self key/value.
    """

    table: Tensor
    positions: Tensor
    masks: Tensor
    output: Tensor
    output_bias: Tensor
    rows: Tensor

    def __init__(self, model: MarianMTModel, limits: Limits) -> None:
        super().__init__()
        decoder: Part = model.model.decoder
        blocks = [
            block
            for layer in decoder.layers
            for block in (
                _attention(layer.self_attn, layer.self_attn_layer_norm, _SelfAttention),
                _attention(layer.encoder_attn, layer.encoder_attn_layer_norm, _CrossAttention),
                _feed_forward(layer),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)
        kept = torch.tensor(kept_ids(model))
        # The encoder's table where it is the same: the program holds it once, and a trimmed vocabulary looks into it.
        self.shares = decoder.embed_tokens.weight is model.model.encoder.embed_tokens.weight
        trimmed = len(kept) < len(decoder.embed_tokens.weight)
        self.looks_up = self.shares and trimmed
        self.register_buffer("table", scaled_table(decoder) if self.shares else scaled_table(decoder)[kept])
        if self.looks_up:
            self.register_buffer("rows", kept[:, None])
        self.register_buffer("positions", position_table(decoder) + _fold_biases(blocks))
        # Column 0 is the new row, column i + 1 row i of the cache.
        self.register_buffer("masks", torch.full((limits.target, limits.target + 1), NEVER).triu(1))
        self.register_buffer("output", model.lm_head.weight.detach()[kept])
        bias = model.final_logits_bias.detach()[0].clone()
        bias[model.config.pad_token_id] = NEVER
        self.register_buffer("output_bias", bias[kept])
        shapes = [port.shape for port in method_ports(model, limits)["decoder_step"][0][2:]]
        self.first_past = next((i for i, shape in enumerate(shapes) if "past" in shape), None)
        self.eval().requires_grad_(False)

    def forward(self, token: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take and return tensors in the order of `method_ports(model, limits)["decoder_step"]`."""
        if self.looks_up:
            token = nn.functional.embedding(token, self.rows).view(1)
        hidden = nn.functional.embedding(token, self.table) + nn.functional.embedding(position, self.positions)
        mask = None
        if self.first_past is not None:
            mask = nn.functional.embedding(position, self.masks)[:, : tensors[self.first_past].shape[1] + 1]
        left, rows = list(tensors), list[Tensor]()
        for block in self.blocks:
            state = (left.pop(0), left.pop(0)) if block.has_state else ()
            hidden, new = block.step(hidden, mask, *state)
            rows += new
        return (nn.functional.linear(hidden, self.output, self.output_bias), *rows)


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
    """What is left of a sub-block without lines: the norm, and an output bias that `_fold_biases` moves away."""

    has_state = False

    def __init__(self, out: nn.Linear, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)
        self.bias = out.bias.detach()

    def encode(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden)

    def step(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.norm(hidden), ()


class _FeedForward(nn.Module):
    has_state = False

    def __init__(self, layer: Part) -> None:
        super().__init__()
        self.fc1, self.fc2 = copy.deepcopy(layer.fc1), copy.deepcopy(layer.fc2)
        self.norm = copy.deepcopy(layer.final_layer_norm)
        self.activation = layer.activation_fn

    def encode(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden + self.fc2(self.activation(self.fc1(hidden))))

    def step(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.encode(hidden), ()


class _SelfAttention(nn.Module):
    has_state = True

    def __init__(self, attention: Part, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.heads = head_count(attention)
        self.query = _scaled(attention.q_proj, attention.scaling)
        self.key, self.value = copy.deepcopy(attention.k_proj), copy.deepcopy(attention.v_proj)
        self.out, self.norm = copy.deepcopy(attention.out_proj), copy.deepcopy(norm)

    def encode(self, hidden: Tensor) -> Tensor:
        q, k, v = (_split(part(hidden), self.heads) for part in (self.query, self.key, self.value))
        inner = _attend(q.transpose(0, 1), k.permute(1, 2, 0), v.transpose(0, 1))
        return self.norm(hidden + self.out(inner.transpose(0, 1).contiguous().view(-1, self.out.in_features)))

    def step(self, hidden: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        row = (self.key(hidden).view(1, 1, self.heads, -1), self.value(hidden).view(1, 1, self.heads, -1))
        k, v = torch.cat((row[0], keys), dim=1), torch.cat((row[1], values), dim=1)
        q, k = self.query(hidden).view(self.heads, 1, -1), k.permute(0, 2, 3, 1).view(self.heads, k.shape[3], -1)
        inner = _attend(q, k, v.transpose(1, 2).view(self.heads, -1, v.shape[3]), mask)
        return self.norm(hidden + self.out(inner.view(1, -1))), row


class _CrossAttention(nn.Module):
    """Attention to keys (1, heads, Q/K width, source) and values (1, heads, source, V width)."""

    has_state = True

    def __init__(self, attention: Part, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.heads = head_count(attention)
        self.query = _scaled(attention.q_proj, attention.scaling)
        self.out, self.norm = copy.deepcopy(attention.out_proj), copy.deepcopy(norm)

    def step(
        self, hidden: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        k, v = keys.view(self.heads, keys.shape[2], -1), values.view(self.heads, -1, values.shape[3])
        inner = _attend(self.query(hidden).view(self.heads, 1, -1), k, v)
        return self.norm(hidden + self.out(inner.view(1, -1))), ()


def _attention(attention: Part, norm: nn.LayerNorm, kind: type[nn.Module]) -> nn.Module:
    return kind(attention, norm) if head_count(attention) else _Empty(attention.out_proj, norm)


def _feed_forward(layer: Part) -> nn.Module:
    return _FeedForward(layer) if layer.fc1.out_features else _Empty(layer.fc2, layer.final_layer_norm)


def _attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """(heads, n, a), (heads, a, m), (heads, m, b), (1, m) -> (heads, n, b); the scale is in `q` already."""
    scores = torch.bmm(q, keys)
    return torch.bmm(torch.softmax(scores if mask is None else scores + mask, dim=-1), values)


def _split(states: Tensor, heads: int) -> Tensor:
    """(time, heads * width) -> (time, heads, width); -1 is time, because XNNPACK lets only one size be found out."""
    return states.view(-1, heads, states.shape[1] // heads)


def _scaled(projection: nn.Linear, factor: float) -> nn.Linear:
    scaled = copy.deepcopy(projection)
    with torch.no_grad():
        scaled.weight.mul_(factor)
        scaled.bias.mul_(factor)
    return scaled


def _fold_biases(blocks: Sequence[Part]) -> Tensor:
    """Move the output biases of empty sub-blocks to where their input comes from; return the first one's, or zero."""
    with torch.no_grad():
        for before, block in zip(blocks, blocks[1:], strict=False):
            if isinstance(block, _Empty):
                before.norm.bias += block.bias
    return blocks[0].bias if blocks and isinstance(blocks[0], _Empty) else torch.zeros(())
