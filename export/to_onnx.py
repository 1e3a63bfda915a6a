"""Checkpoint -> ONNX artefact: `to_onnx(checkpoint, "out", sentences=[...])`.

Standard operators of opset 23 only (`Attention` keeps the cache in the graph), so any runtime that knows the opset may
open the files. The folder appears under its name after `parity` agreed with PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import ops

from export import parity
from export.manifest import (
    GRAPHS,
    Limits,
    Manifest,
    ModelFacts,
    ParityResult,
    Special,
    Tensors,
    TensorSpec,
    artefact_id,
    describe_files,
)
from export.marian_graphs import EncoderGraph, Port, StepGraph, ports
from tprune.count import count
from tprune.errors import BadInput, WorkFailed
from tprune.stamp import new_folder
from tprune.vocabulary import kept_ids

if TYPE_CHECKING:
    from tprune.checkpoint import Checkpoint
    from tprune.marian import PrunedMarianMTModel

OPSET = 23
EXAMPLE = {"batch": 2, "source": 5, "past": 3, "present": 4}  # >= 2 and all different: torch.export fixes sizes 0 and 1


def to_onnx(checkpoint: Checkpoint, out: str | Path, *, sentences: Sequence[str], threads: int = 1) -> Manifest:
    """Write `checkpoint` as an ONNX artefact folder and return its manifest.

    `sentences` are real source sentences for the parity check. Raises BadInput when there are none or `out` is taken,
    WorkFailed when the artefact does not translate like PyTorch; nothing is left behind then.
    """
    if not sentences:
        raise BadInput("to_onnx: no sentences for the parity check; give at least one real source sentence")
    model = checkpoint.model.eval()
    with new_folder(out) as folder:
        for name, graph in {
            "encoder": EncoderGraph(model, onnx_attend),
            "decoder_step": StepGraph(model, onnx_attend),
        }.items():
            write_graph(graph, ports(model)[name], folder / GRAPHS[name])
        checkpoint.tokenizer.save_pretrained(folder)
        manifest = _manifest(checkpoint, folder)
        manifest.write(folder)  # parity opens the folder as a user would
        limit = manifest.limits.source
        sources = [checkpoint.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in sentences]
        found = parity.compare(model, folder, sources, threads=threads)
        if not found.passed:
            raise WorkFailed(f"export of {checkpoint.name!r} refused: {found.complaint()}")
        manifest = replace(manifest, parity=found.result)
        manifest.write(folder)
    return manifest


def write_graph(graph: nn.Module, borders: tuple[Sequence[Port], Sequence[Port]], path: Path) -> None:
    """Export one graph module to `path`; `borders` are its inputs and outputs in call order."""
    inputs, outputs = borders
    example = tuple(_example(port) for port in inputs)
    shapes = tuple(
        {i: torch.export.Dim.DYNAMIC for i, size in enumerate(p.shape) if isinstance(size, str)} for p in inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in inputs],
            output_names=[port.name for port in outputs],
            dynamic_shapes=(*shapes[:2], *([shapes[2:]] if len(shapes) > 2 else [])),  # both graphs take two and *rest
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise WorkFailed("torch.onnx.export returned no program; the installed torch is not the pinned one")
    onnx.save(program.model_proto, path)


def onnx_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: int,
    mask: Tensor | None = None,
    past: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Stand for ONNX's `Attention` in a traced graph (same contract as `plain_attention`; computes nothing itself).

    One operator holds the growing of the cache, the scores, the softmax and the sum. Without `past` the keys and
    values come back as they are.
    """
    attributes: dict[str, Any] = {"scale": 1.0}
    if q.dim() == 3:
        attributes |= {"q_num_heads": heads, "kv_num_heads": heads}
    inputs: list[Tensor | None] = [q, k, v, mask, *(past or ())]
    shape = (*q.shape[:-1], v.shape[-1])
    if past is None:
        return ops.symbolic("Attention", inputs, attributes, dtype=q.dtype, shape=shape, version=OPSET), k, v
    grown = [(*old.shape[:2], old.shape[2] + 1, old.shape[3]) for old in past]
    output, keys, values = ops.symbolic_multi_out(
        "Attention", inputs, attributes, dtypes=[q.dtype] * 3, shapes=[shape, *grown], version=OPSET
    )
    return output, keys, values


def _manifest(checkpoint: Checkpoint, folder: Path) -> Manifest:
    """Describe the graphs in `folder`; the parity result is still empty."""
    model, facts = checkpoint.model, checkpoint.facts
    size, kept = count(model), kept_ids(model)
    files = describe_files(folder, tuple(GRAPHS.values()))
    return Manifest(
        id=artefact_id(files),
        runtime="onnxruntime",
        precision="fp32",
        files=files,
        tensors={name: Tensors(*map(_specs, borders)) for name, borders in ports(model).items()},
        special=_special(checkpoint),
        limits=_limits(model),
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
    )


def _special(checkpoint: Checkpoint) -> Special:
    """Token ids as HF `generate` would take them: the generation configuration first, then the model's."""
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


def _limits(model: PrunedMarianMTModel) -> Limits:
    positions = model.config.max_position_embeddings
    return Limits(source=positions, target=min(positions, model.generation_config.max_length or positions))


def _specs(borders: Sequence[Port]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(port.name, port.dtype, port.shape) for port in borders)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that are not needed here (torchvision) and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _example(port: Port) -> Tensor:
    shape = [EXAMPLE[size] if isinstance(size, str) else size for size in port.shape]
    return torch.zeros(shape) if port.dtype == "float32" else torch.ones(shape, dtype=torch.int64)
