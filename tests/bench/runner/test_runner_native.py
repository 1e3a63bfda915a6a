"""The C++ runner on this machine against the Python loop, and everything that its contract promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tests.export.test_export import Source, make
from tests.support.command import wait_for
from tests.support.native import CPUS, Runner, build, copy_artefact, sentences
from tprune.bench.runner.contract import host_environment, read_run, write_ids
from tprune.export.marian.open import open_translator
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.vocabulary import trim


@pytest.fixture(scope="module")
def program() -> Path:
    return build("host", "tprune-ort")


@pytest.fixture
def runner(program: Path, tmp_path: Path) -> Runner:
    return Runner(program, tmp_path)


@pytest.fixture(scope="module")
def model(tiny_config) -> PrunedMarianMTModel:
    model = randomised(PrunedMarianMTModel.from_stock(MarianMTModel(tiny_config())))
    model.final_logits_bias[0, 0] += 3.0  # so that some sentences end by themselves
    model.final_logits_bias[0, model.config.pad_token_id] = 12.0  # it takes its share, and would often win
    model.generation_config.max_length = 20
    return model


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder) -> MarianTokenizer:
    return MarianTokenizer.from_pretrained(tiny_tokenizer_folder)


@pytest.fixture(scope="module")
def dense(tmp_path_factory, model, tokenizer) -> Path:
    out = tmp_path_factory.mktemp("dense") / "artefact"
    to_onnx(Source(model, tokenizer), out, sentences=SENTENCES[:2])
    return out


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory, model, tokenizer) -> Path:
    out = tmp_path_factory.mktemp("trimmed") / "artefact"
    whole = Checkpoint(model, tokenizer, id="0" * 16, name="tiny")
    to_onnx(trim(whole, [list(range(0, 90, 2))]), out, sentences=SENTENCES[:2])
    return out


def check_tokens(runner: Runner, artefact: Path, count: int = 12) -> None:
    opened = runtime.open(artefact)
    given = sentences(112, count)
    assert runner.translate(artefact, given).ids == [opened.greedy(ids).ids for ids in given]
    for beams in (2, 5):
        assert runner.translate(artefact, given, "--beams", beams).ids == [opened.beam(ids, beams) for ids in given]


def test_dense_tokens(runner: Runner, dense: Path) -> None:
    check_tokens(runner, dense, count=40)


def test_trimmed_tokens(runner: Runner, trimmed: Path) -> None:
    check_tokens(runner, trimmed)
    assert max(map(max, runner.translate(trimmed, sentences(112, 12)).ids)) > 44  # token ids, not rows


@pytest.mark.parametrize("variant", ["ragged", "no-cross-attention", "nothing-left", "split"])
def test_pruned_tokens(runner: Runner, tiny_config, tokenizer, tmp_path: Path, variant: str) -> None:
    model = make(tiny_config, variant)
    model.generation_config.max_length = 12
    to_onnx(Source(model, tokenizer), tmp_path / "artefact", sentences=SENTENCES[:2])
    check_tokens(runner, tmp_path / "artefact")


def test_executorch_tokens(tiny_artefact, tmp_path: Path) -> None:
    wheel = pytest.importorskip("executorch").__path__[0]
    program = build("host", "tprune-et", f"-DEXECUTORCH_ROOT={wheel}")
    assert program.stat().st_size < 300_000
    runner = Runner(program, tmp_path, environment=host_environment("executorch"))
    artefact = tiny_artefact("executorch")
    opened, given = open_translator(artefact), sentences(112, 12)
    called = runner.translate(artefact, given, "--passes", 2, "--profile")
    assert called.ids == [opened.greedy(ids).ids for ids in given]
    assert (called.report["engine"]["name"], called.report["profile"]) == ("executorch", "profile.etdp")
    assert runner.translate(artefact, given, "--beams", 3).ids == [opened.beam(ids, 3) for ids in given]
    shorter = runner.translate(artefact, given, "--max-length", 5)
    assert shorter.ids == [opened.greedy(ids, 5).ids for ids in given]
    runner.translate(artefact, [[5000, 0]]).check_failed(1, "ExecuTorch cannot run encoder")


def test_nothing_forced_at_the_limit(runner: Runner, dense: Path, tmp_path: Path) -> None:
    artefact = copy_artefact(dense, tmp_path / "copy")
    edit(artefact, "special", "forced_eos", value=None)
    check_tokens(runner, artefact)
    assert any(ids[-1] != 0 for ids in runner.translate(artefact, sentences(112, 12)).ids)


@pytest.mark.parametrize(
    "scoring", [{"length_penalty": 3, "early_stopping": True}, {"length_penalty": 0.5, "early_stopping": "never"}]
)
def test_beams_are_scored_as_the_manifest_says(
    runner: Runner, dense: Path, tmp_path: Path, scoring: dict[str, object]
) -> None:
    artefact = copy_artefact(dense, tmp_path / "copy")
    edit(artefact, "scoring", value=scoring)
    opened, given = runtime.open(artefact), sentences(112, 30)
    found = runner.translate(artefact, given, "--beams", 4).ids
    assert found == [opened.beam(ids, 4, **scoring) for ids in given]
    assert found != [opened.beam(ids, 4, length_penalty=1.0, early_stopping=False) for ids in given]


@pytest.mark.parametrize("length", [2, 3, 7])
def test_length_limit(runner: Runner, dense: Path, length: int) -> None:
    opened, given = runtime.open(dense), sentences(112, 6)
    greedy = runner.translate(dense, given, "--max-length", length)
    assert greedy.ids == [opened.greedy(ids, length).ids for ids in given]
    assert greedy.report["max_length"] == length
    beams = runner.translate(dense, given, "--max-length", length, "--beams", 3)
    assert beams.ids == [opened.beam(ids, 3, length) for ids in given]


def test_report(runner: Runner, dense: Path) -> None:
    given = sentences(112, 5)
    words = ("--passes", 3, "--warmup", 7, "--threads", 2, "--sample-ms", 1, "--gap-ms", 2)
    called = runner.translate(dense, given, "--nonce", 'c"0ff\\ée', *words)
    report = called.report
    run = read_run(called.folder, 'c"0ff\\ée')
    assert run.output_ids == tuple(called.ids)
    assert (report["schema"], report["kind"], report["task"], report["error"]) == (1, "run", "seq2seq", None)
    assert report["engine"]["name"] == "onnxruntime"
    assert report["engine"]["version"] == ort.__version__
    assert report["build"]["sanitised"] is False
    assert report["artefact"] == json.loads((dense / "manifest.json").read_text())["id"]
    assert (report["beams"], report["max_length"]) == (1, 20)
    assert report["threads"]["asked"] == 2
    assert report["threads"]["got"] >= 2
    assert report["affinity"] == {"asked": None, "got": CPUS}
    assert report["warmup"]["runs"] == 7
    assert report["conditions"]["during"]
    assert report["profile"] is None
    for series in ("samples_ns", "encoder_ns", "step_ns", "run_ns", "steps"):
        assert len(report[series]) == 15
    for total, encoder, step, inside, steps, ids in zip(
        run.samples_ns, run.encoder_ns, run.step_ns, run.run_ns, run.steps, called.ids * 3, strict=True
    ):
        assert total == encoder + step
        assert 0 < inside < total
        assert steps == len(ids)
    assert report["memory"]["start"]["vm_rss_kib"] < report["memory"]["loaded"]["vm_rss_kib"]
    assert report["memory"]["end"]["vm_hwm_kib"] >= report["memory"]["end"]["vm_rss_kib"]
    assert report["machine"]["uname"].startswith("Linux ")
    assert [cpu["id"] for cpu in report["machine"]["cpus"]][: len(CPUS)]


def test_first_run_without_warmup(runner: Runner, dense: Path) -> None:
    report = runner.translate(dense, sentences(112, 2)).report
    assert report["first_ns"] == report["samples_ns"][0]
    assert report["warmup"] == {"runs": 0, "ns": 0}


def test_warmup_by_time(runner: Runner, dense: Path) -> None:
    warmup = runner.translate(dense, sentences(112, 2), "--warmup-ms", 20, "--warmup", 1).report["warmup"]
    assert warmup["ns"] >= 20_000_000
    assert warmup["runs"] > 1


def test_affinity_is_read_back(runner: Runner, dense: Path) -> None:
    report = runner.translate(dense, [[5, 0]], "--affinity", CPUS[-1], "--threads", 2, "--sample-ms", 1).report
    assert report["affinity"] == {"asked": [CPUS[-1]], "got": [CPUS[-1]]}


def test_profile(runner: Runner, dense: Path) -> None:
    called = runner.translate(dense, [[5, 6, 0]], "--profile")
    assert called.report["profile"] == "profile.json"
    events = json.loads((called.folder / "profile.json").read_text())
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {1: "encoder", 2: "decoder_step"}
    for process in names:
        assert any(event["pid"] == process and event.get("args", {}).get("op_name") == "Gemm" for event in events)
    assert sorted(path.name for path in called.folder.iterdir()) == ["output.ids", "profile.json", "report.json"]


def test_nothing_is_written_into_the_home_folder(runner: Runner, dense: Path) -> None:
    assert runner.translate(dense, [[5, 0]]).report["ok"]
    assert list((runner.folder / "home").iterdir()) == []


def test_version(runner: Runner) -> None:
    called = runner.call("--version")
    assert json.loads(called.out) == {
        "schema": 1,
        "program": "tprune-ort",
        "runner": "0.1.0",
        "engine": "onnxruntime",
        "engine_version": ort.__version__,
    }
    without = Runner(runner.program, runner.folder, environment=dict(os.environ) | {"TPRUNE_ORT_LIBRARY": "/none"})
    assert json.loads(without.call("--version").out)["engine_version"] is None
    assert "usage: tprune-ort seq2seq" in runner.call("--help").err


def test_size(program: Path) -> None:
    assert program.stat().st_size < 300_000


def test_missing_library(runner: Runner, dense: Path) -> None:
    runner.translate(dense, [[5, 0]], "--library", "/none.so").check_failed(3, "cannot load ONNX Runtime: /none.so")
    runner.translate(dense, [[5, 0]], "--library", "libm.so.6").check_failed(3, "libm.so.6 is another library")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "no task; say seq2seq, classify, graph"),
        (("translate",), "unknown task 'translate'"),
        (("seq2seq", "--ids", "x"), "--out-dir is missing"),
        (("seq2seq", "--out-dir"), "--out-dir needs a value"),
        (("graph", "--beams", "2"), "'--beams' is not an option of graph"),
        (("seq2seq", "--threads", "0"), "--threads must be a number from 1 to 64, not '0'"),
        (("seq2seq", "--threads", "1x"), "not '1x'"),
        (("seq2seq", "--affinity", "3-1"), "CPUs must be given like 4,6-7, not '3-1'"),
        (("seq2seq", "--profile", "--profile"), "--profile is given twice"),
        (("graph", "--in", "x"), "--in must be NAME=FILE.npy, not 'x'"),
        (("--version", "now"), "--version stands alone"),
        (("seq2seq", "--out-dir", "/none/deeper", "--ids", "x", "--artefact", "x"), "cannot make the folder"),
    ],
)
def test_refuses_wrong_words(runner: Runner, words: tuple[str, ...], complaint: str) -> None:
    runner.call(*words).check_failed(2, complaint)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["5 0", "", "6 0"], "line 2: no token ids"),
        (["5  0"], "line 1: not token ids separated by one space"),
        (["5 0 "], "line 1: not token ids"),
        (["5 -1"], "line 1: not token ids"),
        (["5 99999999999"], "line 1: not token ids"),
        (["5 0\r"], "line 1: not token ids"),
        (["5 0", " ".join(["7"] * 65)], "line 2: more than 64 token ids"),
        ([], "holds no sentences"),
    ],
)
def test_refuses_wrong_ids(runner: Runner, dense: Path, tmp_path: Path, given: list[str], complaint: str) -> None:
    (tmp_path / "x.ids").write_bytes("".join(f"{line}\n" for line in given).encode())
    words = ("--artefact", dense, "--ids", tmp_path / "x.ids", "--out-dir", tmp_path / "out")
    runner.call("seq2seq", *words).check_failed(2, complaint)


def test_refuses_wrong_settings(runner: Runner, dense: Path, tmp_path: Path) -> None:
    runner.translate(dense, [[5, 0]], "--max-length", 21).check_failed(2, "--max-length 21 is beyond")
    runner.translate(dense, [[5, 0]], "--affinity", 1000).check_failed(2, "--affinity 1000 cannot be had")
    runner.translate(tmp_path, [[5, 0]]).check_failed(2, "manifest.json: No such file")
    words = ("--artefact", dense, "--ids", "/dev/stdin", "--out-dir", tmp_path / "out")
    runner.call("seq2seq", *words).check_failed(2, "not a regular file")


def test_token_beyond_the_vocabulary(runner: Runner, dense: Path) -> None:
    runner.translate(dense, [[5, 0], [5000, 0]]).check_failed(1, "ONNX Runtime cannot run the graph")


def edit(artefact: Path, *keys: str, value: object) -> None:
    """Change one value of a manifest."""
    document = json.loads((artefact / "manifest.json").read_text())
    part = document
    for key in keys[:-1]:
        part = part[int(key) if key.isdigit() else key]
    part[keys[-1]] = value
    (artefact / "manifest.json").write_text(json.dumps(document))


LOGITS = ("tensors", "decoder_step", "outputs", "0", "shape")


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (("schema",), 2, "'schema' is not 1"),
        (("runtime",), "executorch", "the artefact is for executorch; this program runs onnxruntime"),
        (("id",), "0" * 16, "'id' does not belong to its files"),
        (("files", "encoder.onnx", "bytes"), 7, "instead of 7"),
        (("files", "encoder.onnx", "sha256"), "0" * 64, "instead of 0000000000000000..."),
        (("files", "../x"), {}, "'../x', which is not a plain file name"),
        (("limits", "target"), 1, "'target' is 1; it must be from 2 to"),
        (("special", "eos"), 112, "special token 'eos' 112 is not in the output vocabulary"),
        (("scoring", "length_penalty"), None, "'length_penalty' is not a number"),
        (("scoring", "early_stopping"), "often", "'early_stopping' is neither true nor false nor 'never'"),
        (("output_ids",), [1, 2], "'output_ids' has 2 ids for 112 rows"),
        (LOGITS, ["batch", 113], "output 'logits' is float32 [?, 112]"),
        (("tensors", "decoder_step", "inputs", "3", "name"), "other", "is not what its manifest says"),
        (("tensors", "decoder_step", "inputs", "3", "shape"), ["batch", 4, "cache", 5], "'past_key_0' is float32"),
        (("tensors", "encoder", "inputs", "0", "shape"), ["batch", "past"], "which it cannot have"),
    ],
)
def test_refuses_a_wrong_manifest(
    runner: Runner, dense: Path, tmp_path: Path, keys: tuple[str, ...], value: object, complaint: str
) -> None:
    artefact = copy_artefact(dense, tmp_path / "copy")
    edit(artefact, *keys, value=value)
    runner.translate(artefact, [[5, 0]]).check_failed(2, complaint)


def test_refuses_a_changed_model(runner: Runner, dense: Path, tmp_path: Path) -> None:
    artefact = copy_artefact(dense, tmp_path / "copy")
    data = bytearray((artefact / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (artefact / "encoder.onnx").write_bytes(data)
    runner.translate(artefact, [[5, 0]]).check_failed(2, "encoder.onnx has sha256")


def test_an_old_report_is_removed_at_once(runner: Runner, dense: Path, tmp_path: Path) -> None:
    assert runner.translate(dense, [[5, 0]], "--nonce", "first").report["nonce"] == "first"
    failed = runner.translate(tmp_path, [[5, 0]], "--nonce", "second")
    failed.check_failed(2, "manifest.json")
    assert json.loads((failed.folder / "report.json").read_text())["nonce"] == "second"


def test_unwritable_outputs(runner: Runner, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "output.ids.part").mkdir(parents=True)
    runner.translate(dense, [[5, 0]]).check_failed(1, "cannot write")


def test_out_dir_is_a_file(runner: Runner, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    called = runner.translate(dense, [[5, 0]])
    assert called.code == 2
    assert "cannot make the folder" in called.err


def test_ends_with_its_parent(runner: Runner, dense: Path, tmp_path: Path) -> None:
    """A shell that started the runner is killed: the runner stops at the next sentence and says why."""
    write_ids(tmp_path / "x.ids", sentences(112, 4))
    words = ("seq2seq", "--artefact", dense, "--ids", tmp_path / "x.ids", "--out-dir", tmp_path / "out")
    command = [str(word) for word in (runner.program, *words, "--passes", 100_000, "--check-parent")]
    code = f"import subprocess, sys; p = subprocess.Popen({command!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=host_environment("onnxruntime"),
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        child = int(parent.stdout.readline())
        wait_for(parent, (tmp_path / "out").is_dir)  # from here on it knows who its parent is
        os.kill(parent.pid, signal.SIGKILL)
        try:
            assert "the process that started this run is gone" in parent.stderr.read()  # ends with the runner
        finally:
            if (Path("/proc") / str(child)).exists():
                os.kill(child, signal.SIGKILL)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["ok"] is False
