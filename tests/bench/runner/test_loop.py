"""The Python loop, for machines without a compiler: the runner's contract, fulfilled by tprune.export.ort.runtime."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tests.export.test_export import Source
from tprune.bench.measure import host
from tprune.bench.measure.tasks import read_subject as read
from tprune.bench.runner import contract as runner
from tprune.bench.runner import loop
from tprune.bench.runner.contract import Job, RunFailed, write_ids
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.marian.model import PrunedMarianMTModel

IDS = [[5, 9, 40, 0], [7, 0], [8, 9, 10, 33, 12, 0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_config, tiny_tokenizer_folder) -> Path:
    model = randomised(PrunedMarianMTModel.from_stock(MarianMTModel(tiny_config(encoder_layers=1, decoder_layers=1))))
    model.generation_config.max_length = 20
    out = tmp_path_factory.mktemp("artefact") / "tiny"
    to_onnx(Source(model, MarianTokenizer.from_pretrained(tiny_tokenizer_folder)), out, sentences=SENTENCES[:2])
    return out


def test_a_process_of_it_is_a_run_like_any_other(folder):
    cpu = max(os.sched_getaffinity(0))
    job = Job("n", max_length=12, warmup=2, passes=2, cpus=(cpu,))
    found = host.execute(host.LOOP, read(folder), job, IDS)
    right = [runtime.open(folder).greedy(ids, 12) for ids in IDS]
    assert found.output_ids == tuple(one.ids for one in right)
    assert found.steps == tuple(one.steps for one in right) * 2
    assert (found.program, found.artefact, found.max_length) == ("tprune-python", read(folder).id, 12)
    assert found.affinity == {"asked": [cpu], "got": [cpu]}
    assert all(e + s <= t for e, s, t in zip(found.encoder_ns, found.step_ns, found.samples_ns, strict=True))
    assert found.memory["start"]["vm_hwm_kib"] < found.memory["end"]["vm_hwm_kib"]
    assert found.load_ns > 0 and found.first_ns > 0 and 0 < found.cpu_share < 2


def call(folder: Path, tmp_path: Path, ids: list[list[int]] = IDS, *more: str) -> int:
    write_ids(tmp_path / "s.ids", ids)
    return loop.main([*Job("n").arguments(str(folder), str(tmp_path / "s.ids"), str(tmp_path / "out")), *more])


def test_it_says_in_its_report_what_went_wrong(folder, tmp_path, capsys):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "encoder.onnx").write_bytes(b"no graph")
    assert call(broken, tmp_path) == 2
    with pytest.raises(RunFailed, match=r"BadInput: artefact .* is damaged: encoder\.onnx has 8 bytes"):
        runner.read_run(tmp_path / "out", "n")
    assert capsys.readouterr().err.count("\n") == 1
    assert call(folder, tmp_path, [[1] * 99]) == 2
    with pytest.raises(RunFailed, match="a source sentence has 99 token ids; this artefact takes at most 64"):
        runner.read_run(tmp_path / "out", "n")


def test_it_is_greedy_only(folder, tmp_path):
    assert call(folder, tmp_path, IDS, "--beams", "4") == 2
    with pytest.raises(RunFailed, match="beams 4: this loop is greedy"):
        runner.read_run(tmp_path / "out", "n")
