"""The exported modules: a Marian as two graphs with flat tensors as inputs and outputs.

`EncoderGraph` turns a source into the keys and values that every decoder layer attends to; `StepGraph` turns one target
token into the logits of the next. Both work on hidden states of shape (tokens, d_model): with one token a sentence the
time of a step is the reading of the weights plus about a microsecond an operator, so the graphs are built to have few:

- one product for Q, K and V, with the softmax scale folded into Q's weight and bias;
- the residual is the addend of the output product (`addmm`); its bias moves into the layer norm before it, and what the
  sub-block would have seen of it is taken off the biases of its input product;
- the embedding scale is folded into the table; a shared output table divides it out again in the last layer norm;
- `final_logits_bias` is the addend of the output product. `<pad>` keeps its logit: HF's beam search lets it take its
  share of the probability before forbidding it, and so do the search loops over these graphs.

An empty sub-block is its output bias, which vanishes into the layer norm before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianMTModel

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
from tprune.export.graphs.sub_blocks import (
    PLAIN,
    Attention,
    CrossStep,
    FeedForward,
    Kernels,
    SelfStep,
    SubBlock,
    cache_width,
    fold_biases,
)
from tprune.marian.vocabulary import NEVER, kept_ids


class EncoderGraph(nn.Module):
    """input_ids, attention_mask: (batch, source) int64 -> mask (batch, 1, 1, source), then keys, values per layer.

    The mask is additive and serves every decoder step of the sentence. Keys are (batch, heads, source, Q/K width),
    values (batch, heads, source, V width); a decoder layer without cross-attention has none.
    """

    places: Tensor

    def __init__(self, model: MarianMTModel, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        encoder: Part = model.model.encoder
        blocks: list[SubBlock] = [
            block
            for layer in encoder.layers
            for block in (
                Attention(layer.self_attn, layer.self_attn_layer_norm, kernels),
                FeedForward(layer, kernels),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)  # iterating a ModuleList gives plain Modules to the type checker
        self.deep = kernels.deep
        table, order = scaled_table(encoder), table_order(model)
        self.renumbers = order is not None
        if order is not None:
            table = table[order]
            self.register_buffer("places", torch.argsort(order)[:, None])
        self.table = kernels.table(table)
        self.positions = kernels.table(position_table(encoder) + fold_biases(blocks))
        self.cross = [layer.encoder_attn for layer in model.model.decoder.layers if head_count(layer.encoder_attn)]
        projections = [part for attention in self.cross for part in (attention.k_proj, attention.v_proj)]
        if projections:
            self.joint = kernels.product(
                torch.cat([p.weight.detach() for p in projections]).T, torch.cat([p.bias.detach() for p in projections])
            )
        _pack(self, blocks)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `ports(model)["encoder"]`."""
        batch, time = input_ids.shape
        mask = ((1 - attention_mask).float() * NEVER)[:, None, None, :]
        if self.renumbers:
            input_ids = nn.functional.embedding(input_ids, self.places).squeeze(-1)
        hidden = self.table.look_up(input_ids) + self.positions.look_up(torch.arange(time))
        hidden = hidden if self.deep else hidden.flatten(0, 1)
        square = mask.expand(batch, 1, time, time)  # ONNX Runtime's Attention does not broadcast over the queries
        for block in self.blocks:
            hidden = block.encode(hidden, square, (batch, time))
        if not self.cross:
            return (mask,)
        joint = self.joint(hidden)
        joint = joint if self.deep else joint.unflatten(0, (batch, time))
        heads = [head_count(attention) for attention in self.cross for _ in range(2)]
        parts = joint.split([p.out_features for a in self.cross for p in (a.k_proj, a.v_proj)], dim=-1)
        return (mask, *(p.unflatten(-1, (h, -1)).transpose(1, 2) for p, h in zip(parts, heads, strict=True)))


class StepGraph(nn.Module):
    """One decoder step: token (batch) and position (1) int64, mask, cross keys/values, caches of self keys/values.

    Tokens are numbered by `kept_ids(model)`: the whole target vocabulary, unless it was trimmed.
    Returns logits (batch, kept target vocabulary) of the next token, then the caches with this token at `position`:
    (batch, heads, room, width) per layer that has self-attention. Whoever binds an output to the memory of its input
    has them extended in place; what lies beyond `position` is not looked at.
    """

    output_bias: Tensor

    def __init__(self, model: MarianMTModel, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        decoder: Part = model.model.decoder
        blocks: list[SubBlock] = [
            block
            for layer in decoder.layers
            for block in (
                SelfStep(layer.self_attn, layer.self_attn_layer_norm, kernels),
                CrossStep(layer.encoder_attn, layer.encoder_attn_layer_norm, kernels),
                FeedForward(layer, kernels),
            )
        ]
        self.blocks: Any = nn.ModuleList(blocks)  # iterating a ModuleList gives plain Modules to the type checker
        self.crosses = any(head_count(layer.encoder_attn) for layer in decoder.layers)
        kept = torch.tensor(kept_ids(model))  # a token that is never produced is never an input
        self.deep = kernels.deep
        self.table = kernels.table(scaled_table(decoder)[kept])
        self.positions = kernels.table(position_table(decoder) + fold_biases(blocks))
        if blocks and model.lm_head.weight is decoder.embed_tokens.weight and kernels.output is kernels.table:
            self.output = self.table  # stored once, scaled; the last norm divides by the scale
            blocks[-1].norm.scale(1.0 / embed_scale(decoder))
        else:
            self.output = kernels.output(model.lm_head.weight.detach()[kept])
        self.register_buffer("output_bias", model.final_logits_bias.detach()[0][kept])
        _pack(self, blocks)

    def forward(self, token: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take and return tensors in the order of `ports(model)["decoder_step"]`."""
        hidden = self.table.look_up(token[:, None] if self.deep else token)
        hidden = hidden + self.positions.look_up(position)
        left, caches = list(tensors), list[Tensor]()
        mask = left.pop(0) if self.crosses else None
        for block in self.blocks:
            state = (left.pop(0), left.pop(0)) if block.has_state else ()
            hidden, new = block.step(hidden, position, mask, *state)
            caches += new
        return (self.output.project(hidden.flatten(0, 1) if self.deep else hidden, self.output_bias), *caches)


def ports(model: MarianMTModel) -> dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]]:
    """Return graph name -> (inputs, outputs) of a model's two graphs; a step's `present_*` is the next's `past_*`."""
    mask = Port("mask", "float32", ("batch", 1, 1, "source"))
    cross: list[Port] = []
    states: dict[str, list[Port]] = {"past": [], "present": []}
    step: list[Port] = []
    for i, layer in enumerate(model.model.decoder.layers):
        for part, heads, _ in state_widths(layer.self_attn):
            for time, found in states.items():
                shape = ("batch", heads, "cache", cache_width(layer.self_attn))
                found.append(Port(f"{time}_{part}_{i}", "float32", shape))
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


def _pack(graph: nn.Module, blocks: list[SubBlock]) -> None:
    for block in blocks:
        block.pack()
    graph.eval().requires_grad_(False)
