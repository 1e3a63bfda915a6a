"""The benchmark of this machine, with artefacts that only pretend to translate: order, resume, failures, Ctrl-C."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import conditions, host, record, tokens
from bench.host import Settings
from bench.process import Process, WorkerFailed
from export.manifest import FileEntry, Limits, Manifest, ModelFacts, ParityResult, Special, artefact_id
from tprune.errors import BadInput, WorkFailed

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = [[5, 6, 0], [7, 0], [8, 9, 10, 0]]
FAST = Settings(blocks=3, warmup=2)

# Writes one line to `calls` for every sentence it translates and follows `behave.json` of the artefact's folder.
FAKE = """
import json, os, sys, time
from types import SimpleNamespace
from bench import worker

class Fake:
    def __init__(self, folder, threads):
        self.folder = folder
        self.calls = 0
        self.behave = json.loads((folder / "behave.json").read_text())
        if "refuse" in self.behave:
            raise ValueError(self.behave["refuse"])

    def greedy(self, ids, max_length):
        self.calls += 1
        with open(self.folder.parent / "calls", "a") as file:
            file.write(self.folder.name + "\\n")
        print("a library that talks")
        if self.calls == self.behave.get("die"):
            sys.stderr.write("out of luck\\n")
            sys.stderr.flush()
            os.kill(os.getpid(), 9)
        time.sleep(self.behave.get("sleep", 0.0))
        extra = [1] if self.calls > self.behave.get("drift", 10**9) else []
        out = ([*ids] + extra)[:max_length]
        return SimpleNamespace(ids=out, encoder_ns=10, step_ns=[3] * len(out), run_ns=12, total_ns=20)

worker.serve(sys.stdin, worker.private_stdout(), opener=Fake)
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "fake_worker.py"
    path.write_text(FAKE)
    return (sys.executable, str(path))


@pytest.fixture
def artefact(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **behave) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        files = {"encoder.onnx": FileEntry(hashlib.sha256(name.encode()).hexdigest(), 100)}
        Manifest(
            id=artefact_id(files),
            runtime="onnxruntime",
            precision="fp32",
            files=files,
            tensors={},
            special=Special(start=9, eos=0, pad=9, unk=1, forced_eos=None),
            limits=Limits(source=4, target=8),
            model=ModelFacts(id=name, name=name, criterion="dense", seed=None, keep=1.0, params=9, macs=7),
            parity=ParityResult(sentences=1, identical=1, max_abs_logit_diff=0.0),
        ).write(folder)
        (folder / "behave.json").write_text(json.dumps(behave))
        return folder

    return make


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split()


def test_blocks_are_interleaved_and_rotated(artefact, command, tmp_path):
    done = host.run([artefact("a"), artefact("b")], SENTENCES, settings=FAST, out=tmp_path / "r.jsonl", command=command)
    assert [(found.name, found.block) for found in done] == [
        ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("a", -1), ("b", -1),
    ]  # fmt: skip
    per_block = FAST.warmup + len(SENTENCES)
    assert calls(tmp_path)[: 6 * per_block] == [
        name for name, _ in [(r.name, 0) for r in done[:6]] for _ in range(per_block)
    ]
    assert record.read(tmp_path / "r.jsonl") == done


def test_what_a_record_says(artefact, command, tmp_path):
    done = host.run([artefact("a")], SENTENCES, settings=FAST, out=tmp_path / "r.jsonl", command=command)
    timed, weighed = done[0], done[-1]
    assert timed.output_ids == SENTENCES
    assert timed.steps == [3, 2, 4]
    assert timed.step_ns == [9, 6, 12]
    assert (timed.bytes, timed.run_ns, timed.encoder_ns) == (100, [12] * 3, [10] * 3)
    assert timed.verdict == "VALID"
    assert timed.load_ns > 0
    assert timed.affinity == {"asked": None, "got": sorted(os.sched_getaffinity(0))}
    assert {"loadavg", "governor"} <= timed.conditions["before"].keys()
    assert 0 <= timed.conditions["after"]["cpu_share"] <= 1.5
    assert timed.device["kind"] == "host"
    assert weighed.block == -1
    assert weighed.memory["peak_kib"] >= weighed.memory["base_kib"] > 1000


