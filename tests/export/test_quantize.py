"""The gate of an int8 export: what costs too much BLEU stays fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.artefacts import write_manifest
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import new_folder
from tprune.export.et.export import to_executorch
from tprune.export.graphs.precision import COMPONENTS, INT8, Precision
from tprune.export.manifest import FileEntry, Manifest
from tprune.export.marian import gate as module
from tprune.export.marian import publish as publishing
from tprune.export.marian.gate import Gate, quantize
from tprune.export.marian.publish import Judge
from tprune.export.ort.export import to_onnx
from tprune.marian.corpus import Corpus

WORDS = [f"w{i}" for i in range(40)]
LINES = tuple(" ".join(WORDS[i : i + 8]) for i in range(20))
DEV = Corpus(LINES, LINES, "made up", "val")


@dataclass
class Exporter:
    """An export that writes a manifest alone and remembers what was asked."""

    asked: list[Precision]

    def __call__(
        self,
        checkpoint: Any,
        out: Path,
        *,
        sentences: Sequence[str],
        threads: int,
        precision: Precision,
        judge: Judge | None,
    ) -> Manifest:
        assert judge is not None
        self.asked.append(precision)
        with new_folder(out) as folder:
            write_manifest(folder, {"encoder.onnx": FileEntry("0" * 64, 1)}, "onnxruntime")
            manifest = replace(Manifest.read(folder), precision=precision.name, int8=precision.components)
            manifest.write(folder)
            manifest = judge(folder, manifest)
            manifest.write(folder)
        return manifest


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    """Each component in `costs` spoils as many of the twenty sentences as it says."""
    costs = {"embedding": 3, "output": 1, "encoder": 1, "decoder": 0}

    def spoil(folder: Path, sentences: Sequence[str], **rest: Any) -> tuple[list[tuple[int, ...]], int]:
        bad = sum(costs[name] for name in Manifest.read(folder).int8)
        return [(i, 0 if i < bad else 1) for i in range(len(sentences))], 0

    def texts(tokenizer: Any, ids: Sequence[Sequence[int]]) -> tuple[str, ...]:
        return tuple(LINES[i] if good else "something else altogether" for i, good in ids)

    monkeypatch.setattr(module, "translate", spoil)
    monkeypatch.setattr(module, "decode", texts)
    return Exporter([])


CHECKPOINT: Any = SimpleNamespace(tokenizer=None)


def test_all_pass_an_open_gate(tmp_path: Path, exporter: Exporter) -> None:
    manifest = quantize(CHECKPOINT, tmp_path / "out", exporter, Gate(DEV, max_bleu_drop=90.0))
    assert set(manifest.int8) == set(COMPONENTS)
    assert manifest == Manifest.read(tmp_path / "out")
    assert manifest.cost is not None
    assert (manifest.cost.sentences, manifest.cost.identical) == (20, 15)
    assert manifest.cost.fp32_bleu == pytest.approx(100.0)
    assert manifest.cost.alone == {}
    assert len(exporter.asked) == 2


def test_the_dearest_components_go_back_to_fp32(tmp_path: Path, exporter: Exporter) -> None:
    manifest = quantize(CHECKPOINT, tmp_path / "out", exporter, Gate(DEV, max_bleu_drop=8.0))
    assert manifest.cost is not None
    assert set(manifest.int8) == {"decoder", "output"} or set(manifest.int8) == {"decoder", "encoder"}
    assert 100.0 * (1.0 - manifest.cost.bleu / manifest.cost.fp32_bleu) <= 8.0
    assert max(manifest.cost.alone, key=lambda name: manifest.cost.alone[name]) == "embedding"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_trials_of_one_component_are_for_the_same_processors(tmp_path: Path, exporter: Exporter) -> None:
    """Each would otherwise be judged by other weights than it ships with."""
    gate = Gate(DEV, 8.0, Precision(INT8.int8, "arm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.targets, "check_gate", lambda name: None)
        quantize(CHECKPOINT, tmp_path / "out", exporter, gate)
    assert len(exporter.asked) > 2
    assert {one.target_cpu for one in exporter.asked if one.int8} == {"arm"}


def test_what_was_kept_in_float_is_not_tried(tmp_path: Path, exporter: Exporter) -> None:
    quantize(CHECKPOINT, tmp_path / "out", exporter, Gate(DEV, 0.0, INT8.without(["embedding", "output", "encoder"])))
    assert exporter.asked == [Precision(), Precision(frozenset({"decoder"}))]


def test_refuses_when_nothing_passes(tmp_path: Path, exporter: Exporter) -> None:
    gate = Gate(DEV, 0.0, INT8.without(["decoder"]))
    with pytest.raises(WorkFailed, match=r"no component may be int8 within 0.0 % of the fp32 BLEU 100.00: alone they"):
        quantize(CHECKPOINT, tmp_path / "out", exporter, gate)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_gate_that_is_none() -> None:
    with pytest.raises(BadInput, match="every component kept in fp32"):
        Gate(DEV, wanted=Precision())
    with pytest.raises(BadInput, match=r"the BLEU drop -1.0 is not a percentage of at least 0"):
        Gate(DEV, max_bleu_drop=-1.0)
    with pytest.raises(BadInput, match="the BLEU drop nan"):
        Gate(DEV, max_bleu_drop=float("nan"))


def test_refuses_a_folder_that_is_taken(tmp_path: Path, exporter: Exporter) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(BadInput, match="exists and is not empty"):
        quantize(CHECKPOINT, tmp_path / "out", exporter, Gate(DEV))
    assert exporter.asked == []


def test_python_asks_for_the_gate_too(tmp_path: Path) -> None:
    for export in (to_onnx, to_executorch):
        with pytest.raises(BadInput, match="precision int8 needs dev=CORPUS"):
            export(CHECKPOINT, tmp_path / "out", sentences=LINES, precision="int8")
        with pytest.raises(BadInput, match="precision 'int4': must be fp32 or int8"):
            export(CHECKPOINT, tmp_path / "out", sentences=LINES, precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_to_onnx_passes_the_gate(tmp_path: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `quantize` calls it: every attempt with a judge, the last one to the folder that was asked for."""
    quantised: dict[str, Any] = {}
    monkeypatch.setattr(module, "quantize", lambda *args, **options: quantised.update(options, args=args))
    to_onnx(CHECKPOINT, tmp_path / "out", precision="int8", dev=DEV, max_bleu_drop=3.0)
    checkpoint, out, export, gate = quantised["args"]
    assert (checkpoint, out, export) == (CHECKPOINT, tmp_path / "out", to_onnx)
    assert gate == Gate(DEV, 3.0, INT8)
    assert quantised["sentences"] == LINES


def test_an_int8_artefact_is_not_published_without_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_manifest", lambda *_: Manifest.read(tmp_path / "made"))
    monkeypatch.setattr(publishing.parity, "compare", lambda *_, **__: SimpleNamespace(passed=False))
    (tmp_path / "made").mkdir()
    write_manifest(tmp_path / "made", {"encoder.onnx": FileEntry("0" * 64, 1)}, "onnxruntime")
    programs = publishing.Programs("onnxruntime", (), {}, INT8)
    with pytest.raises(BadInput, match="an int8 artefact needs a judge"):
        publishing.publish(
            SimpleNamespace(tokenizer=Tokenizer(), model=None, name="x"),
            tmp_path / "out",
            lambda _: programs,
            sentences=["a"],
        )
    assert not (tmp_path / "out").exists()


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        pass

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [0]}
