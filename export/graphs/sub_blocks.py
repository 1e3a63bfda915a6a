"""Building blocks of the exported graphs: sub-blocks, and the kernels that a back end provides for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tprune.export.graphs.parts import Part, head_count, state_widths
from tprune.marian.vocabulary import NEVER

Affine = tuple[Tensor, Tensor]
"""A weight (out, in) and a bias (out)."""

Attend = Callable[..., Tensor]
"""attend(q, k, v, *, heads, mask=None) -> output; see `plain_attention`."""

Recall = Callable[..., "tuple[Tensor, Tensor, Tensor]"]
"""recall(joint, keys, values, position, *, heads) -> (output, keys, values); see `plain_recall`."""


def plain_attention(q: Tensor, k: Tensor, v: Tensor, *, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attend with plain torch operators; `q` is already scaled, `mask` is added to the scores.

    Three dimensions mean (batch, time, heads * width) and give the same back; four mean (batch, heads, time, width).
    """
    flat = q.dim() == 3
    if flat:
        q, k, v = (states.unflatten(-1, (heads, -1)).transpose(1, 2) for states in (q, k, v))
    scores = q @ k.transpose(2, 3)
    output = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ v
    return output.transpose(1, 2).flatten(2) if flat else output


def plain_recall(
    joint: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Append one token's keys and values to a cache, and attend to the cache up to that token.

    `joint` (batch, 1, 3 * heads * width) holds Q (with the softmax scale), K and V of the token at `position` (1); the
    caches are (batch, heads, room, width), of which rows beyond `position` are not looked at. Returns the output
    (batch, 1, heads * width) and the new caches.
    """
    q, k, v = (states.unflatten(-1, (heads, -1)).transpose(1, 2) for states in joint.chunk(3, dim=-1))
    keys, values = keys.index_copy(2, position, k), values.index_copy(2, position, v)
    later = torch.arange(keys.shape[2]) > position
    output = plain_attention(q, keys, values, heads=heads, mask=later.to(q.dtype) * NEVER)
    return output.transpose(1, 2).flatten(2), keys, values


class FloatProduct(nn.Module):
    """states (tokens, in) @ weight (in, out) + addend: the bias (out), or the argument (tokens, out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        if bias is not None:
            self.register_buffer("bias", bias)

    def forward(self, states: Tensor, addend: Tensor | None = None) -> Tensor:
        return torch.addmm(self.bias if addend is None else addend, states, self.weight)


class FloatTable(nn.Module):
    """A table (rows, d_model) for embedding and output projection."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def look_up(self, ids: Tensor) -> Tensor:
        """Return the rows (ids' shape, d_model)."""
        return nn.functional.embedding(ids, self.weight)

    def project(self, states: Tensor, bias: Tensor) -> Tensor:
        """Return states (tokens, d_model) @ weight.T + bias: (tokens, rows)."""
        return nn.functional.linear(states, self.weight, bias)


@dataclass(frozen=True)
class Kernels:
    """The kernels of a graph. `product(weight (in, out), bias (out) or None)` multiplies in the layers,
    `table(weight (rows, d_model))` is looked up in, `output` of the same kind projects on the vocabulary.

    `deep`: states between the sub-blocks are (batch, time, d_model), not (batch * time, d_model).
    """

    attend: Attend = plain_attention
    recall: Recall = plain_recall
    product: Callable[[Tensor, Tensor | None], nn.Module] = FloatProduct
    table: Callable[[Tensor], Any] = FloatTable
    output: Callable[[Tensor], Any] = FloatTable
    deep: bool = False


PLAIN = Kernels()


class Norm(nn.Module):
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


class SubBlock(nn.Module):
    """hidden -> norm(hidden + inner(hidden) @ weight_out), without the output bias, which `fold_biases` moves."""

    has_state = False

    def __init__(self, first: Sequence[Affine], last: Affine, norm: nn.LayerNorm, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.norm = Norm(norm)
        self.out_bias = last[1].double()
        self.empty = last[0].shape[1] == 0
        if not self.empty:
            self.weight_in = torch.cat([weight for weight, _ in first]).T
            self.bias_in = torch.cat([bias for _, bias in first])
            self.weight_out = last[0].T

    def take_bias(self) -> Tensor:
        """Prepare the sub-block for inputs hidden + out_bias, and return out_bias (d_model), float64."""
        if not self.empty:
            self.bias_in = (self.bias_in.double() - self.out_bias @ self.weight_in.double()).to(self.bias_in.dtype)
        return self.out_bias

    def pack(self) -> None:
        """Create the products from the weights, after all folding."""
        if not self.empty:
            self.first = self.kernels.product(self.weight_in, self.bias_in)
            self.last = self.kernels.product(self.weight_out, None)
            del self.weight_in, self.bias_in, self.weight_out

    def _out(self, inner: Tensor, hidden: Tensor) -> Tensor:
        return self.norm(self.last(inner, hidden))


class Attention(SubBlock):
    """The encoder's self-attention: hidden (batch * source, d_model), or (batch, source, d_model) when `deep`."""

    def __init__(self, attention: Part, norm: nn.LayerNorm, kernels: Kernels) -> None:
        parts = _projections(attention)
        super().__init__(parts, affine(attention.out_proj), norm, kernels)
        self.heads = head_count(attention)
        self.sizes = [len(bias) for _, bias in parts]

    def encode(self, hidden: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
        """`shape` is (batch, source)."""
        if self.empty:
            return self.norm(hidden)
        deep, joint = self.kernels.deep, self.first(hidden)
        q, k, v = (joint if deep else joint.unflatten(0, shape)).split(self.sizes, dim=-1)
        inner = self.kernels.attend(q, k, v, heads=self.heads, mask=mask)
        return self._out(inner if deep else inner.flatten(0, 1), hidden)


class SelfStep(SubBlock):
    """The decoder's self-attention for one token, which extends its cache in place.

    Keys and values of a head are made equally wide, the narrower filled up with zeros: see `cache_width`.
    """

    def __init__(self, attention: Part, norm: nn.LayerNorm, kernels: Kernels) -> None:
        self.heads, width = head_count(attention), cache_width(attention)
        parts = [(_widened(w, self.heads, width), _widened(b, self.heads, width)) for w, b in _projections(attention)]
        weight, bias = affine(attention.out_proj)
        super().__init__(parts, (_widened(weight.T, self.heads, width).T, bias), norm, kernels)
        self.has_state = self.heads > 0

    def step(
        self, hidden: Tensor, position: Tensor, mask: Tensor | None, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take keys and values (batch, heads, room, width) as `state`."""
        if self.empty:
            return self.norm(hidden), ()
        deep, joint = self.kernels.deep, self.first(hidden)
        inner, *new = self.kernels.recall(joint if deep else joint.unsqueeze(1), *state, position, heads=self.heads)
        return self._out(inner if deep else inner.squeeze(1), hidden), tuple(new)


class CrossStep(SubBlock):
    """The decoder's cross-attention of one token to given keys and values of the source."""

    def __init__(self, attention: Part, norm: nn.LayerNorm, kernels: Kernels) -> None:
        super().__init__(_projections(attention)[:1], affine(attention.out_proj), norm, kernels)
        self.heads = head_count(attention)
        self.has_state = self.heads > 0

    def step(
        self, hidden: Tensor, position: Tensor, mask: Tensor | None, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take keys (batch, heads, source, Q/K width) and values (batch, heads, source, V width) as `state`."""
        if self.empty:
            return self.norm(hidden), ()
        keys, values = state
        q = self.first(hidden).reshape(-1, self.heads, 1, keys.shape[-1])
        inner = self.kernels.attend(q, keys, values, heads=self.heads, mask=mask)
        width = self.heads * values.shape[-1]
        return self._out(inner.reshape((-1, 1, width) if self.kernels.deep else (-1, width)), hidden), ()


class FeedForward(SubBlock):
    """fc1, activation, fc2."""

    def __init__(self, layer: Part, kernels: Kernels) -> None:
        super().__init__([affine(layer.fc1)], affine(layer.fc2), layer.final_layer_norm, kernels)
        self.activation = layer.activation_fn

    def encode(self, hidden: Tensor, mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
        """Apply the network to every token."""
        return self.norm(hidden) if self.empty else self._out(self.activation(self.first(hidden)), hidden)

    def step(
        self, hidden: Tensor, position: Tensor, mask: Tensor | None, *state: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Apply the network to one token."""
        return self.encode(hidden, None, (1, 1)), ()


def fold_biases(blocks: Sequence[SubBlock]) -> Tensor:
    """Move every output bias to the layer its residual comes from; return the first one, for the position table."""
    for before, block in zip(blocks, blocks[1:], strict=False):
        before.norm.bias = (before.norm.bias.double() + block.take_bias()).to(before.norm.bias.dtype)
    return blocks[0].take_bias().float() if blocks else torch.zeros(())


def affine(linear: nn.Linear) -> Affine:
    """Return weight and bias of a layer."""
    return linear.weight.detach(), linear.bias.detach()


def cache_width(attention: Part) -> int:
    """Return the width of a head in the decoder's cache, 0 without heads.

    ONNX Runtime's one operator with a cache in place, `GroupQueryAttention`, wants keys and values equally wide, and a
    multiple of eight.
    """
    widest = max((width for _, _, width in state_widths(attention)), default=0)
    return -(-widest // 8) * 8


def _projections(attention: Part) -> list[Affine]:
    """Return Q (with the softmax scale), K and V; nothing without heads."""
    if not head_count(attention):
        return []
    weight, bias = affine(attention.q_proj)
    scaled = (weight * attention.scaling, bias * attention.scaling)
    return [scaled, affine(attention.k_proj), affine(attention.v_proj)]


def _widened(lines: Tensor, heads: int, width: int) -> Tensor:
    """Pad (heads * own width, ...) with zeros to (heads * width, ...)."""
    if len(lines) == heads * width:
        return lines
    split = lines.unflatten(0, (heads, -1))
    filled = lines.new_zeros(heads, width, *lines.shape[1:])
    filled[:, : split.shape[1]] = split
    return filled.flatten(0, 1)
