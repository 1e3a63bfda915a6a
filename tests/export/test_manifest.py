"""The manifest: what is written is read, and what is wrong is refused with a name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tprune.base.errors import BadInput
from tprune.export.manifest import (
    FILE,
    Limits,
    Manifest,
    ModelFacts,
    ParityResult,
    Special,
    Tensors,
    TensorSpec,
    artefact_id,
    describe_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "encoder.onnx").write_bytes(b"graph one")
    (tmp_path / "decoder_step.onnx").write_bytes(b"graph two")
    make(tmp_path).write(tmp_path)
    return tmp_path


def make(folder: Path) -> Manifest:
    files = describe_files(folder, ("encoder.onnx", "decoder_step.onnx"))
    ids = TensorSpec("input_ids", "int64", ("batch", "source"))
    return Manifest(
        id=artefact_id(files),
        runtime="onnxruntime",
        precision="fp32",
        files=files,
        tensors={"encoder": Tensors((ids,), (TensorSpec("mask", "float32", ("batch", 1, 1, "source")),))},
        special=Special(start=9, eos=0, pad=9, unk=1, forced_eos=None),
        limits=Limits(source=64, target=32),
        model=ModelFacts("0123456789abcdef", "dense", "dense", None, 1.0, 100, 200),
        parity=ParityResult(3, 3, 1e-6),
    )


def test_reads_what_it_wrote(folder: Path) -> None:
    found = Manifest.read(folder)
    assert found == make(folder)
    assert json.loads(json.dumps(found.document())) == json.loads((folder / FILE).read_text())  # the header survives
    found.check_files(folder)


def test_id_follows_the_files(folder: Path) -> None:
    before = make(folder).id
    (folder / "encoder.onnx").write_bytes(b"graph 1")
    assert len(before) == 16
    assert make(folder).id != before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 99}, "has schema 99; this version reads schema 1"),
        ({"kind": "quality"}, "not the manifest of an artefact"),
        ({"parity": {"sentences": 1}}, "incomplete or damaged"),
        ({"limits": {"source": 0, "target": 8}}, "source 0 must be at least 1"),
        ({"runtime": "tflite"}, "'tflite' is not one of onnxruntime, executorch"),
        ({"precision": "fp64"}, "'fp64' is not one of fp32, int8"),
        ({"id": "beef"}, "'beef' does not belong to its files"),
    ],
)
def test_refuses_a_wrong_document(folder: Path, change: dict[str, object], complaint: str) -> None:
    path = folder / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadInput, match=complaint):
        Manifest.read(folder)


def test_refuses_a_missing_field(folder: Path) -> None:
    document = json.loads((folder / FILE).read_text())
    del document["special"]
    (folder / FILE).write_text(json.dumps(document))
    with pytest.raises(BadInput, match="incomplete or damaged .*special"):
        Manifest.read(folder)


def test_refuses_what_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not an artefact: it has no manifest\.json"):
        Manifest.read(tmp_path)
    with pytest.raises(BadInput, match="is not an artefact"):
        Manifest.read(tmp_path / "nowhere")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        Manifest.read(tmp_path)


def test_refuses_a_key_that_stands_twice(folder: Path) -> None:
    path = folder / FILE
    path.write_text(path.read_text().replace('"eos":', '"eos": 3, "eos":', 1))
    with pytest.raises(BadInput, match=r"manifest\.json' is not JSON \(the key 'eos' stands there twice\)"):
        Manifest.read(folder)


def test_names_every_damaged_file(folder: Path) -> None:
    manifest = Manifest.read(folder)
    (folder / "encoder.onnx").write_bytes(b"graph ONE")
    (folder / "decoder_step.onnx").unlink()
    with pytest.raises(BadInput, match=r"encoder\.onnx has sha256 .* instead of .*; decoder_step\.onnx is missing"):
        manifest.check_files(folder)
    (folder / "encoder.onnx").write_bytes(b"graph")
    with pytest.raises(BadInput, match="has 5 bytes instead of 9"):
        manifest.check_files(folder)


def test_refuses_an_unknown_dtype() -> None:
    with pytest.raises(BadInput, match="'float16' is not one of float32, int64"):
        replace(TensorSpec("x", "int64", (1,)), dtype="float16")
