"""Which lines there are, and which weights a line owns."""

from __future__ import annotations

import torch

from tests.support.marians import random_plan
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.sites import line_norms, site_parameters, sites
from tprune.pruning.surgery import cut


def test_names_in_order(tiny_model) -> None:
    places = sites(PrunedMarianMTModel.from_stock(tiny_model))
    names = [place.name for place in places]
    assert names[:3] == ["encoder.layers.0.self_attn.qk", "encoder.layers.0.self_attn.vo", "encoder.layers.0.ffn"]
    assert names[6:11] == [
        "decoder.layers.0.self_attn.qk",
        "decoder.layers.0.self_attn.vo",
        "decoder.layers.0.encoder_attn.qk",
        "decoder.layers.0.encoder_attn.vo",
        "decoder.layers.0.ffn",
    ]
    assert len(names) == len(set(names)) == 2 * 3 + 2 * 5
    assert {(place.kind, place.heads, place.width, place.lines) for place in places} == {
        ("qk", 4, 4, 16),
        ("vo", 4, 4, 16),
        ("ffn", 1, 32, 32),
    }


def test_all_lines_together_are_the_prunable_weights(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    for network in (model, cut(model, random_plan(model, 1))):
        assert sum(place.lines * place.weights_per_line for place in sites(network)) == count(network).prunable


def test_empty_sub_blocks_have_no_sites(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    assert sites(cut(model, random_plan(model, 0, "nothing"))) == []


def test_a_line_owns_what_dies_with_it(tiny_model) -> None:
    """Zeroing one line by hand, as one would on paper, is what makes its norm zero and no other."""
    model = PrunedMarianMTModel.from_stock(tiny_model)
    layer = model.model.decoder.layers[1]
    by_hand = {
        "decoder.layers.1.encoder_attn.qk": [
            layer.encoder_attn.q_proj.weight[5],
            layer.encoder_attn.q_proj.bias[5:6],
            layer.encoder_attn.k_proj.weight[5],
            layer.encoder_attn.k_proj.bias[5:6],
        ],
        "decoder.layers.1.encoder_attn.vo": [
            layer.encoder_attn.v_proj.weight[5],
            layer.encoder_attn.v_proj.bias[5:6],
            layer.encoder_attn.out_proj.weight[:, 5],
        ],
        "decoder.layers.1.ffn": [layer.fc1.weight[5], layer.fc1.bias[5:6], layer.fc2.weight[:, 5]],
    }
    for place in sites(model):
        if place.name in by_hand:
            owned = torch.cat([part.detach().flatten() for part in by_hand[place.name]])
            norms = line_norms(model, place)
            assert norms.shape == (place.lines,)
            torch.testing.assert_close(norms[5], owned.norm())
            with torch.no_grad():
                for part in by_hand[place.name]:
                    part.zero_()
            assert (line_norms(model, place) == 0).nonzero().tolist() == [[5]]


def test_parameters_are_the_models_own(tiny_model) -> None:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    place = sites(model)[2]
    (fc1, dim1), (bias, _), (fc2, dim2) = site_parameters(model, place)
    layer = model.model.encoder.layers[0]
    assert fc1 is layer.fc1.weight and bias is layer.fc1.bias and fc2 is layer.fc2.weight
    assert (dim1, dim2) == (0, 1)
