"""The verbs on checkpoints: analyse, prune, verify, expand, translate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tprune.base.errors import only_one
from tprune.cli import terminal
from tprune.cli.options import (
    Beams,
    Data,
    DevSplit,
    Dry,
    Json,
    Limit,
    Model,
    Out,
    Seed,
    Source,
    Target,
    Threads,
    values,
)
from tprune.pruning.criteria import CRITERIA, listed
from tprune.pruning.settings import AnalysisSettings, Settings
from tprune.verbs.inputs import Text

DEFAULT = Settings()


def analyse(
    model: Model,
    data: Data,
    out: Out,
    source: Source = "en",
    target: Target = "de",
    split: str = "train",
    dev_split: DevSplit = "val",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of one run.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer strengths and steps, for a first look.")] = False,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Find which blocks tolerate pruning (BSSL, block-wise structured sparsity learning).

    Writes sensitivity.json and a heat map, and prints a table.
    """
    from tprune.verbs import analyse as verb

    changes: dict[str, Any] = {"seed": seed} | ({"steps": steps} if steps else {})
    settings = AnalysisSettings.quick(**changes) if quick else AnalysisSettings(**changes)
    text = Text(data, source, target, split, limit)
    with terminal.bar() as show:
        found = verb.analyse(
            model, text, out, settings, dev_split=dev_split, threads=threads, dry_run=dry_run, watch=show
        )
    if found is None:
        strengths = ", ".join(f"{one:g}" for one in settings.strengths)
        line = (
            f"would analyse {model} on split {split} of {data}: runs of {settings.steps} steps for each block type at "
            f"strengths {strengths}, and write {out}"
        )
        return terminal.answer({"dry_run": True, "settings": asdict(settings)}, as_json=json, lines=[line])
    terminal.answer({"out": str(out), **found.to_json()}, as_json=json, table=found.table(), lines=found.agreement())


