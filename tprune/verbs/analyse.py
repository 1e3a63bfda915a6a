"""Analyse which blocks of a model tolerate pruning (BSSL)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base import stamp
from tprune.marian import folder
from tprune.pruning.settings import JOURNAL, AnalysisSettings
from tprune.verbs.inputs import Text, Watch, open_model, silent, with_loss

if TYPE_CHECKING:
    from tprune.pruning.sensitivity import Sensitivity


def analyse(
    model: str,
    text: Text,
    out: Path,
    settings: AnalysisSettings,
    *,
    dev_split: str = "val",
    threads: int = 2,
    dry_run: bool = False,
    watch: Watch = silent,
) -> Sensitivity | None:
    """Analyse `model`, write sensitivity.json and a heat map to `out`; a dry run checks the call and returns None."""
    if not (out / JOURNAL).is_file():
        stamp.check_vacant(out)
    folder.check(model)
    train, dev = text.load(), text.whole(dev_split)
    if dry_run:
        return None
    checkpoint = open_model(model, threads=threads)
    from tprune.pruning import bssl

    return bssl.analyse(checkpoint, train, settings, dev=dev, out=out, watch=with_loss(watch, "analyse"))
