"""The outputs of a device, read from its records to be scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.artefacts import write_artefact
from tests.support.runs import PHONE, failed, model, on_phone
from tprune.base.errors import BadInput
from tprune.bench.measure import outputs, record, tasks, tokens
from tprune.bench.measure.record import Record

TEXTS = ("A man sleeps.", "The dog runs.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_artefact(tmp_path / "dense")


@pytest.fixture
def one(folder: Path) -> Record:
    found = on_phone(model("dense", "dense", 1.0), 0, [5, 6], output_ids=[[7, 0], [8, 0]])
    return replace(found, artefact=tasks.read_subject(folder).id)


def write(folder: Path, *records: Record) -> Path:
    path = folder.parent / "records.jsonl"
    for item in records:
        record.append(path, item)
    return path


def test_the_tokens_of_the_only_device(folder, one):
    said = outputs.read(write(folder, one, replace(one, block=1)), folder)
    assert (said.ids, said.beams, said.split, said.limit) == ([[7, 0], [8, 0]], 1, "test_2016_flickr", 200)
    assert said.device["model"] == "Made Up 9"


def test_a_device_is_chosen_among_several(folder, one):
    other = replace(one, device={**PHONE, "serial": "S2"}, output_ids=[[9, 0], [8, 0]])
    path = write(folder, one, other)
    assert outputs.read(path, folder, device="S2").ids[0] == [9, 0]
    with pytest.raises(BadInput, match="holds runs of several devices; choose one by --device: S1, S2"):
        outputs.read(path, folder)
    with pytest.raises(BadInput, match="device 'S3': .* holds runs of S1, S2"):
        outputs.read(path, folder, device="S3")


def test_beams_are_kept_apart(folder, one):
    path = write(folder, one, replace(one, beams=4, output_ids=[[9, 0], [8, 0]]))
    assert outputs.read(path, folder, beams=4).ids[0] == [9, 0]
    with pytest.raises(BadInput, match="beams 2: .* was measured with 1, 4"):
        outputs.read(path, folder, beams=2)


def test_what_did_not_finish_or_is_wrong_is_not_scored(folder, one):
    wrong = replace(one, verdict="WRONG_TOKENS")
    path = write(folder, wrong, replace(failed(model("b", "shs", 0.5), 0, "died"), artefact="other"))
    with pytest.raises(BadInput, match="holds no finished run of .*dense.*, but of: none at all"):
        outputs.read(path, folder)


def test_contradicting_tokens_are_refused(folder, one):
    path = write(folder, one, replace(one, threads=4, output_ids=[[9, 0], [8, 0]]))
    with pytest.raises(BadInput, match="holds different tokens of dense-onnx on one device"):
        outputs.read(path, folder)


def test_other_source_sentences_are_noticed(folder, one, tiny_tokenizer_folder):
    for file in tiny_tokenizer_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    encode = tokens.read(folder).encode
    settings = {**one.settings, "sentences_id": tasks.sentences_id([encode(text) for text in TEXTS])}
    said = outputs.read(write(folder, replace(one, settings=settings)), folder)
    said.check_sources(TEXTS)
    with pytest.raises(BadInput, match="measured on other sentences than those of this data"):
        said.check_sources(TEXTS[::-1])
