"""Sites: the places of a Marian where lines can be cut, and the weights that belong to a line of each.

With torch's `nn.Linear.weight` of shape (out, in), TPrune's columns of W_Q, W_K, W_V, fc1 are dim 0 and its rows of
W_O, fc2 are dim 1. Lines that can only be cut together are one line here (a *site* couples them):

* `qk`:  row i of W_Q with row i of W_K (they meet only in the score sum), biases included
* `vo`:  row i of W_V with column i of W_O
* `ffn`: row j of fc1 with column j of fc2

A *sub-block* is one attention (a `qk` and a `vo` site over the same heads) or one feed-forward network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import MarianMTModel

from tprune.marian.model import PrunedAttention, PrunedMarianMTModel

Kind = Literal["qk", "vo", "ffn"]


@dataclass(frozen=True, slots=True)
class Member:
    """One parameter of a site; its lines lie along `dim`."""

    parameter: str
    dim: int


MEMBERS: dict[Kind, tuple[Member, ...]] = {
    "qk": (Member("q_proj.weight", 0), Member("q_proj.bias", 0), Member("k_proj.weight", 0), Member("k_proj.bias", 0)),
    "vo": (Member("v_proj.weight", 0), Member("v_proj.bias", 0), Member("out_proj.weight", 1)),
    "ffn": (Member("fc1.weight", 0), Member("fc1.bias", 0), Member("fc2.weight", 1)),
}


@dataclass(frozen=True, slots=True)
class Site:
    """Coupled lines: `heads` groups of `width` lines each (a feed-forward site is one group)."""

    sub_block: str  # e.g. "encoder.layers.0.self_attn", "decoder.layers.3.ffn"
    kind: Kind
    heads: int
    width: int
    d_model: int

    @property
    def name(self) -> str:
        return f"{self.sub_block}.{self.kind}" if self.kind != "ffn" else self.sub_block

    @property
    def lines(self) -> int:
        return self.heads * self.width

    @property
    def weights_per_line(self) -> int:
        """Matrix elements of one line, without biases: 2 d_model at every site."""
        return 2 * self.d_model


def sites(model: PrunedMarianMTModel) -> list[Site]:
    """Return every non-empty site of the model, encoder first, in layer order."""
    return [site for name, module in sub_blocks(model) for site in _sites_of(name, module, model.config.d_model)]


def sub_blocks(model: MarianMTModel) -> Iterator[tuple[str, Any]]:
    """Yield (name, module) of every sub-block, stock or pruned: an attention, or the layer that holds fc1 and fc2."""
    for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
        for i, layer in enumerate(stack.layers):
            yield f"{side}.layers.{i}.self_attn", layer.self_attn
            if side == "decoder":
                yield f"{side}.layers.{i}.encoder_attn", layer.encoder_attn
            yield f"{side}.layers.{i}.ffn", layer


def _sites_of(name: str, module: Any, d_model: int) -> list[Site]:
    if not isinstance(module, PrunedAttention):
        width = module.fc1.out_features
        return [Site(name, "ffn", 1, width, d_model)] if width else []
    if not module.num_heads:
        return []
    heads = module.num_heads
    return [Site(name, "qk", heads, module.qk_width, d_model), Site(name, "vo", heads, module.v_width, d_model)]


def site_parameters(model: PrunedMarianMTModel, site: Site) -> list[tuple[nn.Parameter, int]]:
    """Return (parameter, dim of its lines) for every member of the site."""
    module = dict(sub_blocks(model))[site.sub_block]
    return [(module.get_parameter(member.parameter), member.dim) for member in MEMBERS[site.kind]]


def line_sums(members: Sequence[tuple[Tensor, int]], measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Return, per line, the sum of `measure(parameter)` over all elements the line owns. Shape (lines,), float32."""
    total: Tensor | None = None
    for parameter, dim in members:
        values = measure(parameter)
        if values.dim() == 2:
            values = values.sum(1 - dim)
        total = values if total is None else total + values
    assert total is not None
    return total


def line_norms(model: PrunedMarianMTModel, site: Site) -> Tensor:
    """Return ||w_g||_2 of every line g of the site, over all weights and biases it owns. Shape (lines,)."""
    with torch.no_grad():
        return line_sums(site_parameters(model, site), torch.square).sqrt()
