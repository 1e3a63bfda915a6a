"""Quality: sacreBLEU's numbers, its signatures, and a significance test that is right at the edges too."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from transformers import MarianTokenizer

from tests.conftest import SENTENCES
from tprune.base.errors import BadInput
from tprune.base.stamp import write_json
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.quality import System, compare, evaluate, evaluate_ids, model_facts, read_quality, score
from tprune.marian.translate import translate

REFERENCES = (
    "The dog runs across the green grass.",
    "A man is sitting on a wooden bench in the park.",
    "Two children are playing with a ball.",
)
BASELINE = (
    "The dog runs across the green grass .",
    "A man sits on a wooden bench in the park.",
    "Two children play with a ball.",
)
SYSTEM = ("A dog runs over green grass.", "A man sits on a bench in the park.", "Two kids play with a red ball.")
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
CHRF_SIGNATURE = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:"


@pytest.mark.parametrize(
    ("hypotheses", "bleu", "chrf"),
    [  # sacrebleu 2.6.0's command line on these lines: -m bleu chrf -w 6
        (BASELINE, 70.98541, 78.247631),
        (SYSTEM, 28.046887, 44.20385),
        (REFERENCES, 100.0, 100.0),
        (("", "", ""), 0.0, 0.0),
    ],
)
def test_scores_are_sacrebleus(hypotheses, bleu, chrf):
    got = score(hypotheses, REFERENCES)
    assert (got.bleu, got.chrf) == pytest.approx((bleu, chrf), abs=1e-5)
    assert got.signature.startswith(BLEU_SIGNATURE)
    assert got.chrf_signature.startswith(CHRF_SIGNATURE)


def test_chinese_is_tokenised_as_chinese():
    assert "|tok:zh|" in score(("你好世界",), ("你好世界",), language="zh").signature
    assert "|tok:13a|" in score(("hallo",), ("hallo",), language="de").signature


def test_a_tokeniser_that_is_missing_is_named(monkeypatch):
    def no_mecab(**_):
        raise RuntimeError("install sacrebleu[ja]")

    monkeypatch.setattr("tprune.marian.quality.BLEU", no_mecab)
    with pytest.raises(BadInput, match=r"target language 'ja' needs a tokeniser that is not installed: .*\[ja\]"):
        score(("x",), ("x",), language="ja")


def test_p_value_is_that_of_sacrebleus_command_line():
    # sacrebleu 2.6.0: sacrebleu ref -i base sys -m bleu --paired-bs -f json; the smallest it can say is 1 / 1001
    assert compare(SYSTEM, BASELINE, REFERENCES) == pytest.approx(0.000999000999000999)


def test_identical_systems_differ_by_chance():
    assert compare(SYSTEM, SYSTEM, REFERENCES) == 1.0
    assert compare([f" {line}" for line in SYSTEM], SYSTEM, REFERENCES) == 1.0  # no BLEU difference in any resample


def test_a_small_difference_is_not_significant_and_a_large_one_is():
    references = [f"{line} {word}" for line in SENTENCES for word in ("eins", "zwei", "drei")]
    broken_once = ["nothing at all here", *references[1:]]
    broken_often = ["nothing at all here" if number % 2 else line for number, line in enumerate(references)]
    assert compare(broken_once, references, references, samples=200) > 0.05
    assert compare(broken_often, references, references, samples=200) < 0.05


def test_comparison_is_symmetric_and_repeats_itself(monkeypatch):
    references = [f"{line} {word}" for line in SENTENCES for word in ("eins", "zwei", "drei")]
    changed = ["nothing at all here", *references[1:]]
    first = compare(changed, references, references, samples=100, seed=7)
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    assert compare(changed, references, references, samples=100, seed=7) == first
    assert compare(references, changed, references, samples=100, seed=7) == first
    assert os.environ["SACREBLEU_SEED"] == "99"
    monkeypatch.delenv("SACREBLEU_SEED")
    compare(changed, references, references, samples=100)
    assert "SACREBLEU_SEED" not in os.environ


def test_lists_of_different_length():
    with pytest.raises(BadInput, match="2 hypotheses but 3 references"):
        score(SYSTEM[:2], REFERENCES)
    with pytest.raises(BadInput, match="1 hypotheses but 3 references"):
        compare(SYSTEM, BASELINE[:1], REFERENCES)
    with pytest.raises(BadInput, match="0 hypotheses but 0 references"):
        score((), ())


@pytest.mark.parametrize("settings", [{"samples": 0}, {"seed": 0}])
def test_bad_settings(settings):
    with pytest.raises(BadInput, match="must both be at least 1"):
        compare(SYSTEM, BASELINE, REFERENCES, **settings)


@pytest.fixture
def corpus():
    return Corpus(SENTENCES[:6], SENTENCES[6:], "tiny", "test", limit=6, language="de")


@pytest.fixture
def checkpoint(tiny_model, tiny_tokenizer_folder):
    tiny_model.generation_config.max_length = 12
    tokenizer = MarianTokenizer.from_pretrained(tiny_tokenizer_folder)
    return Checkpoint(PrunedMarianMTModel.from_stock(tiny_model), tokenizer, id="0" * 16, name="tiny-dense")


def test_quality_document(checkpoint, corpus):
    seen = []
    document = evaluate(checkpoint, corpus, beams=2, progress=lambda *counts: seen.append(counts))
    made = translate(checkpoint.model, checkpoint.tokenizer, corpus.source, beams=2)
    assert document["hypotheses"] == list(made.text)
    assert document["bleu"] == score(made.text, corpus.target).bleu
    wanted = {"schema": 1, "kind": "quality", "runtime": "torch", "precision": "fp32", "artefact": None, "beams": 2}
    wanted |= {"split": "test", "limit": 6, "sentences": 6, "corpus": corpus.id, "baseline": None, "truncated": 0}
    assert {key: document[key] for key in wanted} == wanted
    assert document["inputs"] == {"model": "0" * 16, "corpus": corpus.id}
    assert document["signature"].startswith(BLEU_SIGNATURE)
    assert document["chrf_signature"].startswith(CHRF_SIGNATURE)
    assert seen == [(6, 6)]


def test_facts_of_a_stock_and_of_a_pruned_model(checkpoint):
    facts = model_facts(checkpoint)
    size = count(checkpoint.model)
    assert facts == {
        "id": "0" * 16,
        "name": "tiny-dense",
        "criterion": "dense",
        "seed": None,
        "keep": 1.0,
        "params": size.params,
        "macs": size.macs,
    }
    pruned = replace(checkpoint, facts={"criterion": "shs", "seed": 3, "keep": 0.5, "strength": 1e-4})
    assert model_facts(pruned) == facts | {"criterion": "shs", "seed": 3, "keep": 0.5}


def test_ids_from_a_device_give_the_same_document(checkpoint, corpus):
    ids = translate(checkpoint.model, checkpoint.tokenizer, corpus.source).ids
    system = System({"id": "0" * 16, "name": "tiny"}, artefact="a" * 16, runtime="onnxruntime", precision="int8")
    document = evaluate_ids(ids, checkpoint.tokenizer, corpus, system=system)
    assert document["hypotheses"] == evaluate(checkpoint, corpus)["hypotheses"]
    assert (document["artefact"], document["runtime"], document["precision"]) == ("a" * 16, "onnxruntime", "int8")
    with pytest.raises(BadInput, match="5 hypotheses but 6 references"):
        evaluate_ids(ids[:5], checkpoint.tokenizer, corpus, system=system)


def test_baseline_is_scored_from_its_kept_hypotheses(checkpoint, corpus, tmp_path):
    write_json(tmp_path / "dense.json", evaluate(checkpoint, corpus))
    system = System({"id": "1" * 16, "name": "perfect"})
    ids = checkpoint.tokenizer(text_target=list(corpus.target))["input_ids"]
    document = evaluate_ids(ids, checkpoint.tokenizer, corpus, system=system, baseline=tmp_path / "dense.json")
    baseline = document["baseline"]
    assert document["bleu"] == pytest.approx(100)
    assert (baseline["name"], baseline["p_value"]) == ("tiny-dense", pytest.approx(1 / 1001))
    assert baseline["bleu"] == json.loads((tmp_path / "dense.json").read_text(encoding="utf-8"))["bleu"]
    again = evaluate(checkpoint, corpus, baseline=tmp_path / "dense.json")
    assert again["baseline"]["p_value"] == 1.0


def test_baseline_on_other_sentences_is_refused(checkpoint, corpus, tmp_path):
    write_json(tmp_path / "dense.json", evaluate(checkpoint, corpus))
    other = Corpus(corpus.source[:2], corpus.target[:2], "tiny", "val")
    message = rf"on split test with 6 sentences \(id {corpus.id}\), but this is split val with 2 \(id {other.id}\)"
    with pytest.raises(BadInput, match=message):
        evaluate(checkpoint, other, baseline=tmp_path / "dense.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: .*No such file"),
        ("{", "is not JSON; name what `tprune evaluate --out` wrote"),
        ("[]", "no quality document of schema 1"),
        ('{"kind": "plan", "schema": 1}', "no quality document of schema 1"),
        ('{"kind": "quality", "schema": 99}', "no quality document of schema 1"),
        ('{"kind": "quality", "schema": 1, "corpus": "x"}', "lacks .*hypotheses"),
    ],
)
def test_baseline_that_is_no_quality_document(corpus, tmp_path, content, message):
    path = tmp_path / "quality.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        read_quality(path, corpus)


@pytest.mark.slow
def test_shared_model_has_the_bleu_of_its_recipe(shared):
    from transformers import MarianMTModel

    from tprune.marian.corpus import load

    folder = shared / "models" / "marian-multi30k-en-de"
    model, tokenizer = MarianMTModel.from_pretrained(folder), MarianTokenizer.from_pretrained(folder)
    corpus = load(shared / "data" / "multi30k", split="test_2016_flickr")
    got = score(translate(model, tokenizer, corpus.source).text, corpus.target, language="de")
    assert round(got.bleu, 2) == 39.74


def test_a_baseline_of_more_sentences_is_compared_on_the_shared_ones(checkpoint, corpus, tmp_path):
    whole = evaluate(checkpoint, corpus)
    (tmp_path / "dense.json").write_text(json.dumps(whole), encoding="utf-8")
    first = replace(corpus, source=corpus.source[:2], target=corpus.target[:2], limit=2)
    kept = read_quality(tmp_path / "dense.json", first, corpus)
    assert kept["hypotheses"] == whole["hypotheses"][:2]
    with pytest.raises(BadInput, match="was made on split test with 6 sentences .* but this is split test with 2 "):
        read_quality(tmp_path / "dense.json", first)
    other = replace(corpus, source=corpus.source[::-1], target=corpus.target[::-1])
    with pytest.raises(BadInput, match="was made on split"):
        read_quality(tmp_path / "dense.json", first, other)
