"""Write a model's own translations as a corpus, for sequence-level distillation (Kim and Rush, EMNLP 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.marian import folder
from tprune.verbs.inputs import Text, Watch, open_model, silent


@dataclass(frozen=True)
class Translated:
    """What was written: `sentences` by the model `name`; sentences with an `empty` translation were left out.

    Sources longer than the model's limit were `truncated`.
    """

    name: str
    sentences: int
    truncated: int
    empty: int


def translate(
    model: str,
    text: Text,
    out: Path,
    *,
    keep: Sequence[str] = (),
    beams: int = 4,
    threads: int = 2,
    watch: Watch = silent,
) -> Translated:
    """Write to the folder `out` the split of `text` with the model's translations, and the splits `keep` unchanged."""
    if text.split in keep:
        raise BadInput(f"--keep {','.join(keep)}: {text.split!r} is the split that is translated; name others, or none")
    stamp.check_vacant(out)
    folder.check(model)
    read, others = text.load(), {name: text.whole(name) for name in keep}
    checkpoint = open_model(model, threads=threads)
    from tprune.marian.translate import translate as decode

    made = decode(
        checkpoint.model,
        checkpoint.tokenizer,
        read.source,
        beams=beams,
        progress=lambda done, total: watch("translate", done, total, ""),
    )
    pairs = [(source, target) for source, target in zip(read.source, made.text, strict=True) if target.strip()]
    splits = {name: list(zip(other.source, other.target, strict=True)) for name, other in others.items()}
    result = Translated(checkpoint.name, len(pairs), made.truncated, len(read) - len(pairs))
    with stamp.new_folder(out) as place:
        for name, rows in {text.split: pairs, **splits}.items():
            for column, side in enumerate((text.source, text.target)):
                _write(place / f"{name}.{side}", [row[column] for row in rows])
        facts = {"beams": beams, "split": text.split, "truncated": result.truncated, "empty": result.empty}
        header = stamp.stamp("corpus", {checkpoint.name: checkpoint.id, text.split: read.id})
        stamp.write_json(place / "stamp.json", {**header, "facts": facts})
    return result


def _write(path: Path, lines: Sequence[str]) -> None:
    # one line per sentence, even if a translation contains a line break
    path.write_text("".join(" ".join(line.split()) + "\n" for line in lines), encoding="utf-8")