def test_workers_are_pinned_and_read_back(artefact, command, tmp_path):
    cpu = max(os.sched_getaffinity(0))
    settings = replace(FAST, cpus=(cpu,))
    done = host.run([artefact("a")], SENTENCES, settings=settings, out=tmp_path / "r.jsonl", command=command)
    assert all(found.affinity == {"asked": [cpu], "got": [cpu]} for found in done)


def test_a_finished_benchmark_is_not_measured_again(artefact, command, tmp_path):
    folder, out = artefact("a"), tmp_path / "r.jsonl"
    first = host.run([folder], SENTENCES, settings=FAST, out=out, command=command)
    assert host.run([folder], SENTENCES, settings=FAST, out=out, command=("/nonexistent",)) == first


def test_resume_measures_only_what_is_missing(artefact, command, tmp_path):
    folders, out = [artefact("a"), artefact("b")], tmp_path / "r.jsonl"
    host.run(folders, SENTENCES, settings=FAST, out=out, command=command)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:4]) + lines[4][:80])
    (tmp_path / "calls").unlink()
    done = host.run(folders, SENTENCES, settings=FAST, out=out, command=command)
    assert len(done) == 8
    assert len(calls(tmp_path)) == 2 * (FAST.warmup + 3) + 2 * 3
    assert len(record.read(out)) == 8


@pytest.mark.parametrize(
    ("change", "sentences", "message"),
    [
        ({"blocks": 4}, SENTENCES, "was measured with blocks 3, this call asks for 4"),
        ({"warmup": 0}, SENTENCES, "measured with warmup 2, this call asks for 0"),
        ({"split": "val"}, SENTENCES, "measured with split 'test', this call asks for 'val'"),
        ({}, SENTENCES[:2], "measured with sentences 3, this call asks for 2"),
        ({}, [[5, 5, 0], *SENTENCES[1:]], "measured with sentences_id"),
    ],
)
def test_resume_refuses_other_settings(artefact, command, tmp_path, change, sentences, message):
    folder, out = artefact("a"), tmp_path / "r.jsonl"
    host.run([folder], SENTENCES, settings=FAST, out=out, command=command)
    with pytest.raises(BadInput, match=message):
        host.run([folder], sentences, settings=replace(FAST, **change), out=out, command=command)


def test_resume_refuses_a_file_of_another_artefact(artefact, command, tmp_path):
    host.run([artefact("a")], SENTENCES, settings=FAST, out=tmp_path / "r.jsonl", command=command)
    with pytest.raises(BadInput, match=r"holds records of another artefact \(a\)"):
        host.run([artefact("b")], SENTENCES, settings=FAST, out=tmp_path / "r.jsonl", command=command)


def test_a_worker_that_dies_is_one_line_and_the_others_go_on(artefact, command, tmp_path):
    folders, out = [artefact("bad", die=7), artefact("good")], tmp_path / "r.jsonl"
    with pytest.raises(WorkFailed, match=r"1 of 2 artefacts failed \(.*bad: .* was killed by SIGKILL: out of luck\)"):
        host.run(folders, SENTENCES, settings=FAST, out=out, command=command)
    found = record.read(out)
    bad = [item for item in found if item.name == "bad"]
    assert [(item.block, item.verdict) for item in bad] == [(0, "VALID"), (1, "INTERRUPTED")]
    assert "SIGKILL" in bad[1].error
    assert bad[1].samples_ns == []
    assert sum(item.name == "good" and item.valid for item in found) == 4


def test_an_artefact_that_does_not_open(artefact, command, tmp_path):
    with pytest.raises(WorkFailed, match="ValueError: graph is damaged"):
        host.run([artefact("bad", refuse="graph\nis damaged")], SENTENCES, out=tmp_path / "r.jsonl", command=command)
    assert [item.verdict for item in record.read(tmp_path / "r.jsonl")] == ["INTERRUPTED"]


def test_a_failed_block_is_measured_again_on_resume(artefact, command, tmp_path):
    folder, out = artefact("a", die=7), tmp_path / "r.jsonl"
    with pytest.raises(WorkFailed, match="SIGKILL"):
        host.run([folder], SENTENCES, settings=FAST, out=out, command=command)
    (folder / "behave.json").write_text("{}")
    done = host.run([folder], SENTENCES, settings=FAST, out=out, command=command)
    assert [(item.block, item.verdict) for item in done] == [(0, "VALID"), (1, "VALID"), (2, "VALID"), (-1, "VALID")]


