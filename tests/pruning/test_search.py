"""The search for the smallest budget, on runs and losses that are only pretended."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from tprune.base.errors import BadInput, WorkFailed
from tprune.marian.corpus import Corpus
from tprune.pruning import search
from tprune.pruning.search import bleu_loss, check_limit, smallest


def run(keep: float) -> Any:
    return SimpleNamespace(keep=keep)


def ten_times_what_goes(result: Any) -> float:
    return 10 * (1 - result.keep)


def test_bisection_finds_the_smallest_budget_within_the_limit() -> None:
    best, trials = smallest(run, ten_times_what_goes, limit=4)
    assert [trial.keep for trial in trials] == [0.525, 0.7625, 0.6438, 0.5844, 0.6141]
    assert [trial.bleu_loss_percent for trial in trials] == [4.75, 2.375, 3.562, 4.156, 3.859]
    assert best.keep == 0.6141  # not the last one tried by chance: the true answer is 0.6


def test_the_best_is_not_the_last_when_the_last_fails() -> None:
    best, trials = smallest(run, ten_times_what_goes, limit=4, tries=4)
    assert (best.keep, trials[-1].keep) == (0.6438, 0.5844)


def test_a_gain_is_within_every_limit() -> None:
    best, trials = smallest(run, lambda _: -3.0, limit=0)
    assert best.keep == trials[-1].keep == min(trial.keep for trial in trials) == 0.0797


def test_no_budget_is_good_enough() -> None:
    """The message names the largest budget tried, the limit and the least loss that was seen."""
    complaint = (
        "no budget up to keep 0.9703 loses at most 1.5 % BLEU (least loss: 4.059 %); allow more, or train longer"
    )
    with pytest.raises(WorkFailed, match=re.escape(complaint)):
        smallest(run, lambda result: 5 - 0.97 * result.keep, limit=1.5)


@pytest.mark.parametrize("limit", [-0.1, 100.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_percentage(limit: float) -> None:
    with pytest.raises(BadInput, match=r"--max-bleu-drop \S+: must be a relative loss in per cent, from 0 to below"):
        smallest(run, ten_times_what_goes, limit=limit)


def test_limits_that_are_legal() -> None:
    check_limit(0)
    check_limit(99.9)


def test_the_loss_is_relative_to_the_dense_model(monkeypatch) -> None:
    dev = Corpus(("a", "b"), ("x", "y"), name="dev", split="val", language="de")
    scores = {"dense": 40.0, "good": 41.0, "bad": 30.0}
    monkeypatch.setattr(search, "translate", lambda model, tokenizer, sentences: SimpleNamespace(text=model))
    monkeypatch.setattr(
        search, "score", lambda text, references, language: SimpleNamespace(bleu=scores[text] if language else None)
    )
    loss = bleu_loss(SimpleNamespace(model="dense", tokenizer=None), dev)  # type: ignore[arg-type]
    assert loss(SimpleNamespace(model="bad")) == pytest.approx(25)  # type: ignore[arg-type]
    assert loss(SimpleNamespace(model="good")) == pytest.approx(-2.5)  # type: ignore[arg-type]


def test_a_dense_model_that_says_nothing_right_loses_nothing(monkeypatch) -> None:
    dev = Corpus(("a",), ("x",), name="dev", split="val", language="de")
    monkeypatch.setattr(search, "translate", lambda *_: SimpleNamespace(text="t"))
    monkeypatch.setattr(search, "score", lambda *_, language: SimpleNamespace(bleu=0.0))
    assert bleu_loss(SimpleNamespace(model=0, tokenizer=0), dev)(SimpleNamespace(model=0)) == 0  # type: ignore[arg-type]
