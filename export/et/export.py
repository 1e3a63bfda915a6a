"""Export a checkpoint or an image network to an ExecuTorch artefact: `to_executorch(checkpoint, "out", dev=corpus)`.

One file, `model.pte`, has the methods `encoder` and `decoder_step` (image networks: `forward`). Operators are lowered
to XNNPACK where possible; the manifest gives their share. The folder gets its name only after a parity check against
PyTorch.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tprune.base.errors import WorkFailed
from tprune.export.et import pte
from tprune.export.et.graphs import EncoderMethod, StepMethod, method_ports
from tprune.export.et.runtime import check_installed
from tprune.export.graphs import images as cnn_graphs
from tprune.export.graphs.ports import Borders, Port
from tprune.export.graphs.precision import MAX_BLEU_DROP, PARITY, Precision, named
from tprune.export.images import classifier as image_runtime
from tprune.export.images import publish as image_artefact
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import FILES, GRAPH, ImageManifest
from tprune.export.manifest import PROGRAM, Delegation, Manifest
from tprune.export.marian.gate import Watch, gated
from tprune.export.marian.publish import Judge, Programs, limits_of, publish
from tprune.export.quiet import quiet

if TYPE_CHECKING:
    from tprune.base.pixels import Pixels
    from tprune.cnn.network import Network
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus

EXAMPLE = {"source": 5, "past": 3}  # >= 2 and different: torch.export fixes sizes that are 0, 1 or equal by chance


def to_executorch(
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
    """Write `checkpoint` as an ExecuTorch artefact folder and return its manifest.

    The arguments are those of `to_onnx`, and so is the quality gate of int8. Raises BadInput if ExecuTorch is not
    installed.
    """
    check_installed()
    precision, sentences = named(precision), sentences or (dev.source[:PARITY] if dev else ())
    if precision.int8 and judge is None:
        options: Any = {"sentences": sentences, "threads": threads, "precision": precision, "watch": watch}
        return gated(to_executorch, checkpoint, out, dev=dev, max_bleu_drop=max_bleu_drop, **options)
    model = checkpoint.model.eval()

    def write(folder: Path) -> Programs:
        limits = limits_of(model)
        borders = method_ports(model, limits)
        with quiet():
            methods: dict[str, nn.Module] = {
                "encoder": EncoderMethod(model, precision),
                "decoder_step": StepMethod(model, limits, precision),
            }
        sizes = {"source": limits.source, "past": limits.target}
        delegation = write_program(methods, borders, sizes, folder / PROGRAM)
        return Programs("executorch", (PROGRAM,), borders, precision=precision, delegation=delegation)

    return publish(checkpoint, out, write, sentences=sentences, threads=threads, judge=judge)


def network_to_executorch(
    network: Network,
    out: str | Path,
    *,
    name: str = "",
    images: Pixels | None = None,
    threads: int = 1,
    int8: Int8 | None = None,
) -> ImageManifest:
    """Write an image network as an ExecuTorch artefact; `export.images.publish` describes arguments and errors.

    Raises BadInput if ExecuTorch is not installed.
    """
    check_installed()

    def write(folder: Path) -> Programs:
        borders = {GRAPH: cnn_graphs.ports(network)}
        graph: nn.Module = cnn_graphs.ClassifierGraph(network)
        try:
            if int8:
                graph = _in_int8(graph, borders[GRAPH][0], int8.calibration)
            delegation = write_program({GRAPH: graph}, borders, {}, folder / FILES["executorch"])
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - its passes raise nothing narrower, over what layers a user has
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkFailed(f"ExecuTorch cannot lower it ({why}); try --to onnx") from error
        return Programs("executorch", (FILES["executorch"],), borders, delegation=delegation)

    return image_artefact.publish(network, out, write, name=name, images=images, threads=threads, int8=int8)


def write_program(
    methods: Mapping[str, nn.Module], borders: Mapping[str, Borders], sizes: Mapping[str, int], path: Path
) -> Delegation:
    """Lower modules to one ExecuTorch program at `path` and return how much of them XNNPACK runs.

    `borders` are each module's inputs and outputs in call order, `sizes` the maximum of each dynamic size. The caller
    provides the memory of inputs and outputs, so nothing is copied.
    """
    dynamic = {name: torch.export.Dim(name, min=1, max=most) for name, most in sizes.items()}
    with quiet(), torch.no_grad():
        from executorch import exir
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.utils.configs import get_transform_passes
        from executorch.exir.passes import MemoryPlanningPass

        lowered = exir.to_edge_transform_and_lower(
            {name: _export(module, borders[name][0], dynamic) for name, module in methods.items()},
            partitioner=[XnnpackPartitioner()],
            transform_passes=get_transform_passes(),
            compile_config=exir.EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
        delegation = _delegation([lowered.exported_program(name).graph_module for name in methods])
        planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
        config = exir.ExecutorchBackendConfig(memory_planning_pass=planning, constant_tensor_alignment=pte.ALIGNMENT)
        program = lowered.to_executorch(config)
    path.write_bytes(pte.fold(program.buffer))
    return delegation


def _in_int8(graph: nn.Module, inputs: Sequence[Port], images: image_runtime.Bytes) -> nn.Module:
    """Return the graph with the quantise-dequantise pairs that XNNPACK's 8-bit kernels need, calibrated on `images`."""
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantiser = xnnpack.XNNPACKQuantizer()
        quantiser.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
        watched = prepare_pt2e(_export(graph, inputs, {}).module(), quantiser)
        for row in image_runtime.inputs(images):
            watched(torch.from_numpy(row))
        return convert_pt2e(watched)


def _export(module: nn.Module, inputs: Sequence[Port], dynamic: Mapping[str, Any]) -> torch.export.ExportedProgram:
    sizes = {name: min(EXAMPLE[name], dim.max) for name, dim in dynamic.items()}
    example = tuple(_example(port, sizes) for port in inputs)
    shapes = tuple({i: dynamic[size] for i, size in enumerate(p.shape) if isinstance(size, str)} for p in inputs)
    rest = (shapes[2:],) if len(shapes) > 2 else ()  # a step takes two tensors and *tensors
    return torch.export.export(module, example, dynamic_shapes=(*shapes[:2], *rest), strict=False)


def _example(port: Port, sizes: Mapping[str, int]) -> Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in port.shape]
    return torch.zeros(shape) if port.dtype == "float32" else torch.ones(shape, dtype=torch.int64)


def _delegation(graphs: Iterable[Any]) -> Delegation:
    """Count the operators that XNNPACK runs (quantisation, which is part of a product, not counted) and all others."""
    inside, outside = 0, Counter[str]()
    for graph in graphs:
        for lowered in graph.children():
            names = _operators(lowered.original_module.graph_module)
            inside += sum(not name.startswith("quantized_decomposed") for name in names)
        outside.update(name for name in _operators(graph) if name != "executorch_call_delegate")
    return Delegation(round(inside / (inside + outside.total()), 4), dict(sorted(outside.items())))


def _operators(graph: Any) -> list[str]:
    calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    return [call.__name__.removesuffix(".default") for call in calls if call is not operator.getitem]
