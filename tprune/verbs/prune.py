"""Prune a checkpoint into a smaller one."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base import stamp
from tprune.marian import folder
from tprune.pruning.settings import Settings, check_limit
from tprune.verbs.inputs import Text, Watch, open_model, silent, with_loss

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint


def prune(
    model: str,
    text: Text,
    out: Path,
    settings: Settings,
    *,
    dev_split: str = "val",
    max_bleu_drop: float | None = None,
    sensitivity: Path | None = None,
    teacher: str | None = None,
    threads: int = 2,
    dry_run: bool = False,
    watch: Watch = silent,
) -> Checkpoint | None:
    """Prune `model`, write the result to the folder `out` and return it; a dry run checks the call and returns None.

    With `max_bleu_drop` (per cent) the smallest `keep` within it is searched for. A killed run resumes from the folder
    `.OUT.run` when it is called again.
    """
    if max_bleu_drop is not None:
        check_limit(max_bleu_drop)
    stamp.check_vacant(out)
    folder.check(model)
    if teacher:
        folder.check(teacher)
    strengths = _strengths(sensitivity)
    train, dev = text.load(), text.whole(dev_split)
    if dry_run:
        return None
    checkpoint = open_model(model, threads=threads)
    from tprune.pruning.prune import prune as run
    from tprune.pruning.search import prune_within

    taught_by = open_model(teacher) if teacher else None
    run_dir = out.parent / f".{out.name}.run"
    result, trials = prune_within(
        partial(run, checkpoint, train, dev=dev, strengths=strengths, teacher=taught_by),
        settings,
        dense=checkpoint,
        dev=dev,
        limit=max_bleu_drop,
        run_dir=run_dir,
        watch=with_loss(watch),
    )
    if trials:
        result = replace(result, facts={**result.facts, "trials": [asdict(trial) for trial in trials]})
    made = result.save(out)
    shutil.rmtree(run_dir, ignore_errors=True)
    return made


def _strengths(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    from tprune.pruning.sensitivity import Sensitivity

    return Sensitivity.read(path).strengths()
