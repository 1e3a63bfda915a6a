"""The job itself: train under a penalty, score the lines, plan, cut, fine-tune.

    result = prune(load("opus-mt-en-de"), corpus.load(data, split="train"), Settings(keep=0.5))

Every criterion gets the same number of optimiser steps in all: `steps` under the penalty and `finetune_steps` after the
cut; those that need no training before the cut spend both on fine-tuning.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.marian.batches import Batch, collate, in_order
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus, Pairs, tokenise
from tprune.marian.count import count
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.objective import dev_loss
from tprune.marian.recipe import Recipe
from tprune.marian.train import Regulariser, train
from tprune.pruning.allocate import allocate, plan_at
from tprune.pruning.criteria import CRITERIA, Evidence, LineScores
from tprune.pruning.penalty import FORMULAS, Decoupled
from tprune.pruning.plan import Plan
from tprune.pruning.pressure import DEAD, Pressure, dead_share
from tprune.pruning.settings import Settings
from tprune.pruning.sites import sites
from tprune.pruning.surgery import cut, mask
from tprune.pruning.verify import require, verify

CALIBRATION = 8  # batches of training data that Taylor's scores are averaged over

Watch = Callable[[str, int, int, float], None]  # (phase, steps done, steps in all, task loss)


@dataclass(frozen=True)
class Pruned:
    """The small model, the plan that made it, the big model the plan was applied to, and the facts for its stamp."""

    model: PrunedMarianMTModel
    plan: Plan
    before_cut: PrunedMarianMTModel
    facts: dict[str, Any]


def prune(
    checkpoint: Checkpoint,
    corpus: Corpus,
    settings: Settings,
    *,
    dev: Corpus | None = None,
    strengths: Mapping[str, float] | None = None,
    teacher: Checkpoint | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> Pruned:
    """Prune `checkpoint` with `corpus` as training data; the checkpoint itself is left as it was.

    `strengths` are the per-site factors of BSSL (`Sensitivity.strengths`). Distillation is from `teacher`, or with
    `Settings.distill` from the checkpoint itself. With `run_dir` a killed run continues where
    it was. Raises BadInput for settings that cannot be and WorkFailed when training diverges.
    """
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
    return Pruned(small.eval(), plan, big.eval(), facts)


def score(model: PrunedMarianMTModel, pairs: Pairs, settings: Settings) -> LineScores:
    """Return the score of every line by the settings' criterion, on the weights as they are."""
    calibration: list[Batch] = []
    if settings.criterion == "taylor":
        step = max(len(pairs) // (CALIBRATION * 64), 1)
        some = Pairs(pairs.source[::step], pairs.target[::step])
        calibration = batches(some, model)[:: max(len(batches(some, model)) // CALIBRATION, 1)]
    return CRITERIA[settings.criterion](model, Evidence(calibration, settings.seed))


def _plan(model: PrunedMarianMTModel, scores: LineScores, settings: Settings) -> Plan:
    """Return the plan: the best lines within the budget, or without one the lines that are not dead."""
    facts = asdict(settings)
    if settings.keep is None:
        return plan_at(model, sites(model), scores, DEAD, settings.round_to, facts)
    return allocate(model, scores, keep=settings.keep, round_to=settings.round_to, facts=facts)


def batches(pairs: Pairs, model: PrunedMarianMTModel, *, tokens: int = 4096) -> list[Batch]:
    """Return all pairs once, as padded batches of about `tokens` tokens, shortest first."""
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
    """Train under the penalty, in place; return the lines' scores after it and the facts of it."""
    press = Decoupled(model, FORMULAS[settings.criterion], strengths)
    follow, start = None, settings.strength
    if start is None:
        assert settings.keep is not None  # Settings sees to it
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
    """Return what the small model's stamp says; a model that was pruned before stays under its first criterion."""
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