def prune(
    model: Model,
    data: Data,
    out: Out,
    source: Source = "en",
    target: Target = "de",
    split: str = "train",
    dev_split: DevSplit = "val",
    keep: Annotated[float | None, typer.Option(help="Share of the prunable weights to keep, in (0, 1].")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Fixed strength of the penalty; lines driven to zero are removed.")
    ] = None,
    max_bleu_drop: Annotated[
        float | None, typer.Option(help="Largest BLEU loss in per cent of the dense model's; searches the budget.")
    ] = None,
    criterion: Annotated[str, typer.Option(help=f"{listed()}.", autocompletion=values(*CRITERIA))] = DEFAULT.criterion,
    steps: Annotated[int, typer.Option(help="Optimiser steps under the penalty.")] = DEFAULT.steps,
    finetune_steps: Annotated[int, typer.Option(help="Optimiser steps after the cut.")] = DEFAULT.finetune_steps,
    tokens: Annotated[int, typer.Option(help="Padded tokens per step and process.", min=1)] = DEFAULT.tokens,
    round_to: Annotated[int, typer.Option(help="Widths are multiples of this.")] = DEFAULT.round_to,
    distill: Annotated[bool, typer.Option("--distill", help="Also learn from the dense model's outputs.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Learn from this model's outputs.", metavar="MODEL")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate under the penalty.")] = DEFAULT.lr,
    finetune_lr: Annotated[float, typer.Option(help="Peak learning rate after the cut.")] = DEFAULT.finetune_lr,
    sensitivity: Annotated[Path | None, typer.Option(help="sensitivity.json of `tprune analyse`.")] = None,
    limit: Limit = None,
    seed: Seed = DEFAULT.seed,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Prune a checkpoint: train under a penalty, cut, fine-tune, write the smaller checkpoint.

    One of --keep (default 0.5), --strength and --max-bleu-drop sets the budget. A killed run resumes when the same
    command is given again.
    """
    from tprune.verbs import prune as verb

    only_one({"--keep": keep, "--strength": strength, "--max-bleu-drop": max_bleu_drop})
    settings = Settings(
        keep=DEFAULT.keep if keep is None and strength is None else keep,
        criterion=criterion, steps=steps, finetune_steps=finetune_steps, lr=lr, finetune_lr=finetune_lr,
        strength=strength, round_to=round_to, tokens=tokens, seed=seed, distill=distill,
    )  # fmt: skip
    text = Text(data, source, target, split, limit)
    with terminal.bar() as show:
        made = verb.prune(
            model, text, out, settings, dev_split=dev_split, max_bleu_drop=max_bleu_drop, sensitivity=sensitivity,
            teacher=teacher, threads=threads, dry_run=dry_run, watch=show,
        )  # fmt: skip
    if made is None:
        line = f"would prune {model} with split {split} of {data}: {_plan(settings, max_bleu_drop)}, and write {out}"
        return terminal.answer({"dry_run": True, "settings": asdict(settings)}, as_json=json, lines=[line])
    facts = made.facts
    lines = [
        f"wrote {out}: {facts['kept']:.1%} of the prunable weights kept, parameters {facts['dense_params']:,} -> "
        f"{facts['params']:,}, MACs {facts['macs'] / facts['dense_macs']:.1%}",
        f"development loss {facts['dev_loss']:.3f} nats per token; next: tprune verify {out}",
    ]
    terminal.answer({"out": str(out), "id": made.id, **facts}, as_json=json, lines=lines)


def _plan(settings: Settings, max_bleu_drop: float | None) -> str:
    budget = f"keep {settings.keep or 0:.0%} of the prunable weights"
    if max_bleu_drop is not None:
        budget = f"keep as few weights as {max_bleu_drop:g} % BLEU loss allows"
    elif settings.strength is not None:
        budget = f"remove what a penalty of strength {settings.strength:g} drives to zero"
    trained = f"{settings.steps} steps under the penalty" if settings.penalised else f"{settings.steps} more steps"
    return f"{budget} by {settings.criterion}, {trained}, {settings.finetune_steps} steps of fine-tuning"


def verify(
    pruned: Model,
    against: Annotated[str | None, typer.Option(help="Masked or stock checkpoint that must compute the same.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Prove that a pruned model computes what the masked one does; count parameters, MACs and bytes."""
    from tprune.verbs import verify as verb

    proof = verb.verify(pruned, against=against, seed=seed)
    verdict, size = proof.verdict, proof.size
    facts = {"model": proof.name, "id": proof.id, **asdict(verdict), **asdict(size), "macs": size.macs}
    facts |= {"pruned": proof.pruned} | ({} if proof.bytes is None else {"bytes": proof.bytes})
    lines = [
        f"{proof.name}: cut == masked, logits within {verdict.max_abs_logit_diff:.1e}, "
        f"{verdict.identical} of {verdict.sentences} greedy translations identical",
        f"{size.params:,} parameters, {size.macs / 1e6:.1f} M MACs for a sentence of 16 tokens"
        + ("" if proof.bytes is None else f", {proof.bytes / 1e6:.1f} MB"),
    ]
    if not proof.pruned:
        lines.append("nothing is pruned in it: every matrix has its stock size, so there was nothing to prove")
    terminal.answer(facts, as_json=json, lines=lines)


def expand(pruned: Model, out: Out, json: Json = False) -> None:
    """Write a pruned model as a stock, zero-filled Marian that any HuggingFace tool can run."""
    from tprune.verbs import expand as verb

    verb.expand(pruned, out)
    line = f"wrote {out}: a stock Marian with the outputs of {pruned}"
    terminal.answer({"out": str(out)}, as_json=json, lines=[line])


def translate(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="New corpus folder: SPLIT.SOURCE and SPLIT.TARGET.")],
    source: Source = "en",
    target: Target = "de",
    split: Annotated[str, typer.Option(help="Split whose source side to translate.")] = "train",
    keep: Annotated[str, typer.Option(help="Splits to copy unchanged, separated by commas.")] = "val",
    beams: Beams = 4,
    limit: Limit = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Write a corpus whose target side is the model's own translation, as training data for `tprune prune`."""
    from tprune.verbs import translate as verb

    kept = [name.strip() for name in keep.split(",") if name.strip()]
    text = Text(data, source, target, split, limit)
    with terminal.bar() as show:
        made = verb.translate(model, text, out, keep=kept, beams=beams, threads=threads, watch=show)
    taken = f", {', '.join(kept)} unchanged" if kept else ""
    dropped = f", {made.empty} left out because their translation is empty" if made.empty else ""
    line = f"wrote {out}: {made.sentences} sentences of {split} as {made.name} translates them{dropped}{taken}"
    facts = {"beams": beams, "split": split, "truncated": made.truncated, "empty": made.empty}
    terminal.answer({"out": str(out), "sentences": made.sentences, **facts}, as_json=json, lines=[line])
