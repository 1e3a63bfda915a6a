"""Write a pruned model as a stock Marian."""

from __future__ import annotations

from pathlib import Path

from tprune.base import stamp
from tprune.marian import folder
from tprune.verbs.inputs import open_model


def expand(model: str, out: Path) -> None:
    """Write `model` to the folder `out` as a stock Marian, with zeros in place of what was removed."""
    stamp.check_vacant(out)
    folder.check(model)
    checkpoint = open_model(model)
    from tprune.pruning.surgery import expand as widen

    with stamp.new_folder(out) as place:
        widen(checkpoint.model).save_pretrained(place)
        checkpoint.tokenizer.save_pretrained(place)
