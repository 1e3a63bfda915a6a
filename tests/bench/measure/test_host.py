"""The benchmark of this machine through programs that only pretend to translate: processes, failures, Ctrl-C."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.artefacts import SENTENCES, write_artefact
from tests.support.command import wait_until
from tprune.base import processor
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.measure import conditions, host, record, tokens
from tprune.bench.measure.settings import Settings
from tprune.bench.runner import contract as runner

ROOT = Path(__file__).resolve().parents[3]
FAKE = {"onnxruntime": (sys.executable, str(Path(__file__).resolve().parents[2] / "support" / "fake_runner.py"))}
FAST = Settings(blocks=2, warmup=2)


@pytest.fixture
def artefact(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, **behave: write_artefact(tmp_path / name, **behave)


def measure(folders: list[Path], out: Path, settings: Settings = FAST):
    return host.run(folders, SENTENCES, settings=settings, out=out, programs=FAKE)


def test_what_a_record_says(artefact, tmp_path):
    done = measure([artefact("a"), artefact("b")], tmp_path / "r.jsonl")
    assert [(found.name, found.block) for found in done] == [
        ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", -1), ("b", -1),
    ]  # fmt: skip
    assert (tmp_path / "calls").read_text().split() == ["a", "b", "b", "a", "a", "b"]
    timed, weighed = done[0], done[-1]
    assert (timed.output_ids, timed.steps, timed.bytes) == (SENTENCES, [3, 2, 4], 100)
    assert (timed.verdict, timed.loop, timed.mode, timed.threads_got) == ("VALID", "runner", "warm", 2)
    assert timed.affinity == {"asked": None, "got": sorted(os.sched_getaffinity(0))}
    assert {"loadavg", "governor", "khz"} <= timed.conditions["before"].keys()
    assert timed.conditions["after"]["cpu_share"] == 0.988
    assert (timed.device["kind"], timed.device["emulated"], timed.device["soc"]) == ("host", False, None)
    assert timed.device["instruction_set"] == processor.known(processor.here())
    assert set(timed.versions) >= {"onnxruntime", "tprune"}
    assert weighed.memory == {"peak_kib": 9000, "base_kib": 4000, "anon_kib": 5000, "file_kib": 4000}
    assert record.read(tmp_path / "r.jsonl") == done


def test_memory_is_taken_with_a_steady_heap_and_times_as_the_caller_tuned_it(artefact, tmp_path, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.top_pad=1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    measure([artefact("a", tuned=True)], tmp_path / "r.jsonl")
    ours = "GLIBC_TUNABLES=glibc.malloc.top_pad=1 MALLOC_ARENA_MAX=1"
    steady = "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072"
    assert (tmp_path / "tuned").read_text().splitlines() == [ours, ours, steady]


def test_processes_are_pinned_and_read_back(artefact, tmp_path):
    cpu = max(os.sched_getaffinity(0))
    done = measure([artefact("a")], tmp_path / "r.jsonl", replace(FAST, cpus=(cpu,)))
    assert all(found.affinity == {"asked": [cpu], "got": [cpu]} for found in done)


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        ({"refuse": "graph\nis damaged"}, "a: graph is damaged"),
        ({"die": 1}, "a: the runner was killed by SIGKILL: out of luck"),
        ({"report": {"nonce": "of yesterday"}}, "its nonce is 'of yesterday'"),
        ({"report": {"samples_ns": []}}, "series of different lengths"),
        ({"report": {"threads": {"asked": 2, "got": 2}}}, "of threads 2, but 1 was asked for"),
    ],
)
def test_a_run_that_fails_is_one_line(artefact, tmp_path, behave, message):
    with pytest.raises(WorkFailed, match=message):
        measure([artefact("a", **behave)], tmp_path / "r.jsonl")
    (kept,) = record.read(tmp_path / "r.jsonl")
    assert (kept.verdict, kept.samples_ns) == ("INTERRUPTED", [])


def test_a_failed_block_is_measured_again_on_resume(artefact, tmp_path):
    folder, out = artefact("a", die=2), tmp_path / "r.jsonl"
    with pytest.raises(WorkFailed, match="SIGKILL"):
        measure([folder], out)
    (folder / "behave.json").write_text("{}")
    assert [(item.block, item.verdict) for item in measure([folder], out)] == [
        (0, "VALID"),
        (1, "VALID"),
        (-1, "VALID"),
    ]


def test_a_program_that_cannot_start_and_one_that_says_nothing(artefact, tmp_path):
    for program, message in (
        (("/nonexistent",), "cannot start '/nonexistent': No such file"),
        (("true",), "left no rep"),
    ):
        with pytest.raises(WorkFailed, match=message):
            host.run(
                [artefact(program[0].strip("/"))], SENTENCES, out=tmp_path / "r", programs={"onnxruntime": program}
            )
        (tmp_path / "r").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"threads": 10_000}, "threads 10000: legal are 1 to"), ({"cpus": (4096,)}, r"cpus \[4096\]: legal are")],
)
def test_settings_that_this_machine_cannot_give(artefact, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        measure([artefact("a")], tmp_path / "r.jsonl", Settings(**change))


def test_references_are_the_tokens_of_this_machine(artefact, monkeypatch):
    monkeypatch.setattr(host, "find_programs", lambda runtimes, beams: FAKE)
    folder = artefact("a")
    (found,) = host.references([folder], SENTENCES, Settings(beams=2)).values()
    assert found == tuple(map(tuple, SENTENCES))


def test_without_a_compiler_greedy_onnx_gets_the_python_loop(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "SOURCE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "CMakePresets.json").write_text("{}")
    assert host.find_programs({"onnxruntime"}) == {"onnxruntime": host.LOOP}
    assert host.place({"onnxruntime": host.LOOP}).loop == "python"
    for runtimes, beams in (({"onnxruntime"}, 4), ({"executorch"}, 1)):
        with pytest.raises(WorkFailed, match="has to be built, which needs cmake"):
            host.find_programs(runtimes, beams=beams)


MAIN = """
import json, sys
from tprune.bench.measure import host
host.run([sys.argv[1]], json.loads(sys.argv[2]), out=sys.argv[3], programs={"onnxruntime": sys.argv[4:]})
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_benchmark_that_is_stopped_leaves_no_runner(artefact, tmp_path, how):
    folder, out = artefact("a", hang=2), tmp_path / "r.jsonl"
    argv = [sys.executable, "-c", MAIN, str(folder), json.dumps(SENTENCES), str(out), *FAKE["onnxruntime"]]
    parent = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    wait_until(lambda: out.exists() and len(record.read(out)) == 1 and (tmp_path / "calls").read_text() == "a\na\n")
    (child,) = map(int, children.read_text().split())
    parent.send_signal(how)
    parent.wait(timeout=120)
    wait_until(lambda: not is_running(child))
    kept = record.read(out)
    assert 1 <= len(kept) < 6
    (folder / "behave.json").write_text("{}")
    done = measure([folder], out, Settings())
    assert done[0] == kept[0]
    assert len(done) == 6


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_conditions_of_given_texts():
    assert conditions.cpu_model("processor: 0\nmodel name\t: Some  CPU @ 2 GHz\n") == "Some CPU @ 2 GHz"


TEXTS = ["A man sleeps.", "  two  spaces ", "日本 ☃", ">>deu<< hello", "a\tb", ""]


def test_tokens_are_marian_tokenizers(tiny_tokenizer_folder):
    from transformers import MarianTokenizer

    reference = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    found = tokens.read(tiny_tokenizer_folder)
    assert [found.encode(text) for text in TEXTS] == [reference(text).input_ids for text in TEXTS]


def test_tokens_of_real_text_are_marian_tokenizers(shared):
    from transformers import MarianTokenizer

    folder = shared / "models" / "marian-multi30k-en-de"
    with gzip.open(shared / "data" / "multi30k" / "val.en.gz", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[:200]
    reference, found = MarianTokenizer.from_pretrained(folder), tokens.read(folder)
    assert [found.encode(line) for line in lines] == [reference(line).input_ids for line in lines]


def test_tokens_refuse_a_folder_without_them(tmp_path):
    with pytest.raises(BadInput, match=r"has no source\.spm and no vocab\.json"):
        tokens.read(tmp_path)
    (tmp_path / "source.spm").write_text("x")
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        tokens.read(tmp_path)
