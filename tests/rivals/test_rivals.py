"""The rivals: their selection, the files written for them, and their translations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tests.support.marians import random_plan
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.compare import rivals
from tprune.bench.measure import host
from tprune.bench.runner.contract import Job, RunFailed
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.translate import translate
from tprune.pruning import surgery
from tprune.rivals.write import write_ctranslate2, write_hf

LONGEST = 14  # target tokens, the start token included


@pytest.fixture(name="make")
def make_checkpoint(tiny_config, tiny_tokenizer_folder):
    """Return a function from changes of the tiny config to a checkpoint; no `</s>` is forced at the length limit."""

    def make(*, pruned: bool = False, **changes) -> Checkpoint:
        model = randomised(MarianMTModel(tiny_config(forced_eos_token_id=None, **changes)))
        model = PrunedMarianMTModel.from_stock(model)
        if pruned:
            model = surgery.cut(model, random_plan(model, seed=3))
        model.generation_config.max_length = LONGEST
        model.generation_config.forced_eos_token_id = None
        facts = {"criterion": "random", "keep": 0.5} if pruned else {}
        tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
        return Checkpoint(model.eval(), tokenizer, "0123456789abcdef", "tiny", facts)

    return make


def ids_of(checkpoint: Checkpoint) -> list[list[int]]:
    return checkpoint.tokenizer(list(SENTENCES[:6]))["input_ids"]


def run(folder: Path, sentences: list[list[int]], **changes):
    subject = rivals.read(folder)
    job = Job(nonce="n", max_length=LONGEST, **changes)
    return host.execute(rivals.programs(rivals.RIVALS)[subject.runtime], subject, job, sentences)


def test_the_rivals_are_those_that_are_asked_for_in_that_order():
    pytest.importorskip("ctranslate2")
    assert [rival.name for rival in rivals.chosen("ctranslate2, hf")] == ["ctranslate2", "hf"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("hf,marian", "--rivals 'marian': must be of hf, ctranslate2"),
        ("", "--rivals '': must be of"),
        ("hf,hf", "names one twice"),
    ],
)
def test_a_wrong_list_of_rivals(names, said):
    with pytest.raises(BadInput, match=said):
        rivals.chosen(names)


def test_a_rival_that_is_not_installed_must_not_be_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None if name == "ctranslate2" else object())
    assert [rival.name for rival in rivals.chosen(None)] == ["hf"]
    with pytest.raises(BadInput, match=r"ctranslate2 is not installed: pip install 'tprune\[rivals\]'"):
        rivals.chosen("hf,ctranslate2")


@pytest.mark.parametrize("pruned", [False, True])
def test_both_rivals_translate_as_the_checkpoint_does(make, tmp_path, pruned):
    pytest.importorskip("ctranslate2")
    checkpoint = make(pruned=pruned)
    expected = translate(checkpoint.model, checkpoint.tokenizer, SENTENCES[:6], batch_size=1).ids
    write_ctranslate2(checkpoint, tmp_path / "ct2", precision="fp32")
    write_hf(checkpoint, tmp_path / "hf")
    for name, engine in (("ct2", "ctranslate2"), ("hf", "transformers")):
        found = run(tmp_path / name, ids_of(checkpoint), warmup=1)
        assert found.output_ids == expected
        assert found.engine["name"] == engine and min(found.samples_ns) > 0
    kind = json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"]
    assert kind == ("pruned_marian" if pruned else "marian")


def test_beams_are_searched_where_they_are_asked_for(make, tmp_path):
    checkpoint = make()
    expected = translate(checkpoint.model, checkpoint.tokenizer, SENTENCES[:6], beams=3, batch_size=1).ids
    write_hf(checkpoint, tmp_path / "hf")
    found = run(tmp_path / "hf", ids_of(checkpoint), beams=3)
    assert (found.beams, found.output_ids) == (3, expected)


def test_ctranslate2_runs_without_torch_and_in_int8_as_asked(make, tmp_path):
    pytest.importorskip("ctranslate2")
    checkpoint = make(d_model=32)
    for precision in ("fp32", "int8"):
        write_ctranslate2(checkpoint, tmp_path / precision, precision=precision)
    fp32, int8 = rivals.read(tmp_path / "fp32"), rivals.read(tmp_path / "int8")
    assert int8.bytes < fp32.bytes and int8.id != fp32.id
    assert (int8.precision, int8.max_target, int8.model["criterion"]) == ("int8", LONGEST, "dense")
    found = run(tmp_path / "int8", ids_of(checkpoint), threads=1)
    assert found.memory["end"]["vm_hwm_kib"] < 150_000  # torch alone is more


def test_the_same_checkpoint_gives_the_same_rival(make, tmp_path):
    pytest.importorskip("ctranslate2")
    for name in ("one", "two"):
        write_ctranslate2(make(), tmp_path / name, precision="int8")
    assert rivals.read(tmp_path / "one").id == rivals.read(tmp_path / "two").id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad_token_id": 5, "decoder_start_token_id": 5}, r"<pad> is 5, but CTranslate2 assumes the last id \(111\)"),
        ({"share_encoder_decoder_embeddings": False}, "separate vocabularies"),
    ],
)
def test_what_ctranslate2_cannot_hold_is_refused_and_nothing_is_left(make, tmp_path, changes, said):
    with pytest.raises(BadInput, match=f"{said}.*leave it out of --rivals"):
        write_ctranslate2(make(**changes), tmp_path / "ct2", precision="fp32")
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_says_so_in_one_line(make, tmp_path, monkeypatch):
    converters = pytest.importorskip("ctranslate2.converters")

    def convert(self, *args, **options):
        raise ValueError("no such\nlayer")

    monkeypatch.setattr(converters.TransformersConverter, "convert", convert)
    with pytest.raises(WorkFailed, match="converter failed on 'tiny': ValueError: no such layer"):
        write_ctranslate2(make(), tmp_path / "ct2", precision="fp32")
    assert not list(tmp_path.iterdir())


def test_a_rival_that_cannot_open_its_model_fails_in_one_line(make, tmp_path):
    pytest.importorskip("ctranslate2")
    write_ctranslate2(make(), tmp_path / "ct2", precision="fp32")
    (tmp_path / "ct2" / "model.bin").write_bytes(b"nothing")
    with pytest.raises(RunFailed, match="RuntimeError"):
        run(tmp_path / "ct2", [[5, 0]])
