"""Functions of the Python interface that join several packages: `analyse` and `evaluate`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tprune.base.fields import chosen
from tprune.export.manifest import FILE
from tprune.marian import quality as of_checkpoint
from tprune.marian.checkpoint import Checkpoint, opened
from tprune.marian.corpus import Corpus, check
from tprune.marian.quality import Quality
from tprune.pruning import bssl
from tprune.pruning.sensitivity import Sensitivity
from tprune.pruning.settings import AnalysisSettings


def analyse(
    checkpoint: Checkpoint | str | os.PathLike[str],
    train: Corpus,
    dev: Corpus,
    *,
    quick: bool = False,
    settings: AnalysisSettings | None = None,
    out: str | Path | None = None,
    watch: bssl.Watch | None = None,
    **fields: Any,
) -> Sensitivity:
    """Measure which blocks of a model tolerate pruning (BSSL). `checkpoint` (or its folder or hub id) is not changed.

    `fields` are those of `AnalysisSettings`, such as `steps=40`; `quick` takes fewer strengths and steps. With a folder
    `out`, sensitivity.json and heatmap.png are written to it, and an interrupted analysis resumes from there.
    `watch(run, steps done, total steps, loss)`. Raises BadInput for a wrong call, WorkFailed when training diverges,
    TypeError for an unknown field.
    """
    settings = chosen(AnalysisSettings, settings, fields, make=AnalysisSettings.quick if quick else None)
    check(train=train, dev=dev)
    with tempfile.TemporaryDirectory() as scratch:
        return bssl.analyse(opened(checkpoint), train, settings, dev=dev, out=out or Path(scratch) / "out", watch=watch)


def evaluate(
    model: Checkpoint | str | os.PathLike[str],
    corpus: Corpus,
    *,
    beams: int = 1,
    versus: Quality | str | Path | None = None,
    threads: int = 1,
    batch_size: int | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Quality:
    """Translate a corpus and return BLEU, chrF and, `versus` another model's quality, the p-value of the difference.

    `model` is a checkpoint, its folder or hub id, or an exported artefact; `threads` and `batch_size` apply to
    artefacts. `watch(sentences done, total sentences)`. Raises BadInput for a damaged model and for a `versus` on other
    sentences.
    """
    check(corpus=corpus)
    if not isinstance(model, Checkpoint) and (Path(model) / FILE).is_file():
        from tprune.export.marian import quality as of_artefact

        options: Any = {"threads": threads, "batch_size": batch_size, "progress": watch}
        return Quality(of_artefact.evaluate(Path(model), corpus, beams=beams, baseline=versus, **options))
    return Quality(of_checkpoint.evaluate(opened(model), corpus, beams=beams, baseline=versus, progress=watch))
