"""The library functions of the verbs: they return typed values, report progress to `watch` and print nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from transformers.utils import logging

import tprune.verbs
from tests.support import command, runs
from tests.support.command import write_data, write_model
from tprune.base.errors import BadInput
from tprune.bench.measure.settings import Settings as BenchSettings
from tprune.cli.main import app
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.quality import Quality
from tprune.pruning.settings import AnalysisSettings, Settings
from tprune.verbs.bench import Place, bench
from tprune.verbs.evaluate import evaluate
from tprune.verbs.expand import expand
from tprune.verbs.export import Settings as ExportSettings
from tprune.verbs.export import export
from tprune.verbs.inputs import Text
from tprune.verbs.prune import prune
from tprune.verbs.translate import translate
from tprune.verbs.verify import verify

CHEAP = Settings(criterion="magnitude", steps=0, finetune_steps=2, round_to=2)


@pytest.fixture(scope="module", name="place")
def a_place(tiny_config, tiny_tokenizer_folder: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "dense", tiny_config(), tiny_tokenizer_folder)
    write_data(folder / "data")
    return folder


def test_from_pruning_to_quality_without_a_word(place: Path, capfd, monkeypatch) -> None:
    logging.disable_progress_bar()  # transformers' own; the command line switches it off in the environment
    seen: list[str] = []

    def watch(task: str, done: int, total: int, note: str) -> None:
        assert 0 <= done <= total
        seen.append(task)

    model, text, small = str(place / "dense"), Text(str(place / "data")), place / "small"
    made = prune(model, Text(text.data, split="train"), small, CHEAP, threads=1, watch=watch)
    assert isinstance(made, Checkpoint) and made.facts["criterion"] == "magnitude"
    proof = verify(str(small))
    assert (proof.id, proof.pruned, proof.verdict.passed) == (made.id, True, True)
    expand(str(small), place / "wide")
    assert verify(str(place / "wide")).pruned is False
    manifest = export(str(small), text, place / "onnx", ExportSettings(parity=2), watch=watch)
    assert manifest.parity.sentences == 2
    found = evaluate(str(place / "onnx"), text, threads=1, out=place / "quality.json", watch=watch)
    assert isinstance(found, Quality) and (place / "quality.json").is_file()
    planned = bench([place / "onnx"], text, place / "records.jsonl", BenchSettings(), dry_run=True)
    assert (planned.count, planned.task.noun, list(planned.records)) == (6, "sentence", [])
    taught = translate(model, Text(text.data, split="train", limit=2), place / "taught", keep=["val"], threads=1)
    assert taught.sentences + taught.empty == 2
    assert set(seen) == {"fine-tune", "translate"}
    assert capfd.readouterr() == ("", "")
    call = ("bench", place / "onnx", "--data", place / "data", "--threads", "1,2", "--dry-run")
    assert command.tprune(*call, "--json").json["threads"] == [1, 2]
    assert "6 sentences, 5 blocks, threads 1,2, warm, on host\n" in command.tprune(*call).out

    half = runs.model("half", "shs", 0.5)
    kept = [runs.timed(half, block, [5, 15]) for block in range(3)]
    monkeypatch.setattr("tprune.bench.api.run", lambda *_, out, **__: [out.write_text("old\nnew\nnew\n"), *kept][1:])
    (place / "records.jsonl").write_text("old\nhalf a li")
    said = command.tprune(*call[:-1], "--out", place / "records.jsonl").out
    assert said.startswith(f"wrote 2 new records to {place}/records.jsonl; 3 in all, 0 of them memory passes; next: ")


def test_the_python_interface_loads_folders_and_refuses_text_without_a_split(place: Path) -> None:
    dense, data = str(place / "dense"), str(place / "data")
    corpus = tprune.load_corpus(data, split="train")
    small = tprune.prune(dense, corpus, CHEAP, teacher=place / "dense")
    assert small.source.name == "dense"
    for call in (
        lambda: tprune.prune(dense, data, CHEAP),
        lambda: tprune.analyse(dense, data, corpus),
        lambda: tprune.evaluate(dense, data),
    ):
        with pytest.raises(BadInput, match=r"(corpus|train) '.*': give a Corpus, such as tprune\.load_corpus"):
            call()
    with pytest.raises(BadInput, match="model 'nosuch': no such folder"):
        tprune.prune("nosuch", corpus, CHEAP)


def test_a_dry_run_checks_the_call_and_returns_nothing(place: Path) -> None:
    text = Text(str(place / "data"), split="train")
    assert prune(str(place / "dense"), text, place / "new", CHEAP, threads=1, dry_run=True) is None
    with pytest.raises(BadInput, match=r"has no train\.fr"):
        prune(str(place / "dense"), Text(text.data, "fr", split="train"), place / "new", CHEAP, dry_run=True)
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "tflite"}, "--to 'tflite': must be onnx or executorch"),
        ({"max_bleu_drop": 1.0}, "--max-bleu-drop: only for --precision int8"),
        ({"precision": "int8", "max_bleu_drop": -1.0}, "--max-bleu-drop -1: must be at least 0"),
        ({"precision": "int8", "keep_float": "encoder,decoder,output,embedding"}, "every component kept in fp32"),
        ({"precision": "int8", "keep_float": "head"}, "unknown component head"),
        ({"to": "executorch", "precision": "int8", "target_cpu": "arm"}, "is the same for every processor"),
    ],
)
def test_export_settings_that_are_wrong(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ExportSettings(**change)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place(adb="/usr/bin/adb"), "--adb: only for --on adb"),
        (Place(keep_awake=True), "--keep-awake: only for --on adb"),
        (Place("phone"), "--on 'phone': must be host"),
    ],
)
def test_places_that_do_not_exist(place: Place, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        place.serials()


def test_settings_of_the_analysis_are_torch_free_values() -> None:
    assert AnalysisSettings.quick(steps=3).steps == 3


def test_every_verb_has_its_function_and_no_verb_prints() -> None:
    folder = Path(tprune.verbs.__path__[0])
    modules = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    verbs = {command.callback.__name__ for command in app.registered_commands}
    assert verbs - modules.keys() == {"doctor"}  # its function is `tprune.bench.doctor.examine`
    for verb in verbs & modules.keys():
        assert f"\ndef {verb}(" in modules[verb]
    for name, source in modules.items():
        imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
        assert not {one for one in imported if str(one).startswith(("rich", "typer", "tprune.cli"))}, name
        assert "print(" not in source and "sys.stdout" not in source, name
