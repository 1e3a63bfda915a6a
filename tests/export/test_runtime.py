"""The search loops of an open artefact against HF generate, and what they refuse."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tests.export.test_export import Source
from tprune.base.errors import BadInput
from tprune.export.manifest import Scoring
from tprune.export.marian import parity
from tprune.export.ort import runtime
from tprune.export.ort.export import to_onnx
from tprune.export.search.beam import Beams
from tprune.export.search.translator import Translator
from tprune.marian.model import PrunedMarianMTModel


@pytest.fixture(scope="module")
def model(tiny_config) -> PrunedMarianMTModel:
    model = randomised(PrunedMarianMTModel.from_stock(MarianMTModel(tiny_config())))
    model.final_logits_bias[0, 0] += 3.0  # so that some sentences end by themselves
    model.final_logits_bias[0, model.config.pad_token_id] = 12.0  # it takes its share, and would often win
    model.generation_config.max_length = 20
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, tiny_tokenizer_folder) -> Path:
    out = tmp_path_factory.mktemp("artefact") / "tiny"
    to_onnx(Source(model, MarianTokenizer.from_pretrained(tiny_tokenizer_folder)), out, sentences=SENTENCES[:2])
    return out


@pytest.fixture(scope="module")
def artefact(folder: Path) -> Translator:
    return runtime.open(folder)


@pytest.fixture(scope="module")
def sources() -> list[list[int]]:
    drawn = np.random.default_rng(1)
    return [[*drawn.integers(2, 110, size=n).tolist(), 0] for n in (1, 2, 3, 5, 8, 13, 21, 4, 6, 7)]


def hf_beam(model: MarianMTModel, source: list[int], **settings: object) -> tuple[int, ...]:
    ids = torch.tensor([source])
    pad = model.config.pad_token_id
    settings |= {"do_sample": False, "bad_words_ids": [[pad]]}
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, 1:].tolist()
    while found and found[-1] == pad:
        found.pop()
    return tuple(found)


def test_greedy_equals_generate_and_adds_up(artefact, model, sources) -> None:
    lengths = set()
    for source in sources:
        found = artefact.greedy(source)
        assert found.ids == parity.greedy(model, source, 20)
        assert found.steps == len(found.ids)
        assert 0 < found.run_ns < found.total_ns == found.encoder_ns + sum(found.step_ns)
        lengths.add(found.steps)
    assert len(lengths) > 1  # some end by themselves, some are forced to


def test_greedy_ends_at_the_limit(artefact, model, sources) -> None:
    for source in sources:
        ids = artefact.greedy(source, max_length=4).ids
        assert len(ids) <= 3
        assert ids[-1] == 0
        assert ids == parity.greedy(model, source, 4)


def test_batch_with_padding_equals_one_by_one(artefact, sources) -> None:
    one_by_one = tuple(artefact.greedy(source).ids for source in sources)
    for size in (1, 4, 32):
        assert artefact.translate(sources, batch_size=size) == one_by_one
    assert artefact.translate(sources[:2], max_length=3) == tuple(
        artefact.greedy(source, max_length=3).ids for source in sources[:2]
    )
    assert artefact.translate([]) == ()


def test_several_sentences_with_beams_equal_one_by_one(artefact, sources) -> None:
    seen: list[tuple[int, int]] = []
    found = artefact.translate(sources, beams=3, batch_size=4, progress=lambda done, n: seen.append((done, n)))
    assert found == tuple(artefact.beam(source, 3) for source in sources)
    assert seen == [(4, 10), (8, 10), (10, 10)]
    settings = {"length_penalty": 2.0, "early_stopping": "never"}
    found = artefact.translate(sources, beams=3, batch_size=32, max_length=9, **settings)
    assert found == tuple(artefact.beam(source, 3, 9, **settings) for source in sources)


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("early", [False, True])
def test_beam_equals_generate(artefact, model, sources, beams: int, early: bool) -> None:
    for source in sources:
        settings = {"num_beams": beams, "max_length": 20, "early_stopping": early and beams > 1}
        assert artefact.beam(source, beams, early_stopping=early) == hf_beam(model, source, **settings)


@pytest.mark.parametrize("early", [False, True, "never"])
def test_length_penalty_equals_generate(artefact, model, sources, early: bool | str) -> None:
    outputs = set()
    for penalty in (-1.5, 0.0, 0.6, 3.0):
        settings = {"length_penalty": penalty, "early_stopping": early}
        found = tuple(artefact.beam(source, 4, **settings) for source in sources)
        assert found == tuple(hf_beam(model, source, num_beams=4, max_length=20, **settings) for source in sources)
        outputs.add(found)
    assert len(outputs) > 1


def test_the_checkpoint_says_how_to_score(model, tiny_tokenizer_folder, sources, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(model.generation_config, "length_penalty", 3.0)
    monkeypatch.setattr(model.generation_config, "early_stopping", True)
    tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    to_onnx(Source(model, tokenizer), tmp_path / "artefact", sentences=SENTENCES[:2])
    artefact = runtime.open(tmp_path / "artefact")
    assert artefact.manifest.scoring == Scoring(3.0, True)
    for source in sources:
        assert artefact.beam(source, 3) == hf_beam(model, source, num_beams=3, max_length=20)


def test_unknown_characters_are_translated_as_unk(artefact, tiny_tokenizer_folder) -> None:
    tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    ids = tokenizer("\u2603 \U0001f9ff \x00")["input_ids"]
    assert tokenizer.unk_token_id in ids
    assert artefact.greedy(ids).ids[-1] == artefact.manifest.special.eos


def test_pad_never_wins(artefact, sources) -> None:
    pad, would_have_won = artefact.manifest.special.pad, 0
    for source in sources:
        ids = artefact.greedy(source).ids
        assert pad not in ids
        would_have_won += int((artefact.logits(source, ids).argmax(axis=1) == pad).sum())
    assert would_have_won > 100  # the graph leaves it alone


def test_encoder_outputs_have_the_shapes_of_the_manifest(artefact, sources) -> None:
    found = artefact.encode(sources[:3])
    for port in artefact.manifest.tensors["encoder"].outputs:
        assert found[port.name].shape == tuple({"batch": 3, "source": 4}.get(size, size) for size in port.shape)
    np.testing.assert_array_equal(found["mask"][0, 0, 0] == 0.0, [True, True, False, False])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda a: a.greedy([]), "no token ids"),
        (lambda a: a.greedy([5] * 65), "65 token ids; this artefact takes at most 64"),
        (lambda a: a.greedy([5, 0], max_length=1), "between 2 and 20"),
        (lambda a: a.greedy([5, 0], max_length=21), "not 21"),
        (lambda a: a.beam([5, 0], 0), "beams must be at least 1, not 0"),
        (lambda a: a.beam([5, 0], 2, length_penalty=float("nan")), "length_penalty must be a number, not nan"),
        (lambda a: a.beam([5, 0], 2, early_stopping="often"), "early_stopping must be false, true or 'never', not 'of"),
        (lambda a: a.translate([[5, 0], []]), "no token ids"),
        (lambda a: a.translate([[5, 0], [5] * 65], beams=2), "65 token ids; this artefact takes at most 64"),
        (lambda a: a.translate([[5, 0]], batch_size=0), "batch_size must be at least 1, not 0"),
    ],
)
def test_refuses_a_wrong_call(artefact, call, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        call(artefact)


def test_refuses_a_damaged_artefact(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    graph = tmp_path / "decoder_step.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"decoder_step\.onnx has \d+ bytes instead of"):
        runtime.open(tmp_path)
    with pytest.raises(BadInput, match="threads must be at least 1, not 0"):
        runtime.open(folder, threads=0)


def test_needs_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None); from tprune.export.ort import runtime;"
        f"runtime.open({str(folder)!r}).greedy([5, 6, 0]);"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1';"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])


def test_beams_prefer_the_better_average() -> None:
    search = Beams(width=2, eos=0, limit=4)
    first = np.log(np.array([[0.5, 0.3, 0.2]] * 2, dtype=np.float32))  # ends at once with -0.69 a token ...
    parents, goes_on = search.advance(first)
    assert (parents, search.running) == ([0, 0], [(1,), (2,)])
    assert goes_on
    search.advance(np.log(np.array([[0.98, 0.01, 0.01]] * 2, dtype=np.float32)))  # ... or with (-1.20 - 0.02) / 2
    assert search.best() == (1, 0)


def test_real_sentences_equal_generate(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "marian-multi30k-en-de"
    with gzip.open(shared / "data" / "multi30k" / "val.en.gz", "rt", encoding="utf-8") as lines:
        sentences = [next(lines).strip() for _ in range(8)]
    tokenizer = MarianTokenizer.from_pretrained(source)
    model = PrunedMarianMTModel.from_stock(MarianMTModel.from_pretrained(source))
    manifest = to_onnx(Source(model, tokenizer), tmp_path / "dense", sentences=sentences)
    assert (manifest.parity.identical, manifest.parity.max_abs_logit_diff < 1e-3) == (8, True)
    artefact = runtime.open(tmp_path / "dense")
    for text in sentences[:3]:
        ids = tokenizer(text)["input_ids"]
        assert artefact.beam(ids, 4) == hf_beam(model, ids, num_beams=4, max_length=128)
