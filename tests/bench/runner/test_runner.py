"""The runner's contract as Python sees it: what is asked, what is believed, and where this machine's program is."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.artefacts import SENTENCES, write_artefact
from tprune.base.errors import BadInput
from tprune.bench.runner import contract as runner
from tprune.bench.runner.contract import (
    Job,
    RunFailed,
    host_environment,
    how_it_ended,
    read_ids,
    read_run,
    write_ids,
)

FAKE = Path(__file__).resolve().parents[2] / "support" / "fake_runner.py"


def test_arguments_of_a_plain_job():
    assert Job("n").arguments("m", "s.ids", "out") == (
        "seq2seq", "--artefact", "m", "--ids", "s.ids", "--out-dir", "out", "--nonce", "n", "--threads", "1",
        "--beams", "1", "--warmup", "0", "--warmup-ms", "0", "--passes", "1", "--gap-ms", "0", "--sample-ms", "0",
    )  # fmt: skip


def test_arguments_of_a_job_with_everything():
    job = Job("n", 2, 4, 64, warmup=3, warmup_ms=5, passes=7, gap_ms=9, cpus=(6, 7), sample_ms=1000, profile=True)
    words = job.arguments("a folder", "i", "o")
    pairs = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    assert words[-1] == "--profile"
    assert pairs["--artefact"] == "a folder"
    assert {flag: pairs[flag] for flag in ("--threads", "--beams", "--max-length", "--passes", "--affinity")} == {
        "--threads": "2", "--beams": "4", "--max-length": "64", "--passes": "7", "--affinity": "6,7",
    }  # fmt: skip
    assert (pairs["--warmup"], pairs["--warmup-ms"], pairs["--gap-ms"], pairs["--sample-ms"]) == ("3", "5", "9", "1000")


def test_ids_and_back(tmp_path):
    write_ids(tmp_path / "x.ids", SENTENCES)
    assert (tmp_path / "x.ids").read_bytes() == b"5 6 0\n7 0\n8 9 10 0\n"
    assert read_ids(tmp_path / "x.ids") == SENTENCES


@pytest.mark.parametrize("text", ["1 2\n\n3", "1  2", " 1", "1\t2", "-1", "1.5", "x", "²", "1" * 20])
def test_ids_that_are_none(tmp_path, text):
    (tmp_path / "x.ids").write_text(text)
    with pytest.raises(BadInput, match="is not ids with one blank between them"):
        read_ids(tmp_path / "x.ids")


def test_ids_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        read_ids(tmp_path / "absent")
    (tmp_path / "x.ids").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="can't decode"):
        read_ids(tmp_path / "x.ids")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder that the fake runner left, with nonce "mine"."""
    root = tmp_path_factory.mktemp("runner")
    write_ids(root / "s.ids", SENTENCES)
    words = Job("mine", max_length=8, passes=2).arguments(
        str(write_artefact(root / "a")), str(root / "s.ids"), str(root / "out")
    )
    subprocess.run([sys.executable, str(FAKE), *words], check=True)
    return root / "out"


@pytest.fixture
def report(made: Path) -> dict[str, Any]:
    return json.loads((made / "report.json").read_text())


def rewritten(made: Path, folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "output.ids").write_bytes((made / "output.ids").read_bytes())
    (folder / "report.json").write_text(text)
    return folder


