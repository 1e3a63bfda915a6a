"""Sizes from the formulas against sizes counted while the model runs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import MarianConfig

from tests.support.marians import PLANS, configs, few, full_plan, random_plan, stock
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.surgery import cut


def counted(model: PrunedMarianMTModel, source: int, target: int) -> tuple[int, int]:
    """Return the multiply-accumulates of the encoder and of the decoder in a greedy run, as PyTorch counts them."""
    model.set_attn_implementation("eager")
    ids = torch.randint(1, 20, (1, source))
    length = {"min_new_tokens": target, "max_new_tokens": target, "num_beams": 1, "do_sample": False}
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        encoded = model.model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    with torch.inference_mode(), FlopCounterMode(display=False) as decoder_flops:
        model.generate(encoder_outputs=encoded, attention_mask=torch.ones_like(ids), **length)
    return flops.get_total_flops() // 2, decoder_flops.get_total_flops() // 2


@few
@given(configs(), st.integers(0, 100), st.sampled_from(PLANS))
def test_macs_are_what_runs(config: MarianConfig, seed: int, kind: str) -> None:
    big = PrunedMarianMTModel.from_stock(stock(config))
    model = cut(big, random_plan(big, seed, kind))
    size = count(model, source=7, target=5)
    assert (size.encoder_macs, size.decoder_macs) == counted(model, 7, 5)
    assert size.macs == size.encoder_macs + size.decoder_macs


def test_encoder_macs_layer_by_layer(tiny_model) -> None:
    """The same by hooks on every Linear, for those who trust no counter: (tokens, in) x (in, out) each."""
    big = PrunedMarianMTModel.from_stock(tiny_model)
    model = cut(big, random_plan(big, 2))
    linear: list[int] = []
    for module in model.model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda m, _, out: linear.append(out.numel() * m.in_features))
    tokens = 9
    model.model.encoder(input_ids=torch.randint(1, 20, (1, tokens)))
    pairs = tokens**2 * sum(
        sizes["self_attn"]["heads"] * (sizes["self_attn"]["qk"] + sizes["self_attn"]["v"])
        for sizes in model.config.encoder_sizes
    )
    assert count(model, source=tokens).encoder_macs == sum(linear) + pairs


@pytest.mark.parametrize("kind", ["random", "nothing", "everything"])
def test_parameters(tiny_model, kind: str) -> None:
    big = PrunedMarianMTModel.from_stock(tiny_model)
    model = cut(big, random_plan(big, 1, kind))
    size = count(model)
    positions = sum(p.numel() for name, p in model.named_parameters() if "embed_positions" in name)
    assert size.params == sum(p.numel() for p in model.parameters()) - positions
    assert size.prunable == full_plan(model).kept_weights(16)
