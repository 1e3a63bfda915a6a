"""The `tprune` command: each verb parses, calls the library, and shows the result. No work is done here.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong; both failures are one line on stderr.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune import stamp, terminal
from tprune.options import Data, DevSplit, Dry, Json, Limit, Model, Out, Seed, Source, Target, Threads

if TYPE_CHECKING:
    from tprune.checkpoint import Checkpoint
    from tprune.corpus import Corpus

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

app = typer.Typer(
    help="Prune Marian translation models, export them, and measure what it costs and gains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
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
    from tprune import bssl

    _threads(threads)
    changes: dict[str, Any] = {"seed": seed} | ({"steps": steps} if steps else {})
    settings = bssl.Settings.quick(**changes) if quick else bssl.Settings(**changes)
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


@app.command()
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
    criterion: Annotated[str, typer.Option(help="shs, group-lasso, magnitude, taylor or random.")] = "shs",
    steps: Annotated[int, typer.Option(help="Optimiser steps under the penalty.")] = 200,
    finetune_steps: Annotated[int, typer.Option(help="Optimiser steps after the cut.")] = 400,
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
    from tprune import pruning
    from tprune.checkpoint import load, save
    from tprune.search import check_limit, prune_within

    _threads(threads)
    terminal.only_one({"--keep": keep, "--strength": strength, "--max-bleu-drop": max_bleu_drop})
    settings = pruning.Settings(
        keep=keep if keep is not None or strength is not None else 0.5,
        criterion=criterion,
        steps=steps,
        finetune_steps=finetune_steps,
        lr=lr,
        finetune_lr=finetune_lr,
        strength=strength,
        round_to=round_to,
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


@app.command()
def verify(
    pruned: Model,
    against: Annotated[str | None, typer.Option(help="A masked or stock checkpoint that must give the same.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Prove that a pruned model computes what the big masked one does; count parameters, MACs and bytes."""
    from tprune.checkpoint import load
    from tprune.count import count
    from tprune.verify import require
    from tprune.verify import verify as compare

    checkpoint = load(pruned)
    verdict = compare(checkpoint.model, load(against).model if against else None, seed=seed)
    require(verdict, pruned)
    size = count(checkpoint.model)
    facts = {"model": checkpoint.name, "id": checkpoint.id, **asdict(verdict), **asdict(size), "macs": size.macs}
    if Path(pruned).is_dir():
        facts["bytes"] = sum(file.stat().st_size for file in Path(pruned).glob("*.safetensors"))
    lines = [
        f"{checkpoint.name}: cut == masked, logits within {verdict.max_abs_logit_diff:.1e}, "
        f"{verdict.identical} of {verdict.sentences} greedy translations identical",
        f"{size.params:,} parameters, {size.macs / 1e6:.1f} M MACs a sentence of 16 tokens"
        + (f", {facts['bytes'] / 1e6:.1f} MB" if "bytes" in facts else ""),
    ]
    terminal.answer(facts, as_json=json, lines=lines)


