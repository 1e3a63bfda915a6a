"""Checkpoint or image network -> ONNX artefact: `to_onnx(checkpoint, "out", sentences=[...])`, `network_to_onnx`.

Operators of opset 23 and, of ONNX Runtime's own (`com.microsoft`), the one that extends a cache in place and those of
int8.
The folder appears under its name after `parity` agreed with PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import ops

from tprune.base.errors import WorkFailed
from tprune.export import targets
from tprune.export.graphs import images as cnn_graphs
from tprune.export.graphs.marian import EncoderGraph, StepGraph, ports
from tprune.export.graphs.ports import Borders, Port
from tprune.export.graphs.precision import FP32, Precision
from tprune.export.graphs.sub_blocks import FloatProduct, FloatTable, Kernels
from tprune.export.images import int8 as image_int8
from tprune.export.images import publish as image_artefact
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import FILES, GRAPH, ImageManifest
from tprune.export.manifest import GRAPHS, SHARED, Manifest
from tprune.export.marian.publish import Programs, publish
from tprune.export.ort import saturation
from tprune.export.ort.int8 import BlockTable, RowProduct, RowsProduct
from tprune.export.ort.shared_weights import share
from tprune.export.quiet import quiet

if TYPE_CHECKING:
    from tprune.base.pixels import Pixels
    from tprune.cnn.network import Network
    from tprune.marian.checkpoint import Checkpoint

OPSET = 23
EXAMPLE = {"batch": 2, "source": 5, "cache": 7}  # >= 2 and all different: torch.export fixes sizes 0 and 1


def to_onnx(
    checkpoint: Checkpoint, out: str | Path, *, sentences: Sequence[str], threads: int = 1, precision: Precision = FP32
) -> Manifest:
    """Write `checkpoint` as an ONNX artefact folder and return its manifest; see `artefact.publish` for what it raises.

    `sentences` are real source sentences for the parity check.
    """
    model = checkpoint.model.eval()

    rows = functools.partial(RowsProduct, exact=targets.named(precision.target_cpu).exact)

    def write(folder: Path) -> Programs:
        graphs = {
            "encoder": EncoderGraph(model, _kernels(precision, "encoder", rows)),
            "decoder_step": StepGraph(model, _kernels(precision, "decoder", RowProduct)),
        }
        borders = ports(model)
        protos = {name: trace(graph, borders[name]) for name, graph in graphs.items()}
        _check_sums(protos.values(), precision.target_cpu)
        shares = share(protos["encoder"], protos["decoder_step"], folder / SHARED)
        for name, proto in protos.items():
            onnx.save(proto, folder / GRAPHS[name])
        files = (*GRAPHS.values(), *([SHARED] if shares else []))
        return Programs("onnxruntime", files, borders, precision)

    return publish(checkpoint, out, write, sentences=sentences, threads=threads)


def network_to_onnx(
    network: Network,
    out: str | Path,
    *,
    name: str = "",
    images: Pixels | None = None,
    threads: int = 1,
    int8: Int8 | None = None,
) -> ImageManifest:
    """Write an image network as an ONNX artefact folder; see `image_artefact.publish` for the arguments and errors."""

    def write(folder: Path) -> Programs:
        borders, file = cnn_graphs.ports(network), folder / FILES["onnxruntime"]
        onnx.save(trace(cnn_graphs.ClassifierGraph(network), borders), file)
        if int8:
            image_int8.onnx_model(file, file, int8)
            _check_sums([onnx.load(file)], int8.target_cpu)
        return Programs("onnxruntime", (file.name,), {GRAPH: borders})

    return image_artefact.publish(network, out, write, name=name, images=images, threads=threads, int8=int8)


def _check_sums(protos: Iterable[onnx.ModelProto], target_cpu: str) -> None:
    """Raise WorkFailed where some processor of the target would not sum exactly."""
    for proto in protos if not targets.named(target_cpu).exact else ():
        saturation.check(proto)


def _kernels(precision: Precision, side: str, product: Callable[..., nn.Module]) -> Kernels:
    """What the graph of a side, encoder or decoder, is made of; `product` is the int8 one for its number of tokens."""
    int8 = precision.int8
    return Kernels(
        attend=onnx_attend,
        recall=onnx_recall,
        product=product if side in int8 else FloatProduct,
        table=BlockTable if "embedding" in int8 else FloatTable,
        output=BlockTable if "output" in int8 else FloatTable,
        deep=side in int8,
    )


def trace(graph: nn.Module, borders: Borders) -> onnx.ModelProto:
    """Return one graph module as an ONNX model; `borders` are its inputs and outputs in call order."""
    inputs, outputs = borders
    example = tuple(_example(port) for port in inputs)
    shapes = tuple(
        {i: torch.export.Dim.DYNAMIC for i, size in enumerate(p.shape) if isinstance(size, str)} for p in inputs
    )
    with quiet(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():  # it prints, too
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
    return _bare(program.model_proto)


def onnx_attend(q: Tensor, k: Tensor, v: Tensor, *, heads: int, mask: Tensor | None = None) -> Tensor:
    """Stand for ONNX's `Attention` in a traced graph (same contract as `plain_attention`; computes nothing itself)."""
    attributes: dict[str, Any] = {"scale": 1.0}
    if q.dim() == 3:
        attributes |= {"q_num_heads": heads, "kv_num_heads": heads}
    shape = (*q.shape[:-1], v.shape[-1])
    return ops.symbolic("Attention", [q, k, v, mask], attributes, dtype=q.dtype, shape=shape, version=OPSET)


def onnx_recall(
    joint: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Stand for `GroupQueryAttention` in a traced graph (same contract as `plain_recall`; computes nothing itself).

    One operator splits the product, puts keys and values in their place and attends; it takes two thirds of the time of
    `Split` and `Attention`, which copy the cache.
    """
    place = position.to(torch.int32)
    output, keys, values = ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        [joint, None, None, keys, values, place.expand(joint.shape[0]), place + 1],
        {"num_heads": heads, "kv_num_heads": heads, "scale": 1.0},
        dtypes=[joint.dtype] * 3,
        shapes=[(*joint.shape[:-1], joint.shape[-1] // 3), keys.shape, values.shape],
        version=1,
    )
    return output, keys, values


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take the exporter's notes off (where in the Python code a node comes from): 100 kB a graph."""
    del proto.graph.value_info[:]
    for noted in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del noted.metadata_props[:]
    return proto


def _example(port: Port) -> Tensor:
    shape = [EXAMPLE[size] if isinstance(size, str) else size for size in port.shape]
    return torch.zeros(shape) if port.dtype == "float32" else torch.ones(shape, dtype=torch.int64)
