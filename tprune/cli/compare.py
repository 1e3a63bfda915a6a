"""The verb `compare`: other runtimes and exported artefacts on the same sentences."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tprune.base.errors import WorkFailed
from tprune.bench.measure.settings import Settings
from tprune.cli import terminal
from tprune.cli.options import Beams, Blocks, Dry, Json, Source, Target, Threads, Warmup
from tprune.verbs.inputs import Text


def compare(
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub id of a Marian checkpoint, stock or pruned.", metavar="MODEL")
    ] = None,
    artefacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Exported artefacts; without any, MODEL as ONNX fp32 and int8.", metavar="[ARTEFACT...]"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Parallel text, as for the other verbs.", metavar="DATA")] = None,
    rivals: Annotated[
        str | None, typer.Option(help="Of hf, ctranslate2; without the flag those that are installed.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="No MODEL and no DATA: random weights of this size (opus-mt), for speed alone.")
    ] = None,
    length: Annotated[int, typer.Option(help="Of --size: tokens of every source and every translation.", min=2)] = 20,
    source: Source = "en",
    target: Target = "de",
    split: str = "test",
    beams: Beams = 1,
    blocks: Blocks = Settings.blocks,
    warmup: Warmup = Settings.warmup,
    limit: Annotated[
        int | None, typer.Option(help="Sentences: the first 200, or of --size 20.", min=1, show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="compare.json; raw samples, Markdown and CSV beside it.")] = Path(
        "compare.json"
    ),
    threads: Threads = 1,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure HuggingFace transformers, CTranslate2 and our artefacts side by side: same sentences, batch 1.

    Token ids in and token ids out for everybody, each system in processes of its own, blocks interleaved. BLEU is of
    what was measured, its p-value against transformers.
    """
    from tprune.bench.compare import table
    from tprune.verbs import compare as verb

    settings = Settings(threads=threads, blocks=blocks, warmup=warmup, beams=beams, split=split, limit=limit)
    text = None if data is None else Text(data, source, target, split)
    with terminal.bar() as show:
        made = verb.compare(
            model, artefacts or [], text, out, settings,
            rivals=rivals, size=size, length=length, dry_run=dry_run, watch=show,
        )  # fmt: skip
    if made.document is None:
        answer = {"dry_run": True, "systems": made.systems, **asdict(made.settings)}
        names = ", ".join(made.systems)
        line = f"would compare {names}: {made.settings.limit} sentences, {blocks} blocks, {threads} threads"
        return terminal.answer(answer, as_json=json, lines=[line])
    lines = [f"{name}: {line}" for name, line in made.document["measured"].items()]
    others = [str(out.with_suffix(suffix)) for suffix in (".md", ".csv", ".jsonl")]
    lines.append(f"wrote {out}, {others[0]}, {others[1]} and raw samples in {others[2]}")
    terminal.answer(made.document, as_json=json, table=table.terminal(made.rows), lines=lines)
    if made.failed:
        raise WorkFailed(made.failed)
