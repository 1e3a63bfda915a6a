"""int8 in ExecuTorch artefacts: the quantised modules, their lowered programs, and the file that holds a table once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import MarianConfig, MarianTokenizer

from tests.conftest import SENTENCES
from tests.export.test_executorch import KEPT, LENGTH, SHALLOW, Tokens, model_of
from tests.export.test_export import Source
from tprune.base.errors import BadInput
from tprune.export.et import pte
from tprune.export.et.export import to_executorch
from tprune.export.et.graphs import EncoderMethod, StepMethod, method_ports
from tprune.export.et.int8 import Products, Table, quantise_rows
from tprune.export.graphs.precision import FP32, INT8, Precision
from tprune.export.manifest import PROGRAM, Manifest, artefact_id, describe_files
from tprune.export.marian.open import open_translator
from tprune.export.marian.publish import limits_of, ungated
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import kept_ids, trim

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs executorch (pip install executorch)"
)
OUTSIDE = {
    "aten.native_layer_norm",
    "aten.embedding",
    "aten.slice_copy.Tensor",
    "aten.view_copy",  # of a trimmed source vocabulary's new numbers
    "quantized_decomposed.embedding_byte",
}
SOURCE = [5, 6, 7, 0]
SIZES = {"add", "sym_size.int"}  # of numbers, not of tensors


def test_rows_are_quantised_symmetrically() -> None:
    rows, scale = quantise_rows(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [254.0, 1.0, -127.0]]))
    assert rows.tolist() == [[64, -127, 32], [0, 0, 0], [127, 0, -64]]
    torch.testing.assert_close(scale, torch.tensor([2.0 / 127, 1.0, 2.0]))


def test_an_int8_product_is_as_close_as_its_steps() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(48, 33), nn.Linear(48, 7)]
    hidden = torch.randn(5, 48)
    for layer, found in zip(layers, Products(layers, int8=True)(hidden), strict=True):
        wanted = layer(hidden)
        assert 0 < (found - wanted).abs().max() < 0.02 * wanted.abs().max()
    for layer, found in zip(layers, Products(layers, int8=False)(hidden), strict=True):
        assert torch.equal(found, layer(hidden))


def test_an_int8_table_is_off_by_half_a_step() -> None:
    matrix = torch.randn(9, 16)
    found = Table(matrix, int8=True)(torch.tensor([3, 8]))
    assert ((found - matrix[[3, 8]]).abs() <= matrix[[3, 8]].abs().amax(1, keepdim=True) / 254 + 1e-7).all()


def logits(model: PrunedMarianMTModel, precision: Precision) -> torch.Tensor:
    """(1, kept vocabulary) of `SOURCE`'s first token, as our modules compute them before they are lowered."""
    limits = limits_of(model)
    ports = method_ports(model, limits)
    with torch.no_grad():
        found = EncoderMethod(model, precision)(torch.tensor([SOURCE]))
        known = dict(zip((port.name for port in ports["encoder"][1]), found, strict=True))
        for port in ports["decoder_step"][0][2:]:
            if "past" in port.shape:
                known[port.name] = torch.zeros([1 if size == "past" else int(size) for size in port.shape])
        given = [known[port.name] for port in ports["decoder_step"][0][2:]]
        start = kept_ids(model).index(model.config.decoder_start_token_id)
        result: torch.Tensor = StepMethod(model, limits, precision)(torch.tensor([start]), torch.tensor([0]), *given)[0]
        return result


@pytest.mark.parametrize("component", ["encoder", "decoder", "output", "embedding"])
def test_every_component_alone_changes_the_logits_a_little(
    tiny_config: Callable[..., MarianConfig], component: str
) -> None:
    model = model_of(tiny_config, "ragged")
    exact = logits(model, FP32)
    apart = (logits(model, Precision(frozenset({component}))) - exact).abs().max()
    assert 0 < apart < 0.05 * exact.abs().max()


