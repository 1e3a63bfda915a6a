"""The verbs on checkpoints: analyse, prune, verify, expand. Each parses, calls the library and shows the result."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.base import stamp
from tprune.base.threads import use_threads
from tprune.cli import terminal
from tprune.cli.options import Data, DevSplit, Dry, Json, Limit, Model, Out, Seed, Source, Target, Threads
from tprune.pruning.criteria import listed

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus


def analyse(
    model: Model,
    data: Data,
    out: Out,
    source: Source = "en",
    target: Target = "de",
    split: str = "train",
    dev_split: DevSplit = "val",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of one run.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer strengths and steps: a first look.")] = False,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Find out which blocks tolerate pruning (BSSL): sensitivity.json, a heat map and a table."""
    from tprune.pruning import bssl
    from tprune.pruning.settings import AnalysisSettings

    use_threads(threads)
    changes: dict[str, Any] = {"seed": seed} | ({"steps": steps} if steps else {})
    settings = AnalysisSettings.quick(**changes) if quick else AnalysisSettings(**changes)
    checkpoint, corpus, dev = _inputs(model, data, source, target, split, dev_split, limit)
    if dry_run:
        return terminal.answer({"dry_run": True, "settings": asdict(settings)}, as_json=json, lines=[str(settings)])
    with terminal.bar() as show:
        found = bssl.analyse(
            checkpoint,
            corpus,
            settings,
            dev=dev,
            out=out,
            watch=lambda what, done, n, loss: show("analyse", done, n, f"{what}, loss {loss:.2f}"),
        )
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
        float | None, typer.Option(help="Fixed strength of the penalty; the lines that die go.")
    ] = None,
    max_bleu_drop: Annotated[
        float | None, typer.Option(help="Largest BLEU loss in per cent of the dense model's; searches the budget.")
    ] = None,
    criterion: Annotated[str, typer.Option(help=f"{listed()}.")] = "shs",
    steps: Annotated[int, typer.Option(help="Optimiser steps under the penalty.")] = 200,
    finetune_steps: Annotated[int, typer.Option(help="Optimiser steps after the cut.")] = 400,
    tokens: Annotated[int, typer.Option(help="Padded tokens a step, per process.", min=1)] = 2048,
    round_to: Annotated[int, typer.Option(help="Widths are multiples of this.")] = 8,
    distill: Annotated[bool, typer.Option("--distill", help="Learn from the dense model's outputs too.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Learn from this model's outputs.", metavar="MODEL")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate under the penalty.")] = 5e-4,
    finetune_lr: Annotated[float, typer.Option(help="Peak learning rate after the cut.")] = 5e-4,
    sensitivity: Annotated[Path | None, typer.Option(help="sensitivity.json of `tprune analyse`.")] = None,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Prune a checkpoint: train under a penalty, cut, fine-tune, write the smaller checkpoint.

    One of --keep (default 0.5), --strength and --max-bleu-drop sets the budget. A killed run continues when the same
    command is given again.
    """
    from tprune.marian.checkpoint import load, save
    from tprune.pruning import prune as pruning
    from tprune.pruning.search import prune_within
    from tprune.pruning.settings import Settings, check_limit

    use_threads(threads)
    terminal.only_one({"--keep": keep, "--strength": strength, "--max-bleu-drop": max_bleu_drop})
    settings = Settings(
        keep=keep if keep is not None or strength is not None else 0.5,
        criterion=criterion,
        steps=steps,
        finetune_steps=finetune_steps,
        lr=lr,
        finetune_lr=finetune_lr,
        strength=strength,
        round_to=round_to,
        tokens=tokens,
        seed=seed,
        distill=distill,
    )
    if max_bleu_drop is not None:
        check_limit(max_bleu_drop)
    stamp.check_vacant(out)
    checkpoint, corpus, dev = _inputs(model, data, source, target, split, dev_split, limit)
    strengths = _strengths(sensitivity)
    if dry_run:
        return terminal.answer({"dry_run": True, "settings": asdict(settings)}, as_json=json, lines=[str(settings)])
    run_dir = out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        run = partial(
            pruning.prune, checkpoint, corpus, dev=dev, strengths=strengths, teacher=load(teacher) if teacher else None
        )
        result, trials = prune_within(
            run, settings, dense=checkpoint, dev=dev, limit=max_bleu_drop, run_dir=run_dir,
            watch=lambda what, done, n, loss: show(what, done, n, f"loss {loss:.3f}"),
        )  # fmt: skip
    facts = {**result.facts, "trials": [asdict(trial) for trial in trials]} if trials else result.facts
    plan = result.plan.to_json()
    made = save(
        result.model, checkpoint.tokenizer, out, facts=facts, plan=plan, inputs={checkpoint.name: checkpoint.id}
    )
    shutil.rmtree(run_dir, ignore_errors=True)
    terminal.answer({"out": str(out), "id": made.id, **facts}, as_json=json, lines=_pruned_lines(out, facts))


def verify(
    pruned: Model,
    against: Annotated[str | None, typer.Option(help="A masked or stock checkpoint that must give the same.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Prove that a pruned model computes what the big masked one does; count parameters, MACs and bytes."""
    from tprune.marian.checkpoint import load
    from tprune.marian.count import count
    from tprune.pruning.verify import is_pruned, require
    from tprune.pruning.verify import verify as compare

    checkpoint = load(pruned)
    verdict = compare(checkpoint.model, load(against).model if against else None, seed=seed)
    require(verdict, pruned)
    size = count(checkpoint.model)
    pruned_at_all = is_pruned(checkpoint.model)
    facts = {"model": checkpoint.name, "id": checkpoint.id, **asdict(verdict), **asdict(size), "macs": size.macs}
    facts["pruned"] = pruned_at_all
    if Path(pruned).is_dir():
        facts["bytes"] = sum(file.stat().st_size for file in Path(pruned).glob("*.safetensors"))
    lines = [
        f"{checkpoint.name}: cut == masked, logits within {verdict.max_abs_logit_diff:.1e}, "
        f"{verdict.identical} of {verdict.sentences} greedy translations identical",
        f"{size.params:,} parameters, {size.macs / 1e6:.1f} M MACs a sentence of 16 tokens"
        + (f", {facts['bytes'] / 1e6:.1f} MB" if "bytes" in facts else ""),
    ]
    if not pruned_at_all:
        lines.append("nothing is pruned in it: every matrix has its stock size, so there was nothing to prove")
    terminal.answer(facts, as_json=json, lines=lines)


def expand(pruned: Model, out: Out, json: Json = False) -> None:
    """Write a pruned model as a stock, zero-filled Marian that any HuggingFace tool can score."""
    from tprune.marian.checkpoint import load
    from tprune.pruning.surgery import expand as widen

    stamp.check_vacant(out)
    checkpoint = load(pruned)
    with stamp.new_folder(out) as folder:
        widen(checkpoint.model).save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
    terminal.answer(
        {"out": str(out)}, as_json=json, lines=[f"wrote {out}: a stock Marian with the outputs of {pruned}"]
    )


def _inputs(
    model: str, data: str, source: str, target: str, split: str, dev_split: str, limit: int | None
) -> tuple[Checkpoint, Corpus, Corpus]:
    """Load what training verbs need: checkpoint, training corpus, development corpus."""
    from tprune.marian import corpus as texts
    from tprune.marian.checkpoint import load

    sides: Any = {"source": source, "target": target}
    train, dev = texts.load(data, split=split, limit=limit, **sides), texts.load(data, split=dev_split, **sides)
    return load(model), train, dev


def _strengths(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    from tprune.pruning.sensitivity import Sensitivity

    return Sensitivity.read(path).strengths()


def _pruned_lines(out: Path, facts: dict[str, Any]) -> list[str]:
    return [
        f"wrote {out}: {facts['kept']:.1%} of the prunable weights kept, parameters {facts['dense_params']:,} -> "
        f"{facts['params']:,}, MACs {facts['macs'] / facts['dense_macs']:.1%}",
        f"development loss {facts['dev_loss']:.3f} nats a token; next: tprune verify {out}",
    ]
