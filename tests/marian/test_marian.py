"""The pruned Marian at full size is HuggingFace's; with sizes of its own it still works with `generate`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from transformers import MarianConfig

from tests.support.marians import PLANS, configs, few, generated, inputs, logits, random_plan, stock
from tprune.marian.config import PrunedMarianConfig, stock_sizes
from tprune.marian.model import PrunedMarianMTModel, set_dropout
from tprune.pruning.surgery import cut


@few
@given(configs())
def test_full_size_is_the_stock_model(config: MarianConfig) -> None:
    ours, theirs = PrunedMarianMTModel.from_stock(stock(config)), stock(config)
    batch = inputs(config)
    torch.testing.assert_close(logits(ours, batch), logits(theirs, batch), atol=1e-6, rtol=1e-6)
    for beams in (1, 3):
        assert generated(ours, batch, num_beams=beams) == generated(theirs, batch, num_beams=beams)


def test_from_stock_shares_nothing(tiny_model) -> None:
    ours = PrunedMarianMTModel.from_stock(tiny_model)
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(1)
    ours.generation_config.max_length = 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())
    assert tiny_model.generation_config.max_length != 3


def test_from_stock_keeps_dtype_and_mode(tiny_model) -> None:
    ours = PrunedMarianMTModel.from_stock(tiny_model.half().train())
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float16}
    assert ours.training


@pytest.mark.parametrize("kind", PLANS[2:])
def test_the_cache_changes_nothing(tiny_model, kind: str) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 3, kind))
    batch = inputs(model.config)
    assert generated(small, batch, use_cache=True) == generated(small, batch, use_cache=False)


@pytest.mark.parametrize("kind", PLANS[2:])
def test_a_sentence_alone_and_in_a_padded_batch(tiny_model, kind: str) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 4, kind))
    batch = inputs(model.config) | {"decoder_input_ids": torch.full((3, 1), model.config.decoder_start_token_id)}
    alone = {name: tensor[1:2, :4] for name, tensor in batch.items()}
    torch.testing.assert_close(logits(small, batch)[1:2], logits(small, alone), atol=1e-5, rtol=1e-5)
    pad = model.config.pad_token_id
    for beams in (1, 3):
        together = [token for token in generated(small, batch, num_beams=beams)[1] if token != pad]
        assert together == [token for token in generated(small, alone, num_beams=beams)[0] if token != pad]


def test_scores_are_scaled_by_the_original_head_width(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 1))
    scales = {m.scaling for m in small.modules() if hasattr(m, "qk_width")}
    assert scales == {4**-0.5}  # 16 wide, 4 heads


def test_empty_sub_blocks_are_their_bias_alone(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 0, "nothing"))
    layer = small.model.encoder.layers[0]
    output, weights = layer.self_attn(torch.randn(2, 5, 16))
    assert weights is None
    torch.testing.assert_close(output, layer.self_attn.out_proj.bias.expand(2, 5, 16))
    assert not hasattr(layer.self_attn, "q_proj")
    assert layer.fc1.weight.shape == (0, 16) and layer.fc2.weight.shape == (16, 0)


def test_eager_attention_gives_the_same_and_its_weights(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    small = cut(model, random_plan(model, 5))
    batch = inputs(model.config)
    fast = logits(small, batch)
    small.set_attn_implementation("eager")
    torch.testing.assert_close(logits(small, batch), fast, atol=1e-5, rtol=1e-5)


def test_dropout_rates_reach_every_layer(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    set_dropout(model, dropout=0.3, attention=0.2, activation=0.1)
    layers = [*model.model.encoder.layers, *model.model.decoder.layers]
    assert {(layer.dropout, layer.activation_dropout) for layer in layers} == {(0.3, 0.1)}
    assert {m.dropout for m in model.modules() if hasattr(m, "qk_width")} == {0.2}
    assert model.model.encoder.dropout == model.model.decoder.dropout == 0.3


def test_sizes_default_to_the_stock_ones(tiny_config) -> None:
    config = PrunedMarianConfig(**tiny_config(encoder_layers=1).to_dict() | {"model_type": "pruned_marian"})
    attention = {"heads": 4, "qk": 4, "v": 4}
    assert config.encoder_sizes == [{"self_attn": attention, "ffn": 32}]
    assert config.decoder_sizes == stock_sizes(config, "decoder")


def test_a_config_with_the_wrong_number_of_layers(tiny_config) -> None:
    values = tiny_config().to_dict() | {"model_type": "pruned_marian", "encoder_sizes": [{"ffn": 3}]}
    with pytest.raises(ValueError, match=r"encoder_sizes: 1 layers, but encoder_layers=2"):
        PrunedMarianConfig(**values)


ATTENTION = {"heads": 4, "qk": 4, "v": 4}


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"ffn": 3}, r"encoder_sizes\[0\]: \{'ffn': 3\} must have the fields self_attn, ffn"),
        ({"self_attn": ATTENTION, "ffn": 33}, r"encoder_sizes\[0\].ffn: 33 is not a whole number from 0 to 32"),
        ({"self_attn": ATTENTION, "ffn": -1}, r"encoder_sizes\[0\].ffn: -1 is not"),
        ({"self_attn": ATTENTION | {"qk": "4"}, "ffn": 3}, r"encoder_sizes\[0\].self_attn.qk: '4' is not"),
        ({"self_attn": 4, "ffn": 3}, r"encoder_sizes\[0\].self_attn: 4 must have the fields heads, qk, v"),
    ],
)
def test_a_config_with_impossible_sizes(tiny_config, sizes: dict, complaint: str) -> None:
    values = tiny_config(encoder_layers=1).to_dict() | {"model_type": "pruned_marian", "encoder_sizes": [sizes]}
    with pytest.raises(ValueError, match=complaint):
        PrunedMarianConfig(**values)
