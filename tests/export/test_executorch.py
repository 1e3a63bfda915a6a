"""ExecuTorch artefacts: the methods against HF's own forward pass, the lowered programs against HF generate."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES
from tests.export.test_export import VARIANTS, Source, make
from tests.support.command import tprune, write_data, write_model
from tprune.base.errors import BadInput, WorkFailed
from tprune.export.et import runtime as executorch_runtime
from tprune.export.et.export import to_executorch
from tprune.export.et.graphs import EncoderMethod, StepMethod, method_ports
from tprune.export.manifest import PROGRAM, Manifest, artefact_id, describe_files
from tprune.export.marian import parity
from tprune.export.marian.open import open_translator
from tprune.export.marian.publish import limits_of
from tprune.export.search.translator import Translator
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import kept_ids, trim

LENGTH = 20
SOURCES = [[5, 0], [0], [7, 3, 99, 4, 11, 8, 6, 0], list(range(2, 40)), [*range(60, 100, 3), 0]]
KEPT = [*range(2, 40), *range(60, 90)]  # target tokens of a trimmed vocabulary
# Lowering takes seconds a layer: one layer a side is dense, one has two vocabularies and an output matrix of its own,
# and two are pruned, with empty sub-blocks and sizes of their own. The vocabularies of the last two are trimmed.
SHALLOW = {"encoder_layers": 1, "decoder_layers": 1}
LOWERED: dict[str, dict[str, Any]] = {"stock": SHALLOW, "split": SHALLOW | {"tie_word_embeddings": False}, "ragged": {}}

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs executorch (pip install executorch)"
)


def model_of(config: Callable[..., MarianConfig], variant: str, **changes: Any) -> PrunedMarianMTModel:
    model = make(partial(config, **changes), variant)
    model.final_logits_bias[0, model.config.eos_token_id] += 3.0  # so that some sentences end by themselves
    model.final_logits_bias[0, model.config.pad_token_id] = 12.0  # it takes its share, and would often win
    model.generation_config.max_length = LENGTH
    return model


@torch.no_grad()
def teacher_forced(model: PrunedMarianMTModel, source: list[int], target: list[int], room: int) -> Tensor:
    """(len(target), kept vocabulary) from our two modules; `room` rows of cache, those not yet written full of junk."""
    limits = limits_of(model)
    ports = method_ports(model, limits)
    outputs = EncoderMethod(model)(torch.tensor([source]))
    encoded = dict(zip((port.name for port in ports["encoder"][1]), outputs, strict=True))
    shapes = {
        p.name: [room if s == "past" else s for s in p.shape] for p in ports["decoder_step"][0] if "past" in p.shape
    }
    known = encoded | {name: torch.full(shape, 1e4) for name, shape in shapes.items()}
    step, rows, kept = StepMethod(model, limits), [], kept_ids(model)
    for position, token in enumerate(target):
        given = [known[port.name] for port in ports["decoder_step"][0][2:]]
        logits, *new = step(torch.tensor([kept.index(token)]), torch.tensor([position]), *given)
        assert [tuple(state.shape) for state in new] == [port.shape for port in ports["decoder_step"][1][1:]]
        for name, state in zip(shapes, new, strict=True):
            known[name][:, position] = state[:, 0]
        rows.append(logits)
    return torch.cat(rows)


@pytest.mark.parametrize("variant", VARIANTS)
def test_method_modules_equal_the_model(tiny_config: Callable[..., MarianConfig], variant: str) -> None:
    model = model_of(tiny_config, variant)
    target = [model.config.decoder_start_token_id, 17, 3, 99]
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[5, 6, 7, 0]]), decoder_input_ids=torch.tensor([target])).logits[0]
    found = teacher_forced(model, [5, 6, 7, 0], target, room=4)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["ragged", "split"])
def test_a_trimmed_vocabulary_keeps_its_logits(tiny_config: Callable[..., MarianConfig], variant: str) -> None:
    whole = model_of(tiny_config, variant)
    target = [whole.config.decoder_start_token_id, 17, 3]
    checkpoint = trim(Checkpoint(whole, Tokens(whole.config), "0" * 16, "tiny"), [KEPT])
    kept = kept_ids(checkpoint.model)
    assert 60 < len(kept) < 80
    found = teacher_forced(checkpoint.model, [5, 0], target, room=3)
    torch.testing.assert_close(found, teacher_forced(whole, [5, 0], target, room=3)[:, kept])


def test_a_module_leaves_the_model_as_it_was(tiny_config: Callable[..., MarianConfig]) -> None:
    model = model_of(tiny_config, "ragged")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    EncoderMethod(model), StepMethod(model, limits_of(model))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "position" not in name)


class Tokens:
    """What `trim` asks of a tokeniser."""

    def __init__(self, config: MarianConfig) -> None:
        self.eos_token_id, self.unk_token_id = config.eos_token_id, 1


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., MarianConfig], tiny_tokenizer_folder: Path
) -> dict[str, tuple[PrunedMarianMTModel, Path]]:
    """Return the model and the artefact of every `LOWERED` variant."""
    tokenizer, found = MarianTokenizer.from_pretrained(tiny_tokenizer_folder), {}
    for variant, changes in LOWERED.items():
        source = Source(model_of(tiny_config, variant, **changes), tokenizer)
        if variant != "stock":
            model = trim(Checkpoint(source.model, tokenizer, source.id, source.name), [KEPT]).model
            model.generation_config.max_length = LENGTH
            source = replace(source, model=model)
        folder = tmp_path_factory.mktemp("executorch") / variant
        to_executorch(source, folder, sentences=SENTENCES[:2])
        found[variant] = (source.model, folder)
    return found


@pytest.fixture(scope="module")
def folder(exported: dict[str, tuple[PrunedMarianMTModel, Path]]) -> Path:
    return exported["ragged"][1]


@pytest.fixture(scope="module")
def artefact(folder: Path) -> Translator:
    return open_translator(folder)


@needs_executorch
@pytest.mark.parametrize("variant", LOWERED)
def test_a_program_translates_like_generate(exported, variant: str) -> None:
    model, folder = exported[variant]
    artefact = open_translator(folder)
    for source in SOURCES:
        wanted = parity.greedy(model, source, LENGTH)
        assert artefact.greedy(source).ids == wanted
        assert artefact.greedy(source, 3).ids == parity.greedy(model, source, 3)
    assert parity.compare(model, folder, SOURCES).passed


@needs_executorch
def test_beams_of_a_program_equal_generate(exported) -> None:
    model, folder = exported["stock"]
    artefact = open_translator(folder)
    for source in SOURCES[:3]:
        ids = torch.tensor([source])
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=3, do_sample=False)
        wanted = [token for token in found[0, 1:].tolist() if token != model.config.pad_token_id]
        assert artefact.beam(source, 3) == tuple(wanted)


@needs_executorch
def test_the_manifest_says_what_is_in_the_program(exported) -> None:
    model, folder = exported["ragged"]
    manifest = Manifest.read(folder)
    assert (manifest.runtime, list(manifest.files)) == ("executorch", [PROGRAM])
    step = {port.name: port.shape for port in manifest.tensors["decoder_step"].inputs}
    assert step["past_key_1"] == (1, "past", 2, 1) and step["past_value_1"] == (1, "past", 2, 3)
    assert step["cross_key_0"] == (1, 1, 4, "source") and step["cross_value_0"] == (1, 1, "source", 2)
    assert not {"past_key_0", "cross_key_1", "mask"} & set(step)
    assert manifest.tensors["decoder_step"].outputs[0].shape == (1, len(kept_ids(model)))
    assert [port.name for port in manifest.tensors["encoder"].inputs] == ["input_ids"]
    assert manifest.delegation is not None and 0.7 < manifest.delegation.share < 1.0
    assert manifest.delegation.outside["aten.native_layer_norm"] == 10


@needs_executorch
def test_encoder_outputs_have_the_shapes_of_the_manifest(artefact: Translator) -> None:
    found = artefact.encode([[5, 6, 7, 0]])
    for port in artefact.manifest.tensors["encoder"].outputs:
        assert found[port.name].shape == tuple(4 if size == "source" else size for size in port.shape)


@needs_executorch
def test_equal_tables_lie_in_the_program_once(exported) -> None:
    model, folder = exported["stock"]
    bytes_of = {name: 4 * tensor.numel() for name, tensor in model.state_dict().items()}
    tables = ("lm_head", "model.decoder.embed_tokens", "model.encoder.embed_tokens")
    once = sum(size for name, size in bytes_of.items() if not name.startswith(tables))
    # Every weight once, the shared table among them, and what describes some 200 operators.
    assert (folder / PROGRAM).stat().st_size < once + 200_000


@needs_executorch
@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda artefact: artefact.greedy([5] * 65), "has 65 token ids; this artefact takes at most 64"),
        (lambda artefact: artefact.greedy([]), "has no token ids"),
        (lambda artefact: artefact.greedy([5, 0], LENGTH + 1), "max_length must be between 2 and 20"),
        (lambda artefact: artefact.translate([[5, 0], [6, 0]]), "one sentence at a time, not 2"),
    ],
)
def test_refuses_a_wrong_call(artefact: Translator, call: Callable[[Translator], object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        call(artefact)


@needs_executorch
def test_a_token_beyond_the_table_is_a_failure_and_no_crash(artefact: Translator) -> None:
    with pytest.raises(WorkFailed, match="ExecuTorch: .* failed with error 0x12; export the artefact again"):
        artefact.greedy([5000, 0])


@needs_executorch
def test_refuses_an_edited_program(folder: Path, tmp_path: Path) -> None:
    edit(folder, tmp_path, lambda program: program[:-1] + bytes([program[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"is damaged: model.pte has sha256"):
        open_translator(tmp_path)


@needs_executorch
@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_refuses_a_broken_program_that_its_manifest_vouches_for(folder: Path, tmp_path: Path, cut: int) -> None:
    edit(folder, tmp_path, lambda program: program[:cut])
    manifest = Manifest.read(tmp_path)
    files = describe_files(tmp_path, (PROGRAM,))
    replace(manifest, files=files, id=artefact_id(files)).write(tmp_path)
    with pytest.raises(BadInput, match=r"ExecuTorch .* cannot open .*model.pte' \(.*\); export it again"):
        open_translator(tmp_path)


@needs_executorch
def test_refuses_what_it_is_not_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="threads must be at least 1, not 0"):
        executorch_runtime.open(folder, threads=0)
    document = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(document | {"runtime": "onnxruntime"}))
    with pytest.raises(BadInput, match="is for onnxruntime; this opens executorch artefacts only"):
        executorch_runtime.open(tmp_path)


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: MarianMTModel) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="executorch is not installed: pip install"):
        to_executorch(Source(tiny_model, None), tmp_path / "out", sentences=SENTENCES[:1])
    assert not (tmp_path / "out").exists()


@needs_executorch
def test_the_command_names_what_stays_outside_xnnpack(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_config: Callable[..., MarianConfig],
    tiny_tokenizer_folder: Path,
) -> None:
    monkeypatch.setattr("tprune.export.et.export.to_executorch", lambda *_, **__: Manifest.read(folder))
    model = write_model(tmp_path / "dense", tiny_config(), tiny_tokenizer_folder)
    call = ("export", model, "--data", write_data(tmp_path / "data"), "--out", tmp_path / "out", "--to", "executorch")
    assert re.search(
        r"XNNPACK runs \d\d\.\d% of the operators; outside it: .*10 aten.native_layer_norm", tprune(*call).out
    )
    assert tprune(*call, "--json").json["delegation"] == asdict(Manifest.read(folder).delegation)


@needs_executorch
def test_the_command_evaluates_an_artefact(folder: Path, tmp_path: Path) -> None:
    quality = tprune("evaluate", folder, "--data", write_data(tmp_path / "data"), "--limit", "2", "--json").json
    assert (quality["runtime"], quality["sentences"]) == ("executorch", 2)


def edit(folder: Path, out: Path, change: Callable[[bytes], bytes]) -> None:
    """Copy an artefact's manifest to `out` with a changed program."""
    (out / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    (out / PROGRAM).write_bytes(change((folder / PROGRAM).read_bytes()))