def test_refuses_an_unknown_component() -> None:
    with pytest.raises(
        BadInput, match="unknown component attention; an export has encoder, decoder, output, embedding"
    ):
        Precision(frozenset({"attention"}))


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., MarianConfig], tiny_tokenizer_folder: Path
) -> dict[str, tuple[PrunedMarianMTModel, Path]]:
    """Return model and int8 artefact: one dense, one pruned with widths from 1 on and a trimmed vocabulary."""
    tokenizer, found = MarianTokenizer.from_pretrained(tiny_tokenizer_folder), {}
    for variant, changes in {"stock": SHALLOW, "ragged": {}}.items():
        source = Source(model_of(tiny_config, variant, **changes), tokenizer)
        if variant == "ragged":
            model = trim(Checkpoint(source.model, Tokens(source.model.config), source.id, source.name), [KEPT]).model
            model.generation_config.max_length = LENGTH
            source = replace(source, model=model)
        folder = tmp_path_factory.mktemp("int8") / variant
        to_executorch(source, folder, sentences=SENTENCES[:1], precision=INT8, judge=ungated)
        found[variant] = (source.model, folder)
    return found


@pytest.mark.parametrize("variant", ["stock", "ragged"])
def test_an_int8_program_computes_what_its_modules_do(exported, variant: str) -> None:
    model, folder = exported[variant]
    found = open_translator(folder).logits(SOURCE, [3])[:, kept_ids(model)]
    torch.testing.assert_close(torch.from_numpy(found), logits(model, INT8), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("variant", ["stock", "ragged"])
def test_xnnpack_takes_every_int8_product(exported, variant: str) -> None:
    manifest = Manifest.read(exported[variant][1])
    assert manifest.precision == "int8" and set(manifest.int8) == INT8.int8
    assert manifest.delegation is not None and set(manifest.delegation.outside) <= OUTSIDE | SIZES
    assert manifest.delegation.outside["quantized_decomposed.embedding_byte"] == 3  # not the encoder's positions


def test_the_file_holds_the_table_once(exported) -> None:
    model, folder = exported["stock"]
    program = (folder / PROGRAM).read_bytes()
    rows, _ = quantise_rows(model.model.shared.weight.detach() * model.config.d_model**0.5)
    assert program.count(rows.numpy().tobytes()) == 1
    assert pte.fold(program) == program


def test_a_file_without_segments_is_left_alone() -> None:
    assert pte.fold(b"\0\0\0\0ET12" + bytes(64)) == b"\0\0\0\0ET12" + bytes(64)


def vouch(folder: Path, program: bytes, out: Path) -> None:
    """Write an artefact whose manifest has the digest of `program`, whatever it holds."""
    (out / PROGRAM).write_bytes(program)
    files = describe_files(out, (PROGRAM,))
    replace(Manifest.read(folder), files=files, id=artefact_id(files)).write(out)


@pytest.mark.parametrize("at", [b"ET12", b"eh00", b"XH00", b"XnnpackBackend", b"quantized_decomposed::embedding_byte"])
def test_refuses_a_damaged_program_that_its_manifest_vouches_for(exported, tmp_path: Path, at: bytes) -> None:
    folder = exported["ragged"][1]
    program = (folder / PROGRAM).read_bytes()
    vouch(folder, program.replace(at, at[:-1] + b"~"), tmp_path)
    with pytest.raises(BadInput, match=r"ExecuTorch .* cannot open .*model.pte' \(.*\); export it again"):
        open_translator(tmp_path)


def test_says_which_release_a_program_is_of(exported, tmp_path: Path) -> None:
    folder = exported["ragged"][1]
    manifest = Manifest.read(folder)
    program = (folder / PROGRAM).read_bytes().replace(b"ET12", b"ET99")
    vouch(folder, program, tmp_path)
    header = {**manifest.header, "versions": {**manifest.header["versions"], "executorch": "9.9.0"}}
    replace(Manifest.read(tmp_path), header=header).write(tmp_path)
    with pytest.raises(BadInput, match=r"ExecuTorch [\d.]+ cannot open .*exported with ExecuTorch 9.9.0"):
        open_translator(tmp_path)
