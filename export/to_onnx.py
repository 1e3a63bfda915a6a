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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import ops

from export.artefact import Programs, publish
from export.manifest import GRAPHS, Manifest
from export.marian_graphs import EncoderGraph, Port, StepGraph, ports
from tprune.errors import WorkFailed

if TYPE_CHECKING:
    from tprune.checkpoint import Checkpoint

OPSET = 23
EXAMPLE = {"batch": 2, "source": 5, "past": 3, "present": 4}  # >= 2 and all different: torch.export fixes sizes 0 and 1


def to_onnx(checkpoint: Checkpoint, out: str | Path, *, sentences: Sequence[str], threads: int = 1) -> Manifest:
    """Write `checkpoint` as an ONNX artefact folder and return its manifest; see `artefact.publish` for what it raises.

    `sentences` are real source sentences for the parity check.
    """
    model = checkpoint.model.eval()

    def write(folder: Path) -> Programs:
        graphs = {"encoder": EncoderGraph(model, onnx_attend), "decoder_step": StepGraph(model, onnx_attend)}
        borders = ports(model)
        for name, graph in graphs.items():
            write_graph(graph, borders[name], folder / GRAPHS[name])
        return Programs("onnxruntime", tuple(GRAPHS.values()), borders)

    return publish(checkpoint, out, write, sentences=sentences, threads=threads)


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
