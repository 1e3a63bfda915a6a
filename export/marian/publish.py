"""Publish an exported translation model: add tokenizer and manifest, check it, and only then give it its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import new_folder
from tprune.export import targets
from tprune.export.graphs.ports import Borders, Port
from tprune.export.graphs.precision import FP32, Precision
from tprune.export.manifest import (
    Delegation,
    Limits,
    Manifest,
    ModelFacts,
    ParityResult,
    Scoring,
    Special,
    Tensors,
    TensorSpec,
    artefact_id,
    describe_files,
)
from tprune.export.marian import parity
from tprune.marian.count import count
from tprune.marian.vocabulary import kept_ids

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.model import PrunedMarianMTModel


Judge = Callable[[Path, Manifest], Manifest]
"""judge(folder, manifest): decide on a finished artefact before it is published.

Return the manifest to publish, or raise an exception: then nothing is left behind.
"""


def ungated(folder: Path, manifest: Manifest) -> Manifest:
    """Accept an artefact whatever its quality: the `Judge` for int8 exports that are measured for speed alone."""
    return manifest


@dataclass(frozen=True)
class Programs:
    """The files that an export wrote, their runtime, and graph name -> its inputs and outputs."""

    runtime: str
    files: tuple[str, ...]
    ports: Mapping[str, Borders]
    precision: Precision = FP32
    delegation: Delegation | None = None

    def tensors(self) -> dict[str, Tensors]:
        """Return graph name -> its inputs and outputs in the form of a manifest."""
        return {name: Tensors(*map(_specs, borders)) for name, borders in self.ports.items()}


def publish(
    checkpoint: Checkpoint,
    out: str | Path,
    write: Callable[[Path], Programs],
    *,
    sentences: Sequence[str],
    threads: int = 1,
    judge: Judge | None = None,
) -> Manifest:
    """Let `write` put its programs into a folder, add tokenizer and manifest, and rename the folder to `out`.

    `sentences` are real source sentences for the parity check, which an fp32 artefact must pass. An int8 artefact needs
    a `judge`. Raises BadInput when there are no sentences or `out` is taken, WorkFailed when the check fails; nothing
    is left behind then.
    """
    if not sentences:
        raise BadInput("no sentences for the parity check of an export; give at least one real source sentence")
    with new_folder(out) as folder:
        programs = write(folder)
        checkpoint.tokenizer.save_pretrained(folder)
        manifest = _manifest(checkpoint, folder, programs)
        manifest.write(folder)  # parity opens the folder as a user would
        limit = manifest.limits.source
        sources = [checkpoint.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in sentences]
        found = parity.compare(checkpoint.model, folder, sources, threads=threads)
        if not programs.precision.int8 and not found.passed:
            raise WorkFailed(f"export of {checkpoint.name!r} refused: {found.complaint()}")
        if programs.precision.int8 and judge is None:
            raise BadInput("an int8 artefact needs a judge of its quality, see tprune.export.marian.gate")
        manifest = replace(manifest, parity=found.result)
        manifest = judge(folder, manifest) if judge else manifest
        manifest.write(folder)
    return replace(manifest, folder=Path(out))


def limits_of(model: PrunedMarianMTModel) -> Limits:
    """Return the length limits of a model: its position table, and the maximum length of its generation settings."""
    positions = model.config.max_position_embeddings
    return Limits(source=positions, target=min(positions, model.generation_config.max_length or positions))


def _manifest(checkpoint: Checkpoint, folder: Path, programs: Programs) -> Manifest:
    """Describe the programs in `folder`; the parity result is not filled in yet."""
    model, facts = checkpoint.model, checkpoint.facts
    size, kept = count(model), kept_ids(model)
    files = describe_files(folder, programs.files)
    return Manifest(
        id=artefact_id(files),
        runtime=programs.runtime,
        precision=programs.precision.name,
        int8=programs.precision.components,
        files=files,
        tensors=programs.tensors(),
        special=_special(checkpoint),
        limits=limits_of(model),
        model=ModelFacts(
            id=checkpoint.id,
            name=checkpoint.name,
            criterion=facts.get("criterion", "dense"),
            seed=facts.get("seed"),
            keep=facts.get("keep", 1.0),
            params=size.params,
            macs=size.macs,
        ),
        parity=ParityResult(0, 0, 0.0),
        output_ids=tuple(kept) if len(kept) < model.config.decoder_vocab_size else None,
        delegation=programs.delegation,
        scoring=_scoring(checkpoint),
        target_cpu=programs.precision.target_cpu if programs.runtime == "onnxruntime" else targets.ALL,
    )


def _special(checkpoint: Checkpoint) -> Special:
    """Return special ids as HF `generate` resolves them: generation configuration first, then the model's."""
    config, generation = checkpoint.model.config, checkpoint.model.generation_config
    found: dict[str, Any] = {}
    for name in ("decoder_start_token_id", "eos_token_id", "forced_eos_token_id"):
        value = getattr(generation, name, None)
        value = getattr(config, name, None) if value is None else value
        found[name] = value[0] if isinstance(value, list) else value
    return Special(
        start=found["decoder_start_token_id"],
        eos=found["eos_token_id"],
        pad=config.pad_token_id,
        unk=checkpoint.tokenizer.unk_token_id,
        forced_eos=found["forced_eos_token_id"],
    )


def _scoring(checkpoint: Checkpoint) -> Scoring:
    generation = checkpoint.model.generation_config
    set_ = {name: getattr(generation, name, None) for name in ("length_penalty", "early_stopping")}
    return Scoring(**{name: value for name, value in set_.items() if value is not None})


def _specs(borders: Sequence[Port]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(port.name, port.dtype, port.shape) for port in borders)
