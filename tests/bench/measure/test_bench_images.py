"""Benchmarks of image networks: the runner's task `classify`, and records with the device's own accuracy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.phone.test_bundle import real
from tests.support import cnn_nets
from tests.support.artefacts import run_of, write_artefact
from tests.support.cnn_nets import CLASSES, IMAGE, images, network
from tests.support.command import tprune
from tests.support.native import Called, Runner, build
from tests.support.runs import HALF, timed
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.pixels import Pixels
from tprune.bench.libraries import abi
from tprune.bench.measure import blocks, host, outputs, record
from tprune.bench.measure.blocks import Place
from tprune.bench.measure.conditions import Conditions, Load
from tprune.bench.measure.plan import plan
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.tasks import CLASSIFICATION
from tprune.bench.measure.tasks import read_subject as read
from tprune.bench.phone import fleet
from tprune.bench.report.report import report
from tprune.bench.runner.contract import RunFailed
from tprune.export.images import classifier as image_runtime
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import GRAPH, ImageManifest, ImageParity, NetworkFacts
from tprune.export.manifest import FileEntry, artefact_id
from tprune.export.ort.export import network_to_onnx

FAST = Settings(blocks=2, warmup=1)
HOST = {"kind": "host", "serial": None, "model": "made up", "abi": "x86_64", "emulated": False}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Path:
    """Return a real artefact, used only by the tests of the runner."""
    folder = tmp_path_factory.mktemp("real") / "tiny"
    network_to_onnx(network(), folder, name="tiny")
    return folder


@pytest.fixture(scope="module")
def program() -> Path:
    return build("host", "tprune-ort")


@pytest.fixture
def runner(program: Path, tmp_path: Path) -> Runner:
    return Runner(program, tmp_path)


def described(folder: Path, name: str, criterion: str = "dense") -> Path:
    """Write the manifest of an image artefact without its graph."""
    folder.mkdir()
    files = {"model.onnx": FileEntry(name.encode().hex().ljust(64, "0"), 1000)}
    ImageManifest(
        id=artefact_id(files), runtime="onnxruntime", precision="fp32", files=files, tensors={}, classes=CLASSES,
        image=IMAGE, model=NetworkFacts(name, name, "tiny", criterion, 0, 1.0, 50, 70),
        parity=ImageParity(1, "made up", 1, 0.0, 1e-4),
    ).write(folder)  # fmt: skip
    return folder


class Fake:
    """A place with given outputs: the class of every image, by the artefact's name."""

    def __init__(self, answers: Mapping[str, list[int]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, tuple[str, ...], int]] = []
        idle = Conditions(Load((0.0, 0.0, 0.0), None, None))
        self.place = Place(HOST, self.measure, lambda: idle, lambda run: idle)

    def measure(self, subject, job, given):
        self.asked.append((subject.name, job.arguments("A", "I", "O"), len(given)))
        series = tuple(1000 * (number + 1) for number in range(len(given) * job.passes))
        nothing: dict[str, Any] = {"encoder_ns": (), "step_ns": (), "steps": (), "max_length": None}
        classes = tuple((one,) for one in self.answers[subject.name][: len(given)])
        facts = {"task": "classify", "output_ids": classes, "samples_ns": series, "run_ns": series, **nothing}
        return replace(run_of(subject, job, [[0]] * len(given)), **facts)


def share(right: list[bool]) -> float | None:
    return sum(right) / len(right) if right else None


