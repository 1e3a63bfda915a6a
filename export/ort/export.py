"""Export a checkpoint or an image network to an ONNX artefact: `to_onnx(checkpoint, "out", dev=corpus)`.

The graphs use operators of opset 23 and, of ONNX Runtime's own (`com.microsoft`), the one that extends a cache in place
and those of int8. The folder gets its name only after a parity check against PyTorch.
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
from tprune.export.graphs.precision import MAX_BLEU_DROP, PARITY, Precision, named
from tprune.export.graphs.sub_blocks import FloatProduct, FloatTable, Kernels
from tprune.export.images import int8 as image_int8
from tprune.export.images import publish as image_artefact
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import FILES, GRAPH, ImageManifest
from tprune.export.manifest import GRAPHS, SHARED, Manifest
from tprune.export.marian.gate import Watch, gated
from tprune.export.marian.publish import Judge, Programs, publish
from tprune.export.ort import saturation
from tprune.export.ort.int8 import BlockTable, RowProduct, RowsProduct
from tprune.export.ort.shared_weights import share
from tprune.export.quiet import quiet

if TYPE_CHECKING:
    from tprune.base.pixels import Pixels
    from tprune.cnn.network import Network
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus

OPSET = 23
EXAMPLE = {"batch": 2, "source": 5, "cache": 7}  # >= 2 and all different: torch.export fixes sizes 0 and 1


def to_onnx(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    sentences: Sequence[str] = (),
    threads: int = 1,
    precision: str | Precision = "fp32",
    dev: Corpus | None = None,
    max_bleu_drop: float = MAX_BLEU_DROP,
    judge: Judge | None = None,
    watch: Watch | None = None,
) -> Manifest:
    """Write `checkpoint` as an ONNX artefact folder and return its manifest.

    `sentences` (default: the first 50 of `dev`) are source sentences for the parity check with PyTorch. `precision` is
    "fp32", "int8" or a `Precision`. An int8 export passes the quality gate: components stay fp32 where BLEU on `dev`
    would fall by more than `max_bleu_drop` per cent. `judge` replaces the gate. Raises BadInput for a wrong call,
    WorkFailed when the artefact does not translate like PyTorch or the gate accepts no int8 component.
    """
    precision, sentences = named(precision), sentences or (dev.source[:PARITY] if dev else ())
    if precision.int8 and judge is None:
        options: Any = {"sentences": sentences, "threads": threads, "precision": precision, "watch": watch}
        return gated(to_onnx, checkpoint, out, dev=dev, max_bleu_drop=max_bleu_drop, **options)
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

    return publish(checkpoint, out, write, sentences=sentences, threads=threads, judge=judge)


def network_to_onnx(
    network: Network,
    out: str | Path,
    *,
    name: str = "",
    images: Pixels | None = None,
    threads: int = 1,
    int8: Int8 | None = None,
) -> ImageManifest:
    """Write an image network as an ONNX artefact folder; `export.images.publish` describes arguments and errors."""

    def write(folder: Path) -> Programs:
        borders, file = cnn_graphs.ports(network), folder / FILES["onnxruntime"]
        onnx.save(trace(cnn_graphs.ClassifierGraph(network), borders), file)
        if int8:
            image_int8.onnx_model(file, file, int8)
            _check_sums([onnx.load(file)], int8.target_cpu)
        return Programs("onnxruntime", (file.name,), {GRAPH: borders})

    return image_artefact.publish(network, out, write, name=name, images=images, threads=threads, int8=int8)


def _check_sums(protos: Iterable[onnx.ModelProto], target_cpu: str) -> None:
    """Raise WorkFailed if a processor of the target would not sum 8-bit products exactly."""
    for proto in protos if not targets.named(target_cpu).exact else ():
        saturation.check(proto)


def _kernels(precision: Precision, side: str, product: Callable[..., nn.Module]) -> Kernels:
    """Return the kernels of the encoder's or decoder's graph; `product` is the int8 one for its number of tokens."""
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
    with quiet(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():  # the exporter also prints
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
    """Trace as ONNX's `Attention` (same contract as `plain_attention`; computes nothing itself)."""
    attributes: dict[str, Any] = {"scale": 1.0}
    if q.dim() == 3:
        attributes |= {"q_num_heads": heads, "kv_num_heads": heads}
    shape = (*q.shape[:-1], v.shape[-1])
    return ops.symbolic("Attention", [q, k, v, mask], attributes, dtype=q.dtype, shape=shape, version=OPSET)


def onnx_recall(
    joint: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Trace as `GroupQueryAttention` (same contract as `plain_recall`; computes nothing itself).

    This one operator splits the product, extends the cache and attends. It takes two thirds of the time of `Split` and
    `Attention`, which copy the cache.
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
    """Remove the exporter's metadata (Python source locations of nodes), 100 kB per graph."""
    del proto.graph.value_info[:]
    for noted in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del noted.metadata_props[:]
    return proto


def _example(port: Port) -> Tensor:
    shape = [EXAMPLE[size] if isinstance(size, str) else size for size in port.shape]
    return torch.zeros(shape) if port.dtype == "float32" else torch.ones(shape, dtype=torch.int64)