def test_a_report_is_read(made):
    run = read_run(made, "mine")
    assert run.output_ids == tuple(map(tuple, SENTENCES))
    assert run.samples_ns == (60, 40, 80, 60, 40, 80)
    assert run.memory["start"]["vm_hwm_kib"] == 4000
    assert run.conditions["before"] == {"t_ns": 1, "khz": {"0": 2_000_000}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2; this version reads 1"),
        ({"kind": "plan"}, "of kind 'run'"),
        ({"nonce": "yours"}, "of another run: its nonce is 'yours', not 'mine'"),
        ({"ok": False, "error": "no space\n left"}, "^no space left$"),
        ({"ok": False, "error": "\x1b[2J\ud800 gone"}, r"cannot be believed: 'utf-8' codec"),
        ({"ok": False, "error": "\x1b[2J gone"}, r"^\?\[2J gone$"),
        ({"machine": {"uname": float("inf")}}, "Infinity is no JSON number"),
        ({"ok": "yes", "error": None}, "is not ok and gives no reason"),
        ({"task": "graph"}, "task 'graph'; a benchmark reads seq2seq"),
        ({"outputs": {"ids": "../../etc/passwd"}}, "reads seq2seq or classify, its ids in output.ids"),
        ({"samples_ns": [1, 2]}, "series of different lengths"),
        ({"samples_ns": [0] * 6}, "samples_ns is .* not a list of numbers from 1"),
        ({"run_ns": [10**9] * 6}, "more time in the engine than it took"),
        (dict.fromkeys(("samples_ns", "encoder_ns", "step_ns", "run_ns", "steps"), []), "0 times for 3 translated"),
        (dict.fromkeys(("samples_ns", "encoder_ns", "step_ns", "run_ns", "steps"), [9] * 4), "4 times for 3"),
        ({"load_ns": True}, "load_ns is True, not a number from 0"),
        ({"load_ns": 2**63}, "load_ns is 9223372036854775808, not a number"),
        ({"cpu_share": "all"}, "cpu_share is 'all', not a share"),
        ({"threads": {"asked": 1}}, "threads.got is None, not a number from 1"),
        ({"memory": {"start": {}}}, "memory.start.vm_rss_kib is None"),
        ({"conditions": {"before": {"khz": {"0": "fast"}}, "after": {}}}, "khz.0 is 'fast', not a whole number"),
        ({"conditions": {"before": {}, "after": {}, "during": {"t_ns": 1}}}, "during is not a list"),
        ({"engine": "ort"}, "engine is 'ort', not an object"),
    ],
)
def test_a_report_that_is_not_believed(made, report, tmp_path, change, message):
    folder = rewritten(made, tmp_path / "out", json.dumps({**report, **change}))
    with pytest.raises(RunFailed, match=message):
        read_run(folder, "mine")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": NaN}', "[" * 100_000, '{"x": 1e999}', '{"schema": ' + "1" * 9999 + "}"]
)
def test_a_report_that_is_no_json_object(made, tmp_path, text):
    with pytest.raises(RunFailed, match=r"report\.json cannot be believed"):
        read_run(rewritten(made, tmp_path / "out", text), "mine")


def test_a_report_without_its_ids_and_no_report_at_all(made, report, tmp_path):
    with pytest.raises(RunFailed, match=r"the runner left no report\.json"):
        read_run(tmp_path, "mine")
    folder = rewritten(made, tmp_path / "out", json.dumps(report))
    (folder / "output.ids").unlink()
    with pytest.raises(RunFailed, match="output.ids.*No such file"):
        read_run(folder, "mine")


def test_a_report_of_a_size_that_no_run_writes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LARGEST", 100)
    with pytest.raises(RunFailed, match="more than 0 MiB"):
        read_run(made, "mine")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
many = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def spots(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in pairs for found in ((*path, key), *spots(inner, (*path, key)))]


@many
@given(data=st.data())
def test_whatever_is_changed_in_a_report_only_run_failed_comes_out(made, tmp_path_factory, data):
    document = json.loads((made / "report.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(spots(document)))
        inner = document
        for key in path:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[last] = copy.deepcopy(data.draw(JSON))
        else:
            del inner[last]
    folder = rewritten(made, tmp_path_factory.getbasetemp() / "mutated", json.dumps(document))
    try:
        run = read_run(folder, "mine")
    except RunFailed as error:
        assert "\n" not in str(error)
    else:
        assert len(run.samples_ns) % len(run.output_ids) == 0


@many
@given(report=st.binary(max_size=200), ids=st.binary(max_size=50), where=st.floats(0, 1))
def test_whatever_bytes_are_there_only_run_failed_comes_out(made, tmp_path_factory, report, ids, where):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    whole = (made / "report.json").read_bytes()
    cut = int(where * len(whole))
    (folder / "report.json").write_bytes(whole[:cut] + report + whole[cut + len(report) :])
    (folder / "output.ids").write_bytes(ids)
    with pytest.raises(RunFailed, match="."):
        read_run(folder, "yours")
    try:
        read_run(folder, "mine")
    except RunFailed as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (2, "tprune-ort: bad\n\n", "the runner ended with exit code 2: tprune-ort: bad"),
        (-11, "", "the runner was killed by SIGSEGV"),
        (137, "x", "the runner was killed by SIGKILL: x"),
        (-34, "", "the runner was killed by signal 34"),
    ],
)
def test_how_it_ended(code, stderr, said):
    assert how_it_ended(code, stderr) == said


def test_the_environment_names_the_wheels_libraries(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    found = host_environment("onnxruntime")
    assert found["ORT_DISABLE_TELEMETRY"] == "1"
    assert stat.S_ISREG(os.stat(found["TPRUNE_ORT_LIBRARY"]).st_mode)
    pytest.importorskip("executorch")
    first, second = host_environment("executorch")["LD_LIBRARY_PATH"].split(":")
    assert (Path(first) / "libexecutorch.so").is_file()
    assert second == "/elsewhere"
