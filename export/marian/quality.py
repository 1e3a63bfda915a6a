"""Quality of an exported artefact, from the token ids that it produces on this machine or on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import MarianTokenizer

from tprune.export.manifest import Manifest
from tprune.export.marian.open import engine_errors, open_translator
from tprune.marian.corpus import Corpus
from tprune.marian.quality import Baseline, System, evaluate_ids, read_quality
from tprune.marian.translate import encode

TOGETHER = 32  # sentences in a batch; more is not faster


def evaluate(
    folder: Path,
    corpus: Corpus,
    *,
    beams: int = 1,
    baseline: Baseline | None = None,
    threads: int = 1,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Translate `corpus` with the artefact in `folder` and return the quality document.

    `batch_size` None is the fastest that gives the tokens of batch size 1. Sources longer than the artefact's limit are
    cut before their `</s>` and counted in `truncated`. Raises BadInput for a damaged artefact or a `baseline` of other
    sentences.
    """
    if baseline is not None:
        read_quality(baseline, corpus)  # report a wrong one before translating
    ids, truncated = translate(
        folder, corpus.source, beams=beams, threads=threads, batch_size=batch_size, progress=progress
    )
    manifest = Manifest.read(folder)
    tokenizer = MarianTokenizer.from_pretrained(str(folder))
    system = System(asdict(manifest.model), manifest.id, manifest.runtime, manifest.precision)
    document = evaluate_ids(ids, tokenizer, corpus, system=system, beams=beams, baseline=baseline)
    return {**document, "truncated": truncated}


def translate(
    folder: Path,
    sentences: Sequence[str],
    *,
    beams: int = 1,
    threads: int = 1,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[tuple[int, ...]], int]:
    """Translate sentences with the artefact in `folder`; return target ids and how many sources had to be cut."""
    with engine_errors(folder):
        artefact = open_translator(folder, threads)
    manifest = artefact.manifest
    sources, truncated = encode(MarianTokenizer.from_pretrained(str(folder)), sentences, limit=manifest.limits.source)
    if batch_size is None:  # ExecuTorch's graphs have batch size 1; int8 activations share one scale per batch
        batch_size = TOGETHER if (manifest.runtime, manifest.precision) == ("onnxruntime", "fp32") else 1
    with engine_errors(folder):
        return list(artefact.translate(sources, beams=beams, batch_size=batch_size, progress=progress)), truncated


def of_output(
    folder: Path,
    ids: Sequence[Sequence[int]],
    corpus: Corpus,
    *,
    device: Mapping[str, Any],
    beams: int = 1,
    baseline: Baseline | None = None,
    whole: Corpus | None = None,
) -> dict[str, Any]:
    """Return the quality document of target ids that `device` produced with the artefact in `folder`.

    `corpus` may be the first sentences of `whole`, and `baseline` may cover more of them. Raises BadInput if the
    baseline covers other sentences.
    """
    manifest = Manifest.read(folder)
    tokenizer = MarianTokenizer.from_pretrained(str(folder))
    system = System(asdict(manifest.model), manifest.id, manifest.runtime, manifest.precision)
    document = evaluate_ids(ids, tokenizer, corpus, system=system, beams=beams, baseline=baseline, whole=whole)
    return {**document, "truncated": 0, "device": dict(device)}  # a benchmark refuses sentences that are too long
