"""BLEU of an exported artefact, from the token ids that it produces itself, here or on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import MarianTokenizer

from export.manifest import Manifest
from export.translator import open_translator
from tprune.corpus import Corpus
from tprune.evaluate import System, evaluate_ids, read_quality
from tprune.translate import encode


def evaluate(
    folder: Path,
    corpus: Corpus,
    *,
    beams: int = 1,
    baseline: Path | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Translate `corpus` with the artefact in `folder`, one sentence at a time, and return the quality document.

    A source longer than the artefact takes is cut before its `</s>`, and counted in `truncated`. Raises BadInput for a
    damaged artefact or a `baseline` of other sentences.
    """
    if baseline is not None:
        read_quality(baseline, corpus)  # a wrong one is noticed before everything is translated
    artefact = open_translator(folder, threads)
    manifest = artefact.manifest
    tokenizer = MarianTokenizer.from_pretrained(str(folder))
    sources, truncated = encode(tokenizer, corpus.source, limit=manifest.limits.source)
    ids = []
    for done, source in enumerate(sources, 1):
        ids.append(artefact.greedy(source).ids if beams == 1 else artefact.beam(source, beams))
        if progress:
            progress(done, len(sources))
    system = System(asdict(manifest.model), manifest.id, manifest.runtime, manifest.precision)
    document = evaluate_ids(ids, tokenizer, corpus, system=system, beams=beams, baseline=baseline)
    return {**document, "truncated": truncated}


def of_output(
    folder: Path,
    ids: Sequence[Sequence[int]],
    corpus: Corpus,
    *,
    device: Mapping[str, Any],
    beams: int = 1,
    baseline: Path | None = None,
    whole: Corpus | None = None,
) -> dict[str, Any]:
    """Return the quality document of what `device` translated with the artefact in `folder`, one list a sentence.

    A `baseline` may have been made on more sentences of `whole`, of which `corpus` is the beginning. Raises BadInput
    for one of other sentences.
    """
    manifest = Manifest.read(folder)
    tokenizer = MarianTokenizer.from_pretrained(str(folder))
    system = System(asdict(manifest.model), manifest.id, manifest.runtime, manifest.precision)
    document = evaluate_ids(ids, tokenizer, corpus, system=system, beams=beams, baseline=baseline, whole=whole)
    return {**document, "truncated": 0, "device": dict(device)}  # what is too long is not measured at all
