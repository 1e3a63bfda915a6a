"""The verb translate: a model's own translations as a corpus, for example to teach a pruned model (sequence-level
distillation: Kim and Rush, EMNLP 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.base.threads import use_threads
from tprune.cli import terminal
from tprune.cli.options import Data, Json, Limit, Model, Source, Target, Threads

if TYPE_CHECKING:
    from collections.abc import Sequence


def translate(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="New corpus folder: SPLIT.SOURCE and SPLIT.TARGET.")],
    source: Source = "en",
    target: Target = "de",
    split: Annotated[str, typer.Option(help="The split whose source side to translate.")] = "train",
    keep: Annotated[str, typer.Option(help="Splits to take over as they are, separated by commas.")] = "val",
    beams: Annotated[int, typer.Option(help="1 is greedy.", min=1)] = 4,
    limit: Limit = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Write a corpus whose target side is the model's own translation, for `tprune prune --data` to learn from."""
    from tprune.marian import corpus as texts
    from tprune.marian.checkpoint import load
    from tprune.marian.translate import translate as decode

    kept = [name.strip() for name in keep.split(",") if name.strip()]
    if split in kept:
        raise BadInput(f"--keep {keep}: {split!r} is the split that is translated; name others, or none")
    use_threads(threads)
    stamp.check_vacant(out)
    read = texts.load(data, split=split, source=source, target=target, limit=limit)
    others = {name: texts.load(data, split=name, source=source, target=target) for name in kept}
    checkpoint = load(model)
    with terminal.bar() as show:
        made = decode(
            checkpoint.model,
            checkpoint.tokenizer,
            read.source,
            beams=beams,
            progress=lambda done, n: show("translate", done, n, ""),
        )
    pairs = [(said, text) for said, text in zip(read.source, made.text, strict=True) if text.strip()]
    splits = {name: list(zip(other.source, other.target, strict=True)) for name, other in others.items()}
    with stamp.new_folder(out) as folder:
        for name, rows in {split: pairs, **splits}.items():
            for column, side in enumerate((source, target)):
                _write(folder / f"{name}.{side}", [row[column] for row in rows])
        inputs = {checkpoint.name: checkpoint.id, split: read.id}
        facts = {"beams": beams, "split": split, "truncated": made.truncated, "empty": len(read) - len(pairs)}
        stamp.write_json(folder / "stamp.json", {**stamp.stamp("corpus", inputs), "facts": facts})
    taken = f", {', '.join(others)} as they are" if others else ""
    dropped = f", {facts['empty']} left out because their translation is empty" if facts["empty"] else ""
    line = f"wrote {out}: {len(pairs)} sentences of {split} as {checkpoint.name} translates them{dropped}{taken}"
    terminal.answer({"out": str(out), "sentences": len(pairs), **facts}, as_json=json, lines=[line])


def _write(path: Path, lines: Sequence[str]) -> None:
    # one line a sentence, whatever a translation contains
    path.write_text("".join(" ".join(line.split()) + "\n" for line in lines), encoding="utf-8")
