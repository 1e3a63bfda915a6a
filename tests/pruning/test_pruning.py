"""The job end to end on a tiny model: every criterion keeps its budget, states its facts and can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import MarianTokenizer

import tprune.pruning.prune
from tests.conftest import SENTENCES
from tests.support.marians import random_plan, stock
from tprune.base.errors import BadInput
from tprune.marian import checkpoint
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.criteria import CRITERIA
from tprune.pruning.prune import Pruned, Settings, prune
from tprune.pruning.surgery import cut, shapes

TINY = Settings(keep=0.5, steps=7, finetune_steps=2, round_to=2, tokens=200, lr=1e-2, seed=1)


@pytest.fixture
def dense(tiny_config, tiny_tokenizer_folder: Path) -> Checkpoint:
    tokenizer = MarianTokenizer.from_pretrained(str(tiny_tokenizer_folder))
    model = PrunedMarianMTModel.from_stock(stock(tiny_config()))
    return Checkpoint(model, tokenizer, "0123456789abcdef", "tiny")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(SENTENCES[:6] * 2, SENTENCES[6:] * 2, name="captions", split="train")


def same_bits(ours: PrunedMarianMTModel, theirs: PrunedMarianMTModel) -> bool:
    mine, other = ours.state_dict(), theirs.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def weights_of(model: PrunedMarianMTModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_end_to_end(dense, corpus, tmp_path: Path, criterion: str) -> None:
    before = weights_of(dense.model)
    phases: list[tuple[str, int, int]] = []
    settings = replace(TINY, criterion=criterion)
    result = prune(
        dense, corpus, settings, dev=corpus, watch=lambda phase, done, total, _: phases.append((phase, done, total))
    )

    assert 0 < result.facts["kept"] <= 0.5
    assert (
        result.facts["kept"] * result.facts["dense_prunable"]
        == result.facts["prunable"]
        == result.plan.kept_weights(16)
    )
    sizes = count(result.model)
    assert (result.facts["params"], result.facts["macs"]) == (sizes.params, sizes.macs)
    assert shapes(result.model) == shapes(cut(dense.model, result.plan))
    assert not result.model.training

    trained = [("sparsify", i + 1, 7) for i in range(7)] if CRITERIA[criterion].penalty else []
    finetuned = 9 - len(trained)  # the same number of steps in all
    assert phases == trained + [("fine-tune", i + 1, finetuned) for i in range(finetuned)]
    check_facts(result, criterion)

    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.model.state_dict().items())
    result.save(tmp_path / "out")
    loaded = checkpoint.load(tmp_path / "out")
    assert same_bits(loaded.model, result.model)
    assert loaded.facts["criterion"] == criterion


def check_facts(result: Pruned, criterion: str) -> None:
    facts = result.facts
    assert (facts["criterion"], facts["seed"], facts["keep"]) == (criterion, 1, 0.5)
    assert (facts["source"], facts["source_id"]) == ("tiny", "0123456789abcdef")
    assert facts["dev_loss"] > 0 and facts["dev_loss_after_cut"] > 0
    assert ("last_strength" in facts) == ("dead_share" in facts) == (CRITERIA[criterion].penalty is not None)
    assert result.plan.facts["criterion"] == criterion


def test_the_same_seed_gives_the_same_bits(dense, corpus) -> None:
    assert same_bits(prune(dense, corpus, TINY).model, prune(dense, corpus, TINY).model)


def test_random_plans_follow_the_seed(dense, corpus) -> None:
    settings = replace(TINY, criterion="random", steps=0, finetune_steps=0)
    plans = [prune(dense, corpus, replace(settings, seed=seed)).plan.to_json() for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0]["attention"] != plans[2]["attention"]


def test_a_killed_run_goes_on(dense, corpus, tmp_path: Path) -> None:
    """Stopped in fine-tuning: the finished first phase is taken from its state, the second starts where it was."""
    unbroken = prune(dense, corpus, TINY)
    with pytest.raises(KeyboardInterrupt, match="fine-tune"):
        prune(dense, corpus, TINY, run_dir=tmp_path, watch=stop_in("fine-tune"))
    seen: list[str] = []
    resumed = prune(dense, corpus, TINY, run_dir=tmp_path, watch=lambda phase, *_: seen.append(phase))
    assert seen == ["fine-tune", "fine-tune"]
    assert same_bits(resumed.model, unbroken.model)
    assert resumed.plan == unbroken.plan


def test_a_run_killed_under_the_penalty_goes_on(dense, corpus, tmp_path: Path, monkeypatch) -> None:
    """Whatever the penalty and its pressure remember must be in the state, or be computed again from it."""
    often = tprune.pruning.prune._recipe
    monkeypatch.setattr(
        tprune.pruning.prune, "_recipe", lambda *args, **kwargs: replace(often(*args, **kwargs), save_every=5)
    )
    settings = replace(TINY, steps=14, finetune_steps=1)
    unbroken = prune(dense, corpus, settings)
    with pytest.raises(KeyboardInterrupt, match="sparsify"):
        prune(dense, corpus, settings, run_dir=tmp_path, watch=stop_in("sparsify", after=12))
    steps: list[int] = []
    resumed = prune(dense, corpus, settings, run_dir=tmp_path, watch=lambda _, done, *__: steps.append(done))
    assert steps[0] == 11
    assert resumed.plan == unbroken.plan
    assert same_bits(resumed.model, unbroken.model)


def stop_in(phase: str, *, after: int = 1) -> Callable[[str, int, int, float], None]:
    def watch(now: str, done: int, total: int, loss: float) -> None:
        if now == phase and done == after:
            raise KeyboardInterrupt(now)

    return watch


def test_the_folder_of_another_budget(dense, corpus, tmp_path: Path) -> None:
    prune(dense, corpus, TINY, run_dir=tmp_path)
    with pytest.raises(BadInput, match=r"belongs to another run .*penalty is .*keep 0\.4"):
        prune(dense, corpus, replace(TINY, keep=0.4), run_dir=tmp_path)


def test_without_training_it_only_cuts(dense, corpus) -> None:
    result = prune(dense, corpus, replace(TINY, criterion="magnitude", steps=0, finetune_steps=0))
    assert same_bits(result.model, cut(dense.model, result.plan))


def test_keeping_everything_changes_nothing(dense, corpus) -> None:
    result = prune(dense, corpus, replace(TINY, keep=1.0, criterion="magnitude", steps=0, finetune_steps=0))
    assert same_bits(result.model, dense.model)
    assert result.facts["kept"] == 1


def test_pruning_a_pruned_model(dense, corpus) -> None:
    once = prune(dense, corpus, replace(TINY, criterion="magnitude"))
    again = prune(replace(dense, model=once.model), corpus, replace(TINY, criterion="shs"))
    assert 0 < count(again.model).prunable <= 0.5 * count(once.model).prunable


@pytest.mark.parametrize("criterion", ["shs", "taylor"])
def test_an_encoder_that_nobody_reads_goes(dense, corpus, criterion: str) -> None:
    """Without any cross-attention no gradient reaches the encoder."""
    deaf = cut(dense.model, random_plan(dense.model, 1, "no cross-attention"))
    result = prune(replace(dense, model=deaf), corpus, replace(TINY, criterion=criterion))
    assert 0 < count(result.model).prunable <= 0.5 * count(deaf).prunable


def test_nothing_left_to_prune(dense, corpus) -> None:
    empty = cut(dense.model, random_plan(dense.model, 0, "nothing"))
    with pytest.raises(BadInput, match=r"model 'tiny': nothing is left to prune, every sub-block is empty already"):
        prune(replace(dense, model=empty), corpus, TINY)


def test_distillation_and_strengths_per_site(dense, corpus) -> None:
    plain = prune(dense, corpus, TINY)
    distilled = prune(dense, corpus, replace(TINY, distill=True))
    steered = prune(dense, corpus, TINY, strengths={"encoder.layers.0.ffn": 30.0})
    assert not same_bits(plain.model, distilled.model)
    assert not same_bits(plain.model, steered.model)


def test_a_strength_without_a_budget_cuts_what_it_killed(dense, corpus) -> None:
    hard = prune(dense, corpus, replace(TINY, keep=None, strength=5.0, round_to=1))
    soft = prune(dense, corpus, replace(TINY, keep=None, strength=1e-9, round_to=1))
    assert hard.facts["kept"] < soft.facts["kept"] == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"keep": 1.5}, r"--keep 1.5: the share of prunable weights to keep must lie in \(0, 1\], e.g. 0.5"),
        ({"keep": 0.0}, r"--keep 0: the share"),
        ({"keep": float("nan")}, r"--keep nan: the share"),
        ({"keep": None}, r"--keep or --strength must be given"),
        ({"keep": None, "strength": 1.0, "criterion": "random"}, r"--strength needs a penalty .* 'random' has none"),
        ({"criterion": "luck"}, r"--criterion 'luck': must be one of shs, group-lasso, magnitude, taylor, random"),
        ({"steps": -1}, r"--steps -1: must be at least 0"),
        ({"finetune_steps": -1}, r"--finetune-steps -1: must be at least 0"),
        ({"round_to": 0}, r"--round-to 0: must be at least 1"),
        ({"tokens": 0}, r"--tokens 0: must be at least 1"),
        ({"lr": 0.0}, r"--lr 0: must lie between 0 and 1"),
        ({"finetune_lr": 3.0}, r"--finetune-lr 3: must lie between 0 and 1"),
        ({"strength": 0.0}, r"--strength 0: must be above 0 \(leave it out to follow --keep\)"),
    ],
)
def test_impossible_settings(changes: dict, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        replace(TINY, **changes)