def test_records_have_the_accuracy_of_what_was_answered(tmp_path):
    pixels = images(4)
    labels = pixels.labels.tolist()
    wrong = [labels[0], *[(label + 1) % 4 for label in labels[1:]]]
    fake = Fake({"dense": labels, "cut": wrong})
    folders = [described(tmp_path / "dense", "dense"), described(tmp_path / "cut", "cut", "svd")]
    out = tmp_path / "records.jsonl"
    done = blocks.run(plan(folders, pixels, FAST), place=fake.place, out=out)
    assert [(one.name, one.block, share(one.right)) for one in done] == [
        ("dense", 0, 1.0), ("cut", 0, 0.25), ("cut", 1, 0.25), ("dense", 1, 1.0),
        ("dense", -1, None), ("cut", -1, None),
    ]  # fmt: skip
    first = done[0]
    assert (first.task, first.labels, first.output_ids) == ("images", labels, [[label] for label in labels])
    assert (first.encoder_ns, first.step_ns, first.steps, first.beams) == ([], [], [], 1)
    assert (first.settings["images"], first.settings["images_id"]) == (4, pixels.id)
    assert not {"sentences", "sentences_id"} & set(first.settings)
    assert record.read(out) == done
    words = fake.asked[0][1]
    assert words[:7] == ("classify", "--artefact", "A", "--images", "I", "--out-dir", "O")
    assert not {"--beams", "--max-length", "--ids"} & set(words)
    assert blocks.run(plan(folders, pixels, FAST), place=fake.place, out=out) == done
    with pytest.raises(BadInput, match="measured with images_id"):
        blocks.run(plan(folders, images(4, seed=2), FAST), place=fake.place, out=out)


def test_the_memory_pass_takes_some_of_the_images():
    assert len(CLASSIFICATION.heaviest(images(60), blocks.MEMORY_INPUTS)) == 50


