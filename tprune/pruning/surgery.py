"""Cut a model by a plan (`cut`), make the masked reference with the same outputs (`mask`), and undo a cut (`expand`).

Cutting is exact: a masked line has zero weights and zero bias in Q, K and V, so its scores and values are zero, and
activation(0) is multiplied by a zero column of fc2.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from tprune.marian.checkpoint import Checkpoint
from tprune.marian.config import PrunedMarianConfig
from tprune.marian.model import PrunedAttention, PrunedMarianMTModel
from tprune.pruning.plan import AttentionPlan, Plan
from tprune.pruning.sites import sub_blocks


def shapes(model: PrunedMarianMTModel) -> dict[str, tuple[int, ...]]:
    """Return sub-block -> (heads, qk width, v width) of an attention or (width,) of a feed-forward network."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in sub_blocks(model):
        if isinstance(module, PrunedAttention):
            found[name] = (module.num_heads, module.qk_width, module.v_width)
        else:
            found[name] = (module.fc1.out_features,)
    return found


def cut(model: PrunedMarianMTModel, plan: Plan) -> PrunedMarianMTModel:
    """Return a new, smaller model with only the planned lines; `model` is not changed."""
    plan.check_against(shapes(model))
    config = PrunedMarianConfig(**_plain(model.config))
    config.encoder_sizes = _planned_sizes(plan, "encoder", config.encoder_layers)
    config.decoder_sizes = _planned_sizes(plan, "decoder", config.decoder_layers)
    small = PrunedMarianMTModel(config)
    small.generation_config = copy.deepcopy(model.generation_config)
    replaced = dict(sub_blocks(small))
    state = {k: v for k, v in model.state_dict().items() if not _is_prunable(k)}
    small.load_state_dict(state, strict=False)
    with torch.no_grad():
        for name, module in sub_blocks(model):
            if name in plan.attention:
                _cut_attention(module, replaced[name], plan.attention[name])
            else:
                _cut_ffn(module, replaced[name], plan.ffn[name])
    return small.to(next(model.parameters())).train(model.training)


def mask(model: PrunedMarianMTModel, plan: Plan) -> PrunedMarianMTModel:
    """Return a copy of `model` at full size in which every line that the plan drops is zero."""
    plan.check_against(shapes(model))
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in sub_blocks(masked):
            if name in plan.attention:
                _mask_attention(module, plan.attention[name])
            else:
                dropped = _dropped(plan.ffn[name], module.fc1.out_features)
                _zero(module.fc1, dropped, rows=True)
                _zero(module.fc2, dropped, rows=False)
    return masked


