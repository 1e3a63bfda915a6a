"""The modules that are exported: a Marian as two graphs with flat tensors in and out, shared by both back ends.

`EncoderGraph` turns a source into the keys and values that every decoder layer attends to; `StepGraph` turns one target
token into the logits of the next. Both work on hidden states of shape (tokens, d_model): with one token a sentence the
time of a step is the reading of the weights plus about a microsecond an operator, so the graphs are built to have few:

- one product for Q, K and V, with the softmax scale folded into Q's weight and bias;
- the residual is the addend of the output product (`addmm`); its bias moves into the layer norm before it, and what the
  sub-block would have seen of it is taken off the biases of its input product;
- the embedding scale is folded into the table; a shared output table divides it out again in the last layer norm;
- `final_logits_bias` is the addend of the output product, and `<pad>` gets `NEVER` there.

An empty sub-block is its output bias, which vanishes into the layer norm before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianMTModel

from tprune.vocabulary import NEVER, kept_ids

Part = Any
"""A module of HF's Marian or of its pruned twin; torch's types would call its attributes `Tensor | Module`."""

Attend = Callable[..., "tuple[Tensor, Tensor, Tensor]"]
"""attend(q, k, v, *, heads, mask=None, past=None) -> (output, all keys, all values); see `plain_attention`."""


@dataclass(frozen=True)
class Port:
    """One tensor that crosses a graph's border: its name, numpy dtype and shape (a string is a dynamic size)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: int,
    mask: Tensor | None = None,
    past: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend with plain torch operators; the scale is in `q` already.

    Three dimensions mean (batch, time, heads * width) and give the same back; four mean (batch, heads, time, width).
    `mask` is added to the scores; `past` are earlier keys and values, (batch, heads, time, width).
    """
    flat = q.dim() == 3
    if flat:
        q, k, v = (states.unflatten(-1, (heads, -1)).transpose(1, 2) for states in (q, k, v))
    if past is not None:
        k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
    scores = q @ k.transpose(2, 3)
    output = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ v
    return output.transpose(1, 2).flatten(2) if flat else output, k, v


class EncoderGraph(nn.Module):
    """input_ids, attention_mask: (batch, source) int64 -> mask (batch, 1, 1, source), then keys, values per layer.

    The mask is additive and serves every decoder step of the sentence. Keys are (batch, heads, source, Q/K width),
    values (batch, heads, source, V width); a decoder layer without cross-attention has none.
    """

    table: Tensor
    positions: Tensor
    cross_weight: Tensor
    cross_bias: Tensor

    def __init__(self, model: MarianMTModel, attend: Attend = plain_attention) -> None:
        super().__init__()
        encoder: Part = model.model.encoder
        blocks: list[_SubBlock] = [
            block
            for layer in encoder.layers
            for block in (
                _Attention(layer.self_attn, layer.self_attn_layer_norm, attend, cross=False),
                _FeedForward(layer),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)  # iterating a ModuleList gives plain Modules to the type checker
        self.register_buffer("table", scaled_table(encoder))
        self.register_buffer("positions", position_table(encoder) + _fold_biases(blocks))
        self.cross = [layer.encoder_attn for layer in model.model.decoder.layers if head_count(layer.encoder_attn)]
        projections = [part for attention in self.cross for part in (attention.k_proj, attention.v_proj)]
        if projections:
            self.register_buffer("cross_weight", torch.cat([p.weight.detach() for p in projections]).T.contiguous())
            self.register_buffer("cross_bias", torch.cat([p.bias.detach() for p in projections]))
        _freeze(self)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `ports(model)["encoder"]`."""
        batch, time = input_ids.shape
        mask = ((1 - attention_mask).to(self.table.dtype) * NEVER)[:, None, None, :]
        hidden = nn.functional.embedding(input_ids, self.table) + self.positions[:time]
        hidden = hidden.flatten(0, 1)  # (batch * source, d_model)
        square = mask.expand(batch, 1, time, time)  # ONNX Runtime's Attention does not broadcast over the queries
        for block in self.blocks:
            hidden = block.encode(hidden, square, (batch, time))
        if not self.cross:
            return (mask,)
        joint = torch.addmm(self.cross_bias, hidden, self.cross_weight).unflatten(0, (batch, time))
        heads = [head_count(attention) for attention in self.cross for _ in range(2)]
        parts = joint.split([p.out_features for a in self.cross for p in (a.k_proj, a.v_proj)], dim=-1)
        return (mask, *(p.unflatten(-1, (h, -1)).transpose(1, 2) for p, h in zip(parts, heads, strict=True)))