def test_other_classes_in_a_later_block_are_no_measurement(tmp_path):
    fake, pixels = Fake({"dense": [0, 1, 2]}), images(3)
    folder = described(tmp_path / "dense", "dense")
    real = fake.measure

    def measure(subject, job, given):
        found = real(subject, job, given)
        fake.answers = {"dense": [0, 1, 3]}
        return found

    place = replace(fake.place, measure=measure)
    with pytest.raises(WorkFailed, match="block 1 gave other classes than an earlier block"):
        blocks.run(plan([folder], pixels, FAST), place=place, out=tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(2, (3, 10, 12)), "made-up/test: images are 3 x 10 x 12 .*; dense takes 3 x 12 x 10"),
        ([[5, 0]], "is an artefact for images; it cannot be measured on sentences"),
        (Pixels(images(1).data, np.array([4]), ("a",) * 5, "five"), "five has a label 4; dense knows 4 classes"),
    ],
)
def test_what_cannot_be_measured(tmp_path, given, message):
    with pytest.raises(BadInput, match=message):
        host.run([described(tmp_path / "dense", "dense")], given, out=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_beams_are_for_translations(tmp_path):
    with pytest.raises(BadInput, match="beams 4: images have none"):
        plan([described(tmp_path / "dense", "dense")], images(2), replace(FAST, beams=4))


def test_both_kinds_of_artefact_in_one_call(tmp_path):
    folders = [write_artefact(tmp_path / "translates"), described(tmp_path / "sees", "sees")]
    with pytest.raises(BadInput, match="sees' is an artefact for images, '.*translates' one for translation: measure"):
        host.run(folders, images(2), out=tmp_path / "r.jsonl")
    done = tprune("bench", *folders, "--data", tmp_path, "--out", tmp_path / "r.jsonl")
    done.check_failed(2, "measure them in two calls")


def test_an_image_artefact_has_no_translations_to_score(tmp_path):
    with pytest.raises(BadInput, match="is an artefact for images: `tprune report` says how accurate it is"):
        outputs.read(tmp_path / "r.jsonl", described(tmp_path / "sees", "sees"))


def test_a_translation_has_no_accuracy():
    one = timed(HALF, 0, [1, 2])
    assert (one.task, one.right, one.inputs, one.inputs_id) == ("translation", [], 2, "5e47")


def test_the_runner_answers_as_torch_does(program, artefact, tmp_path):
    pixels = images(30)
    done = host.run(
        [artefact], pixels, out=tmp_path / "r.jsonl", settings=FAST, programs={"onnxruntime": [str(program)]}
    )
    wanted = cnn_nets.classes(network(), pixels)
    assert len(set(wanted)) > 1
    timed_blocks, memory = done[:2], done[2]
    for one in timed_blocks:
        assert one.output_ids == [[found] for found in wanted]
        right = sum(found == label for found, label in zip(wanted, pixels.labels, strict=True))
        assert share(one.right) == right / 30
        assert len(one.samples_ns) == len(one.run_ns) == 30
        assert all(0 < inside <= whole for inside, whole in zip(one.run_ns, one.samples_ns, strict=True))
    assert memory.memory["peak_kib"] > 0 and memory.labels == []


def test_the_runner_runs_int8_as_python_does(program, tmp_path):
    held = replace(images(20), labels=np.array(cnn_nets.classes(network(), images(20))))
    network_to_onnx(network(), tmp_path / "int8", int8=Int8(images(50).data, held, 100))
    records = host.run(
        [tmp_path / "int8"], pixels := images(30, seed=4), out=tmp_path / "r.jsonl", settings=FAST,
        programs={"onnxruntime": [str(program)]},
    )  # fmt: skip
    found = image_runtime.open(tmp_path / "int8").logits(pixels.data).argmax(axis=1)
    assert records[0].precision == "int8" and records[0].output_ids == [[one] for one in found.tolist()]


def classify(runner: Runner, artefact: Path, pixels: np.ndarray, *words: object) -> Called:
    np.save(runner.folder / "images.npy", pixels)
    given = ("--artefact", artefact, "--images", runner.folder / "images.npy", "--out-dir", runner.folder / "out")
    return runner.call("classify", *given, *words)


def test_the_runners_report(runner, artefact):
    report = classify(runner, artefact, images(5).data, "--passes", 2, "--warmup", 3, "--nonce", "n").report
    assert (report["task"], report["artefact"]) == ("classify", read(artefact).id)
    assert (report["warmup"]["runs"], len(report["samples_ns"]), len(report["run_ns"])) == (3, 10, 10)
    assert report["outputs"] == {"ids": "output.ids"}
    assert not {"steps", "encoder_ns", "step_ns", "beams", "max_length"} & set(report)


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (images(2, (3, 10, 12)).data, "is uint8 [2, 3, 10, 12], the artefact takes uint8 [?, 3, 12, 10]"),
        (images(2).data.astype(np.float32), "is float32 [2, 3, 12, 10], the artefact takes uint8"),
        (images(2).data[0], "is uint8 [3, 12, 10], the artefact takes"),
        (images(2).data[:0], "is uint8 [0, 3, 12, 10], the artefact takes"),
    ],
)
def test_the_runner_refuses_other_images(runner, artefact, pixels, complaint):
    classify(runner, artefact, pixels).check_failed(2, complaint)


def copied(artefact: Path, to: Path, **changes: Any) -> Path:
    """Copy an artefact with changes of its manifest."""
    shutil.copytree(artefact, to)
    document = json.loads((to / "manifest.json").read_text())
    (to / "manifest.json").write_text(json.dumps(document | changes))
    return to


def ports(name: str, shape: list[int]) -> dict[str, Any]:
    document = [{"name": name, "dtype": "float32", "shape": shape}]
    return {GRAPH: {"inputs": document, "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 4]}]}}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"task": "translation"}, "the artefact is one of translation, not of images"),
        ({"tensors": ports("picture", [1, 3, 12, 10])}, "'tensors' has no float32 'image' of 4 sizes, the first 1"),
        ({"tensors": ports("image", [2, 3, 12, 10])}, "'tensors' has no float32 'image' of 4 sizes, the first 1"),
        ({"tensors": ports("image", [1, 3, 10, 12])}, "is not what its manifest says: input 'image' is float32"),
        ({"files": {}}, "'files' lacks model.onnx"),
        ({"runtime": "executorch"}, "the artefact is for executorch; this program runs onnxruntime"),
    ],
)
def test_the_runner_refuses_what_a_manifest_should_not_say(runner, artefact, tmp_path, changes, complaint):
    shape = changes.get("tensors", {}).get(GRAPH, {}).get("inputs", [{}])[0].get("shape", [1, *IMAGE])
    pixels = np.zeros((2, *shape[1:]), dtype=np.uint8)
    classify(runner, copied(artefact, tmp_path / "copy", **changes), pixels).check_failed(2, complaint)


