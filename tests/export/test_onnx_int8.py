"""8-bit products and tables of ONNX graphs, against the arithmetic that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tprune.base.errors import BadInput
from tprune.export.graphs.precision import COMPONENTS, INT8, Precision
from tprune.export.marian.publish import ungated
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.export.ort.int8 import ZERO, BlockTable, RowsProduct, best_block
from tprune.export.search.translator import Translator
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import trim


@pytest.mark.parametrize(("width", "block"), [(256, 256), (512, 256), (1024, 256), (136, 32), (8, 16), (48, 16)])
def test_best_block_stores_least(width: int, block: int) -> None:
    sizes = {size: -(-width // size) * (size + 4) for size in (16, 32, 64, 128, 256)}
    assert best_block(width) == block
    assert sizes[block] == min(sizes.values())


def restored(table: BlockTable) -> Tensor:
    whole = (table.weight.float() - ZERO) * table.scales[:, :, None]
    return whole.flatten(1)[:, : table.width]


@pytest.mark.parametrize("width", [8, 40, 256, 300])
def test_a_table_is_off_by_half_a_step_at_most(width: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, width)
    weight[2] = 0.0
    table = BlockTable(weight)
    step = table.scales.repeat_interleave(table.block, 1)[:, :width]
    assert bool(((restored(table) - weight).abs() <= 0.5 * step + 1e-7).all())
    assert bool((restored(table)[2] == 0.0).all())


def test_a_product_without_bias_is_negative() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.5, 4.0]])  # (in, out)
    plain, negative = RowsProduct(weight, torch.zeros(2)), RowsProduct(weight, None)
    torch.testing.assert_close(plain.weight * plain.scale, weight, atol=0.02, rtol=0.0)
    assert torch.equal(negative.weight, -plain.weight)


@pytest.fixture(scope="module")
def exports(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., MarianConfig], tiny_tokenizer_folder: Path
) -> Callable[[str], Translator]:
    """Open the export of one tiny model by its int8 components."""
    model = randomised(PrunedMarianMTModel.from_stock(MarianMTModel(tiny_config())))
    model.generation_config.max_length = 12
    checkpoint = Checkpoint(model, MarianTokenizer.from_pretrained(tiny_tokenizer_folder), "0123456789abcdef", "tiny")
    place = tmp_path_factory.mktemp("int8")

    def opened(names: str) -> Translator:
        out = place / (names or "fp32")
        if not out.exists():
            precision = Precision(frozenset(names.split("+") if names else ()))
            to_onnx(checkpoint, out, sentences=SENTENCES[:2], precision=precision, judge=ungated)
        return runtime.open(out)

    return opened


SOURCE = [5, 6, 7, 8, 0]


@pytest.mark.parametrize("names", [*COMPONENTS, "+".join(COMPONENTS), "embedding+output"])
def test_every_component_alone_and_all_together_stay_close_to_fp32(
    exports: Callable[[str], Translator], names: str
) -> None:
    wanted, found = exports(""), exports(names)
    target = wanted.greedy(SOURCE).ids
    apart = np.abs(found.logits(SOURCE, target) - wanted.logits(SOURCE, target))
    assert 0.0 < apart.max() < 0.1 * np.abs(wanted.logits(SOURCE, target)).max()
    assert set(found.manifest.int8) == set(names.split("+"))
    assert found.manifest.precision == "int8"


def test_int8_beams_ride_on_the_batch(exports: Callable[[str], Translator]) -> None:
    found = exports("decoder+output+embedding")  # the encoder's one scale a call would see the padding
    together = found.translate([SOURCE, [9, 4, 0]], batch_size=2)
    assert together == tuple(found.greedy(ids).ids for ids in (SOURCE, [9, 4, 0]))


def test_the_table_is_stored_once(exports: Callable[[str], Translator]) -> None:
    files = exports("+".join(COMPONENTS)).manifest.files
    assert set(files) == {"encoder.onnx", "decoder_step.onnx", "shared.bin"}


def test_a_trimmed_vocabulary_shares_the_table_too(
    tmp_path: Path, tiny_config: Callable[..., MarianConfig], tiny_tokenizer_folder: Path
) -> None:
    model = randomised(PrunedMarianMTModel.from_stock(MarianMTModel(tiny_config())))
    model.generation_config.max_length = 12
    tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    small = trim(Checkpoint(model, tokenizer, "0123456789abcdef", "tiny"), [list(range(3, 90))])
    manifest = to_onnx(small, tmp_path / "fp32", sentences=SENTENCES)
    assert manifest.parity.identical == len(SENTENCES)  # the encoder finds its rows in the new order
    assert "shared.bin" in manifest.files
    assert "shared.bin" in to_onnx(small, tmp_path / "int8", sentences=SENTENCES, precision=INT8, judge=ungated).files


def test_refuses_an_unknown_component() -> None:
    with pytest.raises(BadInput, match="unknown component lm_head; an export has encoder, decoder, output, embedding"):
        Precision(frozenset({"encoder", "lm_head"}))
    with pytest.raises(BadInput, match="unknown component lm_head"):
        INT8.without(["lm_head"])