def test_other_tokens_in_a_later_block_are_not_valid(artefact, command, tmp_path):
    with pytest.raises(WorkFailed, match="block 1 gave other tokens than an earlier block"):
        host.run([artefact("a", drift=5)], SENTENCES, settings=FAST, out=tmp_path / "r.jsonl", command=command)
    assert [item.verdict for item in record.read(tmp_path / "r.jsonl")] == ["VALID", "WRONG_TOKENS"]


def test_a_worker_that_cannot_start(artefact, tmp_path):
    with pytest.raises(WorkFailed, match="cannot start '/nonexistent': No such file"):
        host.run([artefact("a")], SENTENCES, out=tmp_path / "r.jsonl", command=("/nonexistent",))


def test_a_worker_of_another_version(tmp_path):
    path = tmp_path / "old.py"
    path.write_text("""print('{"ok": true, "protocol": 0}')\n""")
    with pytest.raises(WorkerFailed, match="speaks protocol 0, this benchmark 1"):
        Process((sys.executable, str(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads 0: legal are 1 to"),
        ({"threads": 10_000}, "threads 10000: legal are 1 to"),
        ({"blocks": 0}, "blocks 0: at least 1"),
        ({"warmup": -1}, "warmup -1: 0 or more"),
        ({"cpus": (4096,)}, r"cpus \[4096\]: legal are"),
        ({"cpus": ()}, r"cpus \[\]: legal are"),
        ({"max_length": 0}, "max length 0: at least 1"),
    ],
)
def test_settings_refuse(change, message):
    with pytest.raises(BadInput, match=message):
        Settings(**change)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "no sentence to translate"),
        ([[1], []], "sentence 2 has 0 tokens; legal are 1 to 4"),
        ([[1] * 5], "sentence 1 has 5 tokens"),
    ],
)
def test_sentences_that_cannot_be_measured(artefact, tmp_path, sentences, message):
    with pytest.raises(BadInput, match=message):
        host.run([artefact("a")], sentences, out=tmp_path / "r.jsonl")


def test_calls_that_are_wrong(artefact, tmp_path):
    folder = artefact("a")
    with pytest.raises(BadInput, match="name at least one artefact"):
        host.run([], SENTENCES, out=tmp_path / "r.jsonl")
    with pytest.raises(BadInput, match="is the same artefact as"):
        host.run([folder, folder], SENTENCES, out=tmp_path / "r.jsonl")
    with pytest.raises(BadInput, match="is a folder; name a file"):
        host.run([folder], SENTENCES, out=tmp_path)
    with pytest.raises(BadInput, match="is not an artefact: it has no manifest"):
        host.run([tmp_path], SENTENCES, out=tmp_path / "r.jsonl")


MAIN = """
import json, sys
from bench import host
host.run([sys.argv[1]], json.loads(sys.argv[2]), out=sys.argv[3], command=(sys.executable, sys.argv[4]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_benchmark_that_is_stopped_leaves_no_worker(artefact, command, tmp_path, how):
    folder, out = artefact("a", sleep=0.05), tmp_path / "r.jsonl"
    argv = [sys.executable, "-c", MAIN, str(folder), json.dumps(SENTENCES), str(out), command[1]]
    parent = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: out.exists() and len(record.read(out)) >= 1)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 1
    parent.send_signal(how)
    parent.wait(timeout=10)
    wait_for(lambda: not is_running(int(children[0])))
    kept = record.read(out)
    assert 1 <= len(kept) < 6
    (folder / "behave.json").write_text("{}")
    done = host.run([folder], SENTENCES, out=out, command=command)
    assert done[0] == kept[0]
    assert len(done) == 6


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited ten seconds in vain")


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_conditions_of_given_texts():
    assert conditions.cpu_model("processor: 0\nmodel name\t: Some  CPU @ 2 GHz\n") == "Some CPU @ 2 GHz"
    assert conditions.peak_kib("VmPeak:\t9 kB\nVmHWM:\t   1234 kB\n") == 1234
    with pytest.raises(OSError, match="no VmHWM line"):
        conditions.peak_kib("VmPeak: 9 kB")


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