@app.command()
def expand(pruned: Model, out: Out, json: Json = False) -> None:
    """Write a pruned model as a stock, zero-filled Marian that any HuggingFace tool can score."""
    from tprune.checkpoint import load
    from tprune.surgery import expand as widen

    stamp.check_vacant(out)
    checkpoint = load(pruned)
    with stamp.new_folder(out) as folder:
        widen(checkpoint.model).save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
    terminal.answer(
        {"out": str(out)}, as_json=json, lines=[f"wrote {out}: a stock Marian with the outputs of {pruned}"]
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint, or an exported artefact.", metavar="MODEL|ARTEFACT")],
    data: Data,
    source: Source = "en",
    target: Target = "de",
    split: str = "test",
    beams: Annotated[int, typer.Option(help="1 is greedy.", min=1)] = 1,
    baseline: Annotated[Path | None, typer.Option(help="quality.json of the model to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="quality.json to write.")] = None,
    limit: Limit = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Translate a test set; BLEU and chrF with their signatures, and the p-value against a baseline."""
    from tprune import corpus as texts
    from tprune.evaluate import evaluate as measure

    _threads(threads)
    corpus = texts.load(data, split=split, source=source, target=target, limit=limit)
    with terminal.bar() as show:
        options: Any = {
            "beams": beams, "baseline": baseline, "progress": lambda done, n: show("translate", done, n, "")
        }  # fmt: skip
        if (Path(model) / "manifest.json").is_file():
            from export.quality import evaluate as of_artefact

            quality = of_artefact(Path(model), corpus, threads=threads, **options)
        else:
            from tprune.checkpoint import load

            quality = measure(load(model), corpus, **options)
    if out:
        stamp.write_json(out, quality)
    lines = [
        f"BLEU {quality['bleu']:.2f}  {quality['signature']}",
        f"chrF {quality['chrf']:.2f}  {quality['chrf_signature']}",
    ]
    if truncated := quality["truncated"]:
        lines.append(
            f"{truncated} of {quality['sentences']} sentences were longer than the model takes and were truncated"
        )
    if versus := quality["baseline"]:
        lines.append(f"baseline {versus['name']}: BLEU {versus['bleu']:.2f}, p = {versus['p_value']:.4f}")
    terminal.answer(quality, as_json=json, lines=lines)


@app.command()
def export(
    model: Model,
    out: Out,
    data: Data,
    to: Annotated[str, typer.Option(help="Runtime: onnx.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32.")] = "fp32",
    source: Source = "en",
    target: Target = "de",
    split: str = "val",
    limit: Annotated[int, typer.Option(help="Sentences of the parity check.", min=1)] = 50,
    trim_vocabulary: Annotated[
        str | None, typer.Option(help="Leave out the tokens that the target side of this split never uses.")
    ] = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a checkpoint; the artefact appears only if it translates token for token like PyTorch."""
    from export.to_onnx import to_onnx
    from tprune import corpus as texts
    from tprune.checkpoint import load
    from tprune.vocabulary import trim

    terminal.one_of("--to", to, ("onnx",))
    terminal.one_of("--precision", precision, ("fp32",))
    stamp.check_vacant(out)
    sides: Any = {"source": source, "target": target}
    sentences = texts.load(data, split=split, limit=limit, **sides).source
    checkpoint = load(model)
    if trim_vocabulary:
        words = texts.load(data, split=trim_vocabulary, **sides)
        limit_ids = checkpoint.model.config.max_position_embeddings
        checkpoint = trim(checkpoint, texts.tokenise(words, checkpoint.tokenizer, limit_ids).target)
    manifest = to_onnx(checkpoint, out, sentences=sentences, threads=threads)
    size = sum(entry.bytes for entry in manifest.files.values())
    parity = manifest.parity
    lines = [
        f"wrote {out}: {size / 1e6:.1f} MB, {parity.identical} of {parity.sentences} sentences token for token as in "
        f"PyTorch, logits within {parity.max_abs_logit_diff:.1e}"
    ]
    terminal.answer({"out": str(out), "id": manifest.id, "bytes": size, **asdict(parity)}, as_json=json, lines=lines)


@app.command()
def bench(
    artefacts: Annotated[
        list[Path], typer.Argument(help="Exported artefacts, the dense one among them.", metavar="ARTEFACT...")
    ],
    data: Data,
    on: Annotated[str, typer.Option(help="Where to measure: host.")] = "host",
    out: Annotated[Path, typer.Option(help="records.jsonl to write or to continue.")] = Path("records.jsonl"),
    source: Source = "en",
    target: Target = "de",
    split: str = "test",
    blocks: Annotated[int, typer.Option(help="Passes over all sentences, artefacts interleaved.", min=1)] = 5,
    warmup: Annotated[int, typer.Option(help="Sentences thrown away before each pass.", min=0)] = 10,
    limit: Annotated[int | None, typer.Option(help="Use only the first N sentences.", min=1)] = 200,
    threads: Threads = 1,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure artefacts side by side: batch 1, greedy, real sentences, interleaved blocks, raw samples kept."""
    from bench import host, tokens
    from tprune import corpus as texts

    terminal.one_of("--on", on, ("host",))
    settings = host.Settings(threads=threads, blocks=blocks, warmup=warmup, split=split, limit=limit)
    corpus = texts.load(data, split=split, source=source, target=target, limit=limit)
    encode = tokens.read(artefacts[0]).encode
    sentences = [encode(sentence) for sentence in corpus.source]
    if dry_run:
        plan = {
            "dry_run": True,
            "artefacts": [str(a) for a in artefacts],
            "sentences": len(sentences),
            **asdict(settings),
        }
        return terminal.answer(plan, as_json=json, lines=[str(plan)])
    with terminal.bar() as show:
        records = host.run(
            artefacts,
            sentences,
            out=out,
            settings=settings,
            progress=lambda done, n, what: show("bench", done, n, what),
        )
    terminal.answer(
        {"out": str(out), "records": len(records)},
        as_json=json,
        lines=[f"wrote {len(records)} records to {out}; next: tprune report {out} QUALITY.json... --out report"],
    )


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Files and folders: quality.json, records.jsonl, artefacts.", metavar="RUN...")
    ],
    out: Out,
    split: Annotated[str | None, typer.Option(help="The split to report, where the runs hold several.")] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the rows alone to this file.")] = None,
    json: Json = False,
) -> None:
    """Join quality and records into report.html, .md, .csv, .json and the Pareto figure."""
    from bench import report as reports
    from bench import results as rows
    from bench import table

    document = reports.report(runs, out, split=split)
    if results:
        rows.write(results, document["rows"], inputs=document["inputs"])
    lines = [*document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=table.terminal(document["rows"]), lines=lines)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("demo"),
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Do the whole journey on embedded data: train, analyse, prune, verify, export, bench, report."""
    from tprune import demo as ingredients

    _threads(threads)
    stamp.check_vacant(out)
    with terminal.bar() as show:
        made = ingredients.build(out, seed=seed, watch=lambda done, n, loss: show("train", done, n, f"loss {loss:.2f}"))
    for call in ingredients.journey(out, made, threads=threads):
        terminal.talk.print("$ tprune " + " ".join(call), style="bold", highlight=False, soft_wrap=True)
        terminal.call(app, call)


def _threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _inputs(
    model: str, data: str, source: str, target: str, split: str, dev_split: str, limit: int | None
) -> tuple[Checkpoint, Corpus, Corpus]:
    """Load what training verbs need: checkpoint, training corpus, development corpus."""
    from tprune import corpus as texts
    from tprune.checkpoint import load

    sides: Any = {"source": source, "target": target}
    train, dev = texts.load(data, split=split, limit=limit, **sides), texts.load(data, split=dev_split, **sides)
    return load(model), train, dev


def _strengths(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    from tprune.sensitivity import Sensitivity

    return Sensitivity.read(path).strengths()


def _pruned_lines(out: Path, facts: dict[str, Any]) -> list[str]:
    return [
        f"wrote {out}: {facts['kept']:.1%} of the prunable weights kept, parameters {facts['dense_params']:,} -> "
        f"{facts['params']:,}, MACs {facts['macs'] / facts['dense_macs']:.1%}",
        f"development loss {facts['dev_loss']:.3f} nats a token; next: tprune verify {out}",
    ]


def main() -> None:
    """Run the command line: the console command `tprune`."""
    terminal.run(app)


if __name__ == "__main__":
    main()
