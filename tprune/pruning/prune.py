"""Prune a checkpoint: train under a penalty, score the lines, plan, cut, fine-tune.

    small = prune(load("opus-mt-en-de"), corpus.load(data, split="train"), keep=0.5).save("small")

Every criterion gets the same total number of optimiser steps: `steps` under the penalty and `finetune_steps` after the
cut. Criteria without a penalty spend both on fine-tuning.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.base.fields import chosen
from tprune.marian.batches import Batch, collate, in_order
from tprune.marian.checkpoint import Checkpoint, opened, save
from tprune.marian.corpus import Corpus, Pairs, check, tokenise
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.objective import dev_loss
from tprune.marian.recipe import Recipe
from tprune.marian.train import Regulariser, train
from tprune.pruning.allocate import allocate, plan_at
from tprune.pruning.criteria import CRITERIA, function
from tprune.pruning.penalty import Decoupled
from tprune.pruning.plan import Plan
from tprune.pruning.pressure import DEAD, Pressure, dead_share
from tprune.pruning.scores import Evidence, LineScores
from tprune.pruning.settings import Settings
from tprune.pruning.sites import sites
from tprune.pruning.surgery import cut, mask
from tprune.pruning.verify import require, verify

CALIBRATION = 8  # batches of training data that Taylor's scores are averaged over

Watch = Callable[[str, int, int, float], None]  # (phase, steps done, steps in all, task loss)


@dataclass(frozen=True)
class Pruned:
    """The small model, the plan that cut it, the facts for its stamp, and the checkpoint that was pruned."""

    model: PrunedMarianMTModel
    plan: Plan
    facts: dict[str, Any]
    source: Checkpoint

    def __repr__(self) -> str:
        facts = self.facts
        loss = f", dev loss {facts['dev_loss']:.3f}" if "dev_loss" in facts else ""
        return (
            f"Pruned({self.source.name!r} by {facts['criterion']}: {facts['kept']:.1%} of the prunable weights kept, "
            f"{facts['params']:,} of {facts['dense_params']:,} parameters{loss})"
        )

    def save(self, out: Path | str) -> Checkpoint:
        """Write a checkpoint folder with plan and facts, whole or not at all, and return it."""
        plan, inputs = self.plan.to_json(), {self.source.name: self.source.id}
        return save(self.model, self.source.tokenizer, out, facts=self.facts, plan=plan, inputs=inputs)


def prune(
    checkpoint: Checkpoint | str | os.PathLike[str],
    corpus: Corpus,
    settings: Settings | None = None,
    *,
    dev: Corpus | None = None,
    strengths: Mapping[str, float] | None = None,
    teacher: Checkpoint | str | os.PathLike[str] | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
    **fields: Any,
) -> Pruned:
    """Prune `checkpoint` (or its folder or hub id) with `corpus` as training data; it is not changed itself.

    `fields` are those of `Settings`, such as `keep=0.5`; they override `settings`. `strengths` are the per-site factors
    of an analysis (`Sensitivity.strengths`). Distillation is from `teacher`, or with `distill=True` from the checkpoint
    itself. With `run_dir` a killed run resumes from its last state. Raises BadInput for illegal settings, WorkFailed
    when training diverges, TypeError for an unknown field.
    """
    settings = chosen(Settings, settings, fields)
    check(corpus=corpus, dev=dev)
    checkpoint, teacher = opened(checkpoint), opened(teacher) if teacher else None
    if not sites(checkpoint.model):
        raise BadInput(f"model {checkpoint.name!r}: nothing is left to prune, every sub-block is empty already")
    limit = checkpoint.model.config.max_position_embeddings
    pairs = tokenise(corpus, checkpoint.tokenizer, limit)
    big = copy.deepcopy(checkpoint.model)
    guide = (teacher or checkpoint).model if teacher or settings.distill else None
    facts = _facts(checkpoint, settings)
    if settings.penalised:
        scores, about = _sparsify(big, pairs, settings, strengths, guide, _sub(run_dir, "sparsify"), watch)
        facts |= about
    else:
        scores = score(big, pairs, settings)
    plan = _plan(big, scores, settings)
    small = cut(big, plan)
    exact = verify(small, mask(big, plan), seed=settings.seed)
    require(exact, "surgery")
    facts["masked_vs_cut"] = exact.max_abs_logit_diff
    dev_batches = batches(tokenise(dev, checkpoint.tokenizer, limit), small) if dev else []
    if dev_batches:
        facts["dev_loss_after_cut"] = dev_loss(small, dev_batches)
    steps = settings.finetune_steps + (0 if settings.penalised else settings.steps)
    if steps:
        recipe = _recipe(settings, steps, settings.finetune_lr, final=0.0)
        done = train(
            small, pairs, recipe, teacher=guide, run_dir=_sub(run_dir, "finetune"), watch=_phase(watch, "fine-tune")
        )
        facts["finetune_seconds"] = round(done.seconds, 1)
    if dev_batches:
        facts["dev_loss"] = dev_loss(small, dev_batches)
    facts |= _sizes(checkpoint.model, small)
    return Pruned(small.eval(), plan, facts, checkpoint)


def score(model: PrunedMarianMTModel, pairs: Pairs, settings: Settings) -> LineScores:
    """Return the score of every line by the settings' criterion, on the current weights."""
    calibration: list[Batch] = []
    criterion = CRITERIA[settings.criterion]
    if criterion.calibrated:
        step = max(len(pairs) // (CALIBRATION * 64), 1)
        some = Pairs(pairs.source[::step], pairs.target[::step])
        calibration = batches(some, model)[:: max(len(batches(some, model)) // CALIBRATION, 1)]
    found: LineScores = function(criterion.scores)(model, Evidence(calibration, settings.seed))
    return found


def _plan(model: PrunedMarianMTModel, scores: LineScores, settings: Settings) -> Plan:
    """Return the plan: the best lines within the budget, or without a budget all lines that are not dead."""
    facts = asdict(settings)
    if settings.keep is None:
        return plan_at(model, sites(model), scores, DEAD, settings.round_to, facts)
    return allocate(model, scores, keep=settings.keep, round_to=settings.round_to, facts=facts)


def batches(pairs: Pairs, model: PrunedMarianMTModel, *, tokens: int = 4096) -> list[Batch]:
    """Return all pairs once, in padded batches of at most `tokens` tokens, shortest first."""
    lengths = [(len(s), len(t)) for s, t in zip(pairs.source, pairs.target, strict=True)]
    pad, start = model.config.pad_token_id, model.config.decoder_start_token_id
    return [
        collate([pairs.source[i] for i in rows], [pairs.target[i] for i in rows], pad=pad, start=start)
        for rows in in_order(lengths, tokens=tokens)
    ]


def _sparsify(
    model: PrunedMarianMTModel,
    pairs: Pairs,
    settings: Settings,
    strengths: Mapping[str, float] | None,
    teacher: PrunedMarianMTModel | None,
    run_dir: Path | None,
    watch: Watch | None,
) -> tuple[LineScores, dict[str, Any]]:
    """Train under the penalty, in place; return the scores of the lines and facts about the training."""
    formula = CRITERIA[settings.criterion].penalty
    assert formula is not None  # `settings.penalised`
    press = Decoupled(model, function(formula), strengths)
    follow, start = None, settings.strength
    if start is None:
        assert settings.keep is not None  # checked by Settings
        follow, start = Pressure(press, settings.keep, settings.steps), 0.0
    name = f"{settings.criterion} {'at a strength' if follow is None else 'growing'}, keep {settings.keep}"
    if strengths:
        name += f", site by site {hashlib.sha256(repr(sorted(strengths.items())).encode()).hexdigest()[:16]}"
    done = train(
        model,
        pairs,
        _recipe(settings, settings.steps, settings.lr, final=1.0),
        regulariser=Regulariser(start, press=press, adjust=follow, name=name),
        teacher=teacher,
        run_dir=run_dir,
        watch=_phase(watch, "sparsify"),
    )
    return press.scores(), {
        "last_strength": done.strength,
        "dead_share": round(dead_share(press.weights()), 4),
        "sparsify_seconds": round(done.seconds, 1),
    }


def _recipe(settings: Settings, steps: int, lr: float, *, final: float) -> Recipe:
    return Recipe(
        steps=steps,
        lr=lr,
        final_lr_share=final,
        seed=settings.seed,
        tokens=settings.tokens,
        warmup=min(20, steps // 5),
        save_every=100,
    )


def _facts(checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    """Return facts for the small model's stamp; `keep` of repeated pruning is the product."""
    facts: dict[str, Any] = {**asdict(settings), "source": checkpoint.name, "source_id": checkpoint.id}
    before = checkpoint.facts
    if before.get("keep") and settings.keep:
        facts["keep"] = round(before["keep"] * settings.keep, 6)
        facts["criterion"] = before["criterion"] if settings.keep == 1 else settings.criterion
    return facts


def _sizes(dense: PrunedMarianMTModel, small: PrunedMarianMTModel) -> dict[str, Any]:
    before, after = count(dense), count(small)
    return {
        "params": after.params,
        "macs": after.macs,
        "prunable": after.prunable,
        "kept": after.prunable / before.prunable,
        "dense_params": before.params,
        "dense_macs": before.macs,
        "dense_prunable": before.prunable,
    }


def _sub(run_dir: Path | None, name: str) -> Path | None:
    return run_dir / name if run_dir else None


def _phase(watch: Watch | None, phase: str) -> Callable[[int, int, float], None] | None:
    if watch is None:
        return None
    return lambda done, total, loss: watch(phase, done, total, loss)