def expand(model: Checkpoint | PrunedMarianMTModel) -> MarianMTModel:
    """Return a stock MarianMTModel with the same outputs: cut lines return as zeros."""
    model = model.model if isinstance(model, Checkpoint) else model
    values = _plain(model.config)
    del values["encoder_sizes"], values["decoder_sizes"]
    stock = MarianMTModel(MarianConfig(**values))
    stock.generation_config = copy.deepcopy(model.generation_config)
    stock.load_state_dict({k: v for k, v in model.state_dict().items() if not _is_prunable(k)}, strict=False)
    full = dict(sub_blocks(stock))
    d_model = model.config.d_model
    widths = {s: d_model // getattr(model.config, f"{s}_attention_heads") for s in ("encoder", "decoder")}
    with torch.no_grad():
        for name, module in sub_blocks(model):
            if isinstance(module, PrunedAttention):
                _expand_attention(module, full[name], widths[name.split(".")[0]])
            else:
                _spread(module.fc1, full[name].fc1, range(module.fc1.out_features), rows=True)
                _spread(module.fc2, full[name].fc2, range(module.fc2.in_features), rows=False)
    return stock.to(next(model.parameters())).train(model.training)


def _plain(config: PrunedMarianConfig) -> dict[str, object]:
    values = copy.deepcopy(config.to_dict())
    for key in ("model_type", "architectures", "transformers_version"):
        values.pop(key, None)
    return values


def _is_prunable(key: str) -> bool:
    names = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    return any(part in names for part in key.split("."))


def _planned_sizes(plan: Plan, side: str, layers: int) -> list[dict[str, object]]:
    names = ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn")
    sizes = []
    for i in range(layers):
        layer: dict[str, object] = {}
        for name in names:
            of = plan.attention[f"{side}.layers.{i}.{name}"]
            layer[name] = {"heads": len(of.heads), "qk": of.width("qk"), "v": of.width("vo")}
        sizes.append({**layer, "ffn": len(plan.ffn[f"{side}.layers.{i}.ffn"])})
    return sizes


def _cut_attention(big: PrunedAttention, small: PrunedAttention, plan: AttentionPlan) -> None:
    qk = _flat(plan.heads, plan.qk, big.qk_width)
    vo = _flat(plan.heads, plan.vo, big.v_width)
    if plan.heads:
        for name, lines in (("q_proj", qk), ("k_proj", qk), ("v_proj", vo)):
            _take(getattr(big, name), getattr(small, name), lines, rows=True)
    _take(big.out_proj, small.out_proj, vo, rows=False)


def _cut_ffn(big: Any, small: Any, kept: Sequence[int]) -> None:
    _take(big.fc1, small.fc1, kept, rows=True)
    _take(big.fc2, small.fc2, kept, rows=False)


def _mask_attention(module: PrunedAttention, plan: AttentionPlan) -> None:
    if not module.num_heads:
        return
    qk = _dropped(_flat(plan.heads, plan.qk, module.qk_width), module.num_heads * module.qk_width)
    vo = _dropped(_flat(plan.heads, plan.vo, module.v_width), module.num_heads * module.v_width)
    _zero(module.q_proj, qk, rows=True)
    _zero(module.k_proj, qk, rows=True)
    _zero(module.v_proj, vo, rows=True)
    _zero(module.out_proj, vo, rows=False)


def _expand_attention(small: PrunedAttention, full: Any, head_dim: int) -> None:
    heads = tuple(range(small.num_heads))
    qk = _flat(heads, (tuple(range(small.qk_width)),) * len(heads), head_dim)
    vo = _flat(heads, (tuple(range(small.v_width)),) * len(heads), head_dim)
    for name, lines in (("q_proj", qk), ("k_proj", qk), ("v_proj", vo)):
        projection = getattr(small, name) if heads else nn.Linear(full.embed_dim, 1)
        _spread(projection, getattr(full, name), lines, rows=True)
    _spread(small.out_proj, full.out_proj, vo, rows=False)


def _flat(heads: Sequence[int], lines: Sequence[Sequence[int]], width: int) -> list[int]:
    """Convert indices inside heads to indices of the whole projection."""
    return [head * width + i for head, of_head in zip(heads, lines, strict=True) for i in of_head]


def _dropped(kept: Sequence[int], width: int) -> list[int]:
    return sorted(set(range(width)) - set(kept))


def _take(big: nn.Linear, small: nn.Linear, lines: Sequence[int], *, rows: bool) -> None:
    index = torch.tensor(lines, dtype=torch.long, device=big.weight.device)
    small.weight.copy_(big.weight.index_select(0 if rows else 1, index))
    small.bias.copy_(_bias(big, index) if rows else big.bias)


def _bias(layer: nn.Linear, index: Tensor) -> Tensor:
    return layer.bias.index_select(0, index)


def _zero(layer: nn.Linear, lines: Sequence[int], *, rows: bool) -> None:
    index = torch.tensor(lines, dtype=torch.long, device=layer.weight.device)
    layer.weight.index_fill_(0 if rows else 1, index, 0.0)
    if rows:
        layer.bias.index_fill_(0, index, 0.0)


def _spread(small: nn.Linear, full: nn.Linear, lines: Sequence[int], *, rows: bool) -> None:
    """Copy the lines of the small layer to positions `lines` of the full one, and zero the rest."""
    index = torch.tensor(list(lines), dtype=torch.long)
    weight, bias = small.weight.to(full.weight), small.bias.to(full.bias)
    full.weight.zero_()
    full.bias.zero_()
    if len(index):
        full.weight.index_copy_(0 if rows else 1, index, weight)
    if not rows:
        full.bias.copy_(bias)
    elif len(index):
        full.bias.index_copy_(0, index, bias)