class StepGraph(nn.Module):
    """One decoder step: token (batch) and position (1) int64, mask, cross keys/values, self keys/values so far.

    Tokens are numbered by `kept_ids(model)`: the whole target vocabulary, unless it was trimmed.
    Returns logits (batch, kept target vocabulary) of the next token, then the self keys/values with this token
    appended: (batch, heads, past + 1, width) per layer that has self-attention.
    """

    table: Tensor
    positions: Tensor
    output: Tensor
    output_bias: Tensor

    def __init__(self, model: MarianMTModel, attend: Attend = plain_attention) -> None:
        super().__init__()
        decoder: Part = model.model.decoder
        blocks: list[_SubBlock] = [
            block
            for layer in decoder.layers
            for block in (
                _Attention(layer.self_attn, layer.self_attn_layer_norm, attend, cross=False),
                _Attention(layer.encoder_attn, layer.encoder_attn_layer_norm, attend, cross=True),
                _FeedForward(layer),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)  # iterating a ModuleList gives plain Modules to the type checker
        self.crosses = any(head_count(layer.encoder_attn) for layer in decoder.layers)
        kept = torch.tensor(kept_ids(model))  # what is never produced is never read either
        self.register_buffer("table", scaled_table(decoder)[kept])
        self.register_buffer("positions", position_table(decoder) + _fold_biases(blocks))
        self.tied = bool(blocks) and model.lm_head.weight is decoder.embed_tokens.weight
        if self.tied:  # the table is stored once, scaled; the last norm takes the scale off again
            blocks[-1].norm.scale(1.0 / _embed_scale(decoder))
        else:
            self.register_buffer("output", model.lm_head.weight.detach()[kept].T.contiguous())
        bias = model.final_logits_bias.detach()[0].clone()
        bias[model.config.pad_token_id] = NEVER
        self.register_buffer("output_bias", bias[kept])
        _freeze(self)

    def forward(self, token: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take and return tensors in the order of `ports(model)["decoder_step"]`."""
        hidden = nn.functional.embedding(token, self.table) + nn.functional.embedding(position, self.positions)
        left, grown = list(tensors), list[Tensor]()
        mask = left.pop(0) if self.crosses else None
        for block in self.blocks:
            state = (left.pop(0), left.pop(0)) if block.has_state else None
            hidden, new = block.step(hidden, mask, state)
            grown += new
        if self.tied:
            return (nn.functional.linear(hidden, self.table, self.output_bias), *grown)
        return (torch.addmm(self.output_bias, hidden, self.output), *grown)


def ports(model: MarianMTModel) -> dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]]:
    """Return graph name -> (inputs, outputs) of a model's two graphs; `self_*` of a step feed its next step."""
    mask = Port("mask", "float32", ("batch", 1, 1, "source"))
    cross: list[Port] = []
    states: dict[str, list[Port]] = {"past": [], "present": []}
    step: list[Port] = []
    for i, layer in enumerate(model.model.decoder.layers):
        for part, heads, width in state_widths(layer.self_attn):
            for time, found in states.items():
                found.append(Port(f"{time}_{part}_{i}", "float32", ("batch", heads, time, width)))
            step.append(states["past"][-1])
        for part, heads, width in state_widths(layer.encoder_attn):
            cross.append(Port(f"cross_{part}_{i}", "float32", ("batch", heads, "source", width)))
            step.append(cross[-1])
    ids = tuple(Port(name, "int64", ("batch", "source")) for name in ("input_ids", "attention_mask"))
    token, position = Port("token", "int64", ("batch",)), Port("position", "int64", (1,))
    logits = Port("logits", "float32", ("batch", len(kept_ids(model))))
    return {
        "encoder": (ids, (mask, *cross)),
        "decoder_step": ((token, position, *([mask] if cross else []), *step), (logits, *states["present"])),
    }


class _Norm(nn.Module):
    """A layer norm whose bias also carries the output bias of the sub-block after it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.register_buffer("weight", norm.weight.detach().clone())
        self.register_buffer("bias", norm.bias.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.eps)

    def scale(self, factor: float) -> None:
        self.weight *= factor
        self.bias *= factor


class _SubBlock(nn.Module):
    """hidden -> norm(hidden + inner(hidden) @ weight_out), with the output bias left to `_fold_biases`."""

    weight_in: Tensor
    bias_in: Tensor
    weight_out: Tensor
    has_state = False

    def __init__(self, projections: list[nn.Linear], out: nn.Linear, norm: nn.LayerNorm, scales: list[float]) -> None:
        super().__init__()
        self.norm = _Norm(norm)
        self.out_bias = out.bias.detach().double()
        self.empty = out.in_features == 0
        if self.empty:
            return
        pairs = list(zip(projections, scales, strict=True))
        self.register_buffer("weight_in", torch.cat([p.weight.detach() * s for p, s in pairs]).T.contiguous())
        self.register_buffer("bias_in", torch.cat([p.bias.detach() * s for p, s in pairs]))
        self.register_buffer("weight_out", out.weight.detach().T.contiguous())

    def take_bias(self) -> Tensor:
        """Make the sub-block expect hidden + out_bias, and return out_bias (d_model), float64."""
        if not self.empty:
            self.bias_in = (self.bias_in.double() - self.out_bias @ self.weight_in.double()).to(self.bias_in.dtype)
        return self.out_bias

    def _out(self, inner: Tensor, hidden: Tensor) -> Tensor:
        return self.norm(torch.addmm(hidden, inner, self.weight_out))

    def _in(self, hidden: Tensor) -> Tensor:
        return torch.addmm(self.bias_in, hidden, self.weight_in)


class _Attention(_SubBlock):
    """Self-attention, or cross-attention to keys and values that exist already."""

    def __init__(self, attention: Part, norm: nn.LayerNorm, attend: Attend, *, cross: bool) -> None:
        heads = head_count(attention)
        projections = [attention.q_proj, attention.k_proj, attention.v_proj] if heads else []
        used = projections[:1] if cross else projections
        super().__init__(used, attention.out_proj, norm, [attention.scaling, 1.0, 1.0][: len(used)])
        self.heads, self.cross, self.attend = heads, cross, attend
        self.sizes = [p.out_features for p in used]
        self.has_state = heads > 0

    def encode(self, hidden: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.empty:
            return self.norm(hidden)
        q, k, v = self._in(hidden).unflatten(0, shape).split(self.sizes, dim=-1)
        return self._out(self.attend(q, k, v, heads=self.heads, mask=mask)[0].flatten(0, 1), hidden)

    def step(
        self, hidden: Tensor, mask: Tensor | None, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if state is None:
            return self.norm(hidden), ()
        if self.cross:
            q = self._in(hidden).unflatten(-1, (self.heads, 1, -1))
            inner = self.attend(q, *state, heads=self.heads, mask=mask)[0]
            return self._out(inner.flatten(1), hidden), ()
        q, k, v = self._in(hidden).unsqueeze(1).split(self.sizes, dim=-1)
        inner, keys, values = self.attend(q, k, v, heads=self.heads, past=state)
        return self._out(inner.squeeze(1), hidden), (keys, values)


class _FeedForward(_SubBlock):
    def __init__(self, layer: Part) -> None:
        super().__init__([layer.fc1], layer.fc2, layer.final_layer_norm, [1.0])
        self.activation = layer.activation_fn

    def encode(self, hidden: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
        return self.step(hidden, None, None)[0]

    def step(self, hidden: Tensor, mask: Tensor | None, state: None) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.empty:
            return self.norm(hidden), ()
        return self._out(self.activation(self._in(hidden)), hidden), ()


def _fold_biases(blocks: Sequence[_SubBlock]) -> Tensor:
    """Move every output bias to where its residual comes from; return the first one's, for the position table."""
    for before, block in zip(blocks, blocks[1:], strict=False):
        before.norm.bias = (before.norm.bias.double() + block.take_bias()).to(before.norm.bias.dtype)
    return blocks[0].take_bias().float() if blocks else torch.zeros(())


def scaled_table(side: Part) -> Tensor:
    return side.embed_tokens.weight.detach() * _embed_scale(side)


def _embed_scale(side: Part) -> float:
    """sqrt(d_model) or 1, from the configuration: a field that survives any wrapping of the embedding."""
    return math.sqrt(side.config.d_model) if side.config.scale_embedding else 1.0


def position_table(side: Part) -> Tensor:
    return side.embed_positions.weight.detach()


def head_count(attention: Part) -> int:
    return int(attention.num_heads)


def state_widths(attention: Part) -> list[tuple[str, int, int]]:
    """("key" or "value", heads, width of one head); nothing when there are no heads."""
    heads = head_count(attention)
    parts = (("key", attention.k_proj), ("value", attention.v_proj)) if heads else ()
    return [(name, heads, projection.out_features // heads) for name, projection in parts]


def _freeze(module: nn.Module) -> None:
    module.eval().requires_grad_(False)