def test_the_runner_refuses_an_edited_graph_and_the_wrong_task(runner, artefact, tmp_path):
    folder = copied(artefact, tmp_path / "copy")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    classify(runner, folder, images(2).data).check_failed(2, "bytes instead of")
    runner.translate(artefact, [[5, 0]]).check_failed(2, "the artefact is one of images, not of translation")


def test_a_report_of_several_classes_an_image_is_not_believed(program, artefact, tmp_path, monkeypatch):
    monkeypatch.setattr(host.runner, "read_ids", lambda path: [[1, 2], [3, 4]])
    job = plan([artefact], images(2), FAST).job(FAST)
    with pytest.raises(RunFailed, match="an image has another number of classes than one"):
        host.execute([str(program)], read(artefact), job, images(2))


def test_the_command_line_measures_and_reports(program, artefact, tmp_path):
    from tests.support import pictures
    from tprune.cnn import images as loaded
    from tprune.cnn import nets, score
    from tprune.cnn import network as networks

    data, out = pictures.write(tmp_path / "data", train=10, test=40), tmp_path / "r.jsonl"
    one = networks.Network(cnn_nets.randomised(nets.named("lenet-300-100").build(10)), "lenet-300-100",
                           tuple("0123456789"), (1, 28, 28), (0.1,), (0.3,))  # fmt: skip
    network_to_onnx(one, tmp_path / "lenet")
    words = ("bench", tmp_path / "lenet", "--data", data, "--out", out, "--limit", 25, "--blocks", 1)
    plan = tprune(*words, "--dry-run", "--json").json
    assert (plan["images"], plan["blocks"]) == (25, 1)
    done = tprune(*words)
    assert (done.code, "next: tprune report" in done.out, "QUALITY" in done.out) == (0, True, False)
    (row,) = tprune("report", out, "--out", tmp_path / "report", "--json").json["rows"]
    found = score.evaluate(one, loaded.load(str(data), split="test").first(25))
    assert (row["accuracy"], row["scored"]) == (found.accuracy, 25)
    missing = tprune("bench", tmp_path / "lenet", "--data", data.parent / "report", "--out", tmp_path / "other.jsonl")
    missing.check_failed(2, "has no split 'test'")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_an_emulated_phone_classifies_as_this_machine(at_adb, double, tmp_path, runtime):
    real(abi.named("arm64-v8a"), runtime)
    if runtime == "onnxruntime":
        network_to_onnx(network(), tmp_path / "tiny")
    else:
        from tprune.export.et.export import network_to_executorch

        network_to_executorch(network(), tmp_path / "tiny")
    pixels, once = images(6), Settings(blocks=1, warmup=0)
    out, folders = tmp_path / "r.jsonl", [tmp_path / "tiny"]
    timed_block, memory = fleet.run(folders, pixels, serials=[double.serial], out=out, settings=once)
    assert (timed_block.verdict, timed_block.identical, memory.verdict) == ("EMULATED", 6, "EMULATED")
    assert timed_block.output_ids == [[found] for found in cnn_nets.classes(network(), pixels)]
    assert timed_block.right and timed_block.machine["uname"].endswith("aarch64")
    (row,) = report([out], tmp_path / "report")["functional"]
    assert (row["identical"], row["sentences"], row["accuracy"]) == (6, 6, share(timed_block.right))
