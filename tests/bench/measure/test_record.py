"""Records check themselves, and their file survives a kill in the middle of a line."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tprune.base.errors import BadInput
from tprune.bench.measure import record
from tprune.bench.measure.record import Record


@pytest.fixture
def block() -> Record:
    return Record(
        artefact="aa" * 8,
        model={"id": "m", "name": "dense", "criterion": "dense", "seed": None, "keep": 1.0, "params": 9, "macs": 7},
        name="dense-onnx",
        runtime="onnxruntime",
        precision="fp32",
        bytes=1234,
        device={"kind": "host", "serial": None, "model": "CPU", "abi": "x86_64", "emulated": False},
        settings={"warmup": 1},
        session="s",
        nonce="n",
        block=0,
        verdict="VALID",
        mode="warm",
        loop="runner",
        threads=1,
        affinity={"asked": None, "got": [0, 1]},
        beams=1,
        split="test",
        limit=None,
        blocks=1,
        conditions={"before": {}, "after": {}},
        load_ns=5,
        first_ns=6,
        samples_ns=[10, 20],
        encoder_ns=[1, 2],
        step_ns=[8, 16],
        run_ns=[9, 18],
        steps=[2, 3],
        output_ids=[[4, 0], [4, 5, 0]],
    )


def test_line_and_back(block):
    line = block.to_line()
    assert line.count("\n") == 1
    assert record.from_json(json.loads(line)) == block


EARLIER = Path(__file__).with_name("earlier.jsonl")  # written by the version before tasks were objects


def test_earlier_records_are_read_and_written_unchanged():
    found = record.read(EARLIER)
    assert "".join(one.to_line() for one in found) == EARLIER.read_text()
    assert [(one.device["kind"], one.task, one.block, one.verdict, one.inputs) for one in found] == [
        ("host", "translation", 0, "VALID", 3), ("host", "translation", -1, "VALID", 3),
        ("phone", "translation", 0, "THROTTLED", 3), ("phone", "translation", -1, "VALID", 3),
        ("host", "images", 0, "VALID", 3), ("host", "images", -1, "VALID", 3),
        ("phone", "translation", 0, "INTERRUPTED", 3),
    ]  # fmt: skip
    assert [found[0].inputs_id, found[4].inputs_id] == ["cf5023badf0a4766", "61e1da8b650f47f1"]
    assert found[4].right == [True] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "FINE"}, "verdict 'FINE'; legal are VALID, EMULATED, THROTTLED"),
        ({"mode": "hot"}, "mode 'hot'; legal are warm, cold, spaced, sustained"),
        ({"loop": "shell"}, "loop 'shell'; legal are runner, python"),
        ({"device": {"emulated": True}}, "verdict VALID of an emulated device"),
        ({"output_ids": [[1], [2], [3]]}, "2 samples of 3 sentences"),
        ({"output_ids": []}, "2 samples of 0 sentences"),
        ({"block": -2}, "block -2; legal are -1"),
        ({"verdict": "INTERRUPTED"}, "an error goes with INTERRUPTED only"),
        ({"error": "died"}, "verdict VALID with error 'died'"),
        ({"steps": [1]}, "series of different lengths"),
        ({"samples_ns": [10, 0]}, "all above 0 ns"),
        ({"block": -1}, "a memory pass has no samples"),
        (dict.fromkeys(record.SERIES, []), "a timed block has samples"),
        ({"block": -1, **dict.fromkeys(record.SERIES, [])}, "a peak_kib above 0"),
    ],
)
def test_a_record_that_contradicts_itself(block, change, message):
    with pytest.raises(ValueError, match=message):
        replace(block, **change)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not a JSON object"),
        ({"schema": 2, "speed": 9}, "unknown fields speed"),
        ({"schema": 2}, "missing 21 required"),
        ({"schema": 1, "nonce": "n"}, "schema 1; this version reads 2: measure again into a new file"),
        ({}, "schema None"),
    ],
)
def test_from_json_refuses(document, message):
    with pytest.raises(ValueError, match=message):
        record.from_json(document)


def test_a_cut_last_line_is_dropped_and_then_overwritten(block, tmp_path):
    path = tmp_path / "records.jsonl"
    record.append(path, block)
    with path.open("a") as file:
        file.write(block.to_line()[:50])
    assert record.read(path) == [block]
    record.append(path, replace(block, block=1))
    assert [found.block for found in record.read(path)] == [0, 1]


def test_a_file_that_holds_only_a_cut_line(block, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(block.to_line()[:-1])
    assert record.read(path) == []
    record.append(path, block)
    assert record.read(path) == [block]


def test_a_broken_line_in_the_middle_is_named(block, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(block.to_line() + "{\n" + block.to_line())
    with pytest.raises(BadInput, match=r"records\.jsonl' line 2: '\{'\.\.\. is not JSON; remove that line, then"):
        record.read(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInput, match=r"absent\.jsonl': No such file"):
        record.read(tmp_path / "absent.jsonl")


def test_newest_keeps_the_block_that_was_measured_again(block):
    failed = replace(block, verdict="INTERRUPTED", error="died", **dict.fromkeys(record.SERIES, []))
    assert record.newest([failed, block]) == [block]


def test_newest_keeps_what_was_measured_elsewhere_or_otherwise(block):
    phone = {"kind": "phone", "serial": "S1", "model": "CPU", "abi": "arm64-v8a", "emulated": False}
    others = [
        replace(block, device=phone),
        replace(block, threads=2),
        replace(block, mode="cold"),
        replace(block, beams=4),
    ]
    assert record.newest([block, *others]) == [block, *others]


def test_what_is_complete_and_what_is_valid(block):
    emulated = replace(block, verdict="EMULATED", device={"serial": "S", "emulated": True})
    hot = replace(block, verdict="THROTTLED")
    assert [(item.valid, item.complete) for item in (block, emulated, hot)] == [
        (True, True),
        (False, True),
        (False, False),
    ]


def test_several_threads_append_to_one_file(block, tmp_path):
    path = tmp_path / "records.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: record.append(path, replace(block, block=number)), range(64)))
    assert sorted(found.block for found in record.read(path)) == list(range(64))


ROOT = Path(__file__).resolve().parents[3]
FULL_DISK = """
import json, resource, signal, sys
from tprune.bench.measure import record
from tprune.base.errors import WorkFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
block = record.from_json(json.loads(sys.argv[2]))
record.append(sys.argv[1], block)
limit = len(block.to_line()) * 3 // 2
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    record.append(sys.argv[1], block)
except WorkFailed as error:
    print(error)
"""


def test_a_full_disk_leaves_whole_lines_only(block, tmp_path):
    path = tmp_path / "records.jsonl"
    argv = [sys.executable, "-c", FULL_DISK, str(path), json.dumps(asdict(block))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "cannot write" in done.stdout
    assert "free some space" in done.stdout
    assert path.read_text() == block.to_line()


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ({"serial": None, "model": "CPU"}, "CPU"),  # of an older record
        ({"serial": None, "model": "CPU", "instruction_set": None}, "CPU"),
        ({"serial": None, "model": "CPU", "instruction_set": "avx2"}, "CPU, avx2"),
        ({"serial": "S1", "model": "Phone", "instruction_set": "neon-i8mm"}, "S1"),
    ],
)
def test_what_tells_a_device_from_others(block, device, place):
    assert record.place_name(device) == place
    assert replace(block, device={**block.device, **device}).series[0] == place
