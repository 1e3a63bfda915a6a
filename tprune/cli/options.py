"""The arguments and flags that several verbs share, declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tprune.base.threads import use_threads as use_threads
from tprune.export import runtimes


def values(*legal: str) -> Callable[[str], list[str]]:
    """Return a function that completes a word to one of the legal values."""
    return lambda incomplete: [one for one in legal if one.startswith(incomplete)]


Model = Annotated[
    str, typer.Argument(help="Folder or hub id of a Marian checkpoint, stock or pruned.", metavar="MODEL")
]
Data = Annotated[str, typer.Option(help="Parallel text: folder, file, hub id or sacrebleu:SET/PAIR.", metavar="DATA")]
Out = Annotated[Path, typer.Option(help="New folder for the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Check the call and print what would be done.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1, max=4096)]
Limit = Annotated[int | None, typer.Option(help="Use only the first N sentences.", min=1)]
Source = Annotated[str, typer.Option(help="Source language or column.")]
Target = Annotated[str, typer.Option(help="Target language or column.")]
ImageData = Annotated[str, typer.Option(help="Images: folder of parquet files or hub id.", metavar="DATA")]
NetworkDir = Annotated[Path, typer.Argument(help="Folder that `cnn train` or `cnn compress` wrote.", metavar="NETWORK")]
Batch = Annotated[int, typer.Option(help="Images a step.")]
To = Annotated[
    str,
    typer.Option(help=f"Runtime: {' or '.join(runtimes.flags())}.", autocompletion=values(*runtimes.flags())),
]
PrecisionName = Annotated[str, typer.Option(help="fp32 or int8.", autocompletion=values("fp32", "int8"))]
TargetCpu = Annotated[
    str | None,
    typer.Option(
        help="Of int8 for onnx: all (default), or processors with exact 8-bit sums only: vnni (x86) or arm. "
        "Weights then have the full 8 bits; sums would saturate on x86 without VNNI.",
        show_default=False,
    ),
]
Blocks = Annotated[int, typer.Option(help="Passes over all sentences or images, artefacts interleaved.", min=1)]
Warmup = Annotated[int, typer.Option(help="Sentences or images discarded before each pass.", min=0)]
Beams = Annotated[int, typer.Option(help="1 is greedy.", min=1)]
DevSplit = Annotated[str, typer.Option(help="Split that all choices are made on.")]
