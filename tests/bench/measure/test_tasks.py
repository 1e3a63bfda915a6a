"""The two tasks: files for the runner, facts for records, plans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.artefacts import SENTENCES, write_artefact
from tests.support.cnn_nets import images
from tprune.base.errors import BadInput
from tprune.bench.measure.plan import plan
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.tasks import CLASSIFICATION, TASKS, TRANSLATION, read_subject
from tprune.bench.runner.contract import read_ids


def test_files_hold_what_the_runner_reads(tmp_path):
    assert read_ids(TRANSLATION.write(SENTENCES, tmp_path)) == SENTENCES
    assert np.array_equal(np.load(CLASSIFICATION.write(images(3), tmp_path)), images(3).data)


def test_facts_of_inputs():
    assert TRANSLATION.facts(SENTENCES) == {"sentences": 3, "sentences_id": "cf5023badf0a4766"}
    pixels = images(3)
    assert CLASSIFICATION.facts(pixels) == {"images": 3, "images_id": pixels.id, "data": pixels.name}


def test_the_heaviest_inputs_and_their_labels():
    assert TRANSLATION.heaviest(SENTENCES, 2) == [[8, 9, 10, 0], [5, 6, 0]]
    assert TRANSLATION.labels(SENTENCES) == []
    few = CLASSIFICATION.heaviest(images(5), 2)
    assert CLASSIFICATION.labels(few) == images(5).labels.tolist()[:2]


def test_a_plan_takes_its_jobs_from_the_task(tmp_path):
    made = plan([write_artefact(tmp_path / "a")], SENTENCES, Settings(max_length=99, warmup=3))
    assert (made.task, made.max_length, made.job(made.sweep[0]).task) == (TRANSLATION, 8, "seq2seq")
    assert made.facts(made.sweep[0])["warmup"] == 3


def test_an_unknown_task_is_refused(tmp_path: Path):
    folder = write_artefact(tmp_path / "a")
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, "task": "speech"}))
    assert "speech" not in TASKS
    with pytest.raises(BadInput, match="has task 'speech'; this version knows translation and images"):
        read_subject(folder)
