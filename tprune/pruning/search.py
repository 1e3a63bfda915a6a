"""Find the smallest budget whose quality loss stays within a limit: bisection over `keep`, one full run per step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tprune.base.errors import WorkFailed
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus
from tprune.marian.quality import score
from tprune.marian.translate import translate
from tprune.pruning.prune import Pruned, Watch
from tprune.pruning.settings import Settings, check_limit

LOW, HIGH = 0.05, 1.0  # bounds of `keep`
TRIES = 5  # bisection steps: they locate `keep` to 3 % of the prunable weights


@dataclass(frozen=True)
class Trial:
    """One run of the search: its budget and the relative BLEU loss (per cent) on the development set."""

    keep: float
    bleu_loss_percent: float


def prune_within(
    run: Callable[..., Pruned],
    settings: Settings,
    *,
    dense: Checkpoint,
    dev: Corpus,
    limit: float | None,
    run_dir: Path,
    watch: Watch,
) -> tuple[Pruned, list[Trial]]:
    """Prune once by `settings`, or with a `limit` (per cent of BLEU on `dev`) search the smallest `keep` within it.

    `run` is `pruning.prune` with everything bound except settings, `run_dir` and `watch`. Every budget has its own
    folder in `run_dir`, so that a killed search resumes. Raises like `prune` and `smallest`.
    """

    def at(keep: float | None) -> Pruned:
        named = watch if limit is None else lambda phase, *rest: watch(f"{phase} {keep}", *rest)
        return run(settings=replace(settings, keep=keep), run_dir=run_dir / f"keep-{keep}", watch=named)

    if limit is None:
        return at(settings.keep), []
    return smallest(at, bleu_loss(dense, dev), limit=limit)


def smallest(
    run: Callable[[float], Pruned],
    loss: Callable[[Pruned], float],
    *,
    limit: float,
    tries: int = TRIES,
) -> tuple[Pruned, list[Trial]]:
    """Return the smallest result whose loss is within `limit` per cent, and all trials.

    `run(keep)` prunes to a share of the weights; `loss(result)` is its relative BLEU loss in per cent. Raises BadInput
    for an illegal limit, WorkFailed when no trial stays within it.
    """
    check_limit(limit)
    low, high = LOW, HIGH
    best: Pruned | None = None
    trials: list[Trial] = []
    for _ in range(tries):
        keep = round((low + high) / 2, 4)
        result = run(keep)
        trial = Trial(keep, round(loss(result), 3))
        trials.append(trial)
        if trial.bleu_loss_percent <= limit:
            best, high = result, keep
        else:
            low = keep
    if best is None:
        nearest = min(trial.bleu_loss_percent for trial in trials)
        raise WorkFailed(
            f"no budget up to keep {trials[-1].keep} loses at most {limit:g} % BLEU (least loss: {nearest:g} %); "
            "allow more, or train longer with --steps and --finetune-steps"
        )
    return best, trials


def bleu_loss(dense: Checkpoint, dev: Corpus) -> Callable[[Pruned], float]:
    """Return a function that gives the relative greedy BLEU loss (per cent) of a pruned model on `dev`."""
    before = score(translate(dense.model, dense.tokenizer, dev.source).text, dev.target, language=dev.language).bleu

    def loss(result: Pruned) -> float:
        text = translate(result.model, dense.tokenizer, dev.source).text
        after = score(text, dev.target, language=dev.language).bleu
        return 100 * (before - after) / max(before, 1e-9)

    return loss
