"""An ONNX CNN as a workload: its Conv, Gemm and MatMul nodes with the masks of their stored weights.

Activations are not in the file, so their density is our choice and the workload is marked synthetic. The `onnx`
package is imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.bench.accel.layer import DENSE, Layer, Operand, Shape, Workload
from tprune.bench.accel.networks import decomposition

ACTIVATIONS = 0.5  # density of every layer's input except the first one's; our choice
COEFFICIENTS = 0.25  # density of the ternary coefficients; our choice

# Operators without products with weights, which are not layers of the workload.
FREE = frozenset(
    "Add AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape DequantizeLinear Div Dropout Flatten "
    "Gather GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Identity LRN LeakyRelu MaxPool Mul Pad PRelu "
    "QuantizeLinear ReduceMean ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Split Squeeze Sub Sum Tanh "
    "Transpose Unsqueeze".split()
)


def read(path: Path | str) -> Workload:
    """Return the workload of an ONNX file; BadInput names a node of unsupported type or unknown shape."""
    try:
        import onnx
        from onnx import numpy_helper, shape_inference
    except ImportError:
        raise BadInput("reading an ONNX file needs the package onnx: pip install onnx") from None
    path = Path(path)
    try:
        model = shape_inference.infer_shapes(onnx.load(path))
    except Exception as error:  # noqa: BLE001  # protobuf, onnx and OS errors share no base; all mean: not a model
        raise BadInput(f"{str(path)!r} is not an ONNX model: {' '.join(str(error).split())[:200]}") from None
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    sizes = {value.name: _size(value) for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    layers: list[Layer] = []
    for number, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}_{number}"
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        held = weights.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "Conv" and held is not None:
            layers.append(_conv(name, held, sizes.get(node.input[0], ()), attributes, first=not layers))
        elif node.op_type in ("Gemm", "MatMul") and held is not None and held.ndim == 2:
            layers.append(_linear(name, held, attributes, first=not layers))
        elif node.op_type not in FREE:
            raise BadInput(
                f"{path.name}: node {name!r} is of type {node.op_type!r}, or its weights are not stored in the file; "
                "layers can be Conv, Gemm and MatMul with stored weights"
            )
    note = (
        f"SYNTHETIC densities, our choice: activations {ACTIVATIONS:g}, coefficients {COEFFICIENTS:g}; "
        "the zeros of the weights are the file's own"
    )
    return Workload(path.stem, "synthetic", tuple(layers), note=note, id=stamp.file_sha256(path))


def _size(value: Any) -> tuple[int, ...]:
    return tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _conv(
    name: str, weights: NDArray[Any], size: tuple[int, ...], attributes: Mapping[str, Any], *, first: bool
) -> Layer:
    if weights.ndim != 4 or len(size) != 4 or min(size[1:]) < 1:
        raise BadInput(f"node {name!r}: its input has no known size (N, C, H, W); export with fixed sizes")
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or any(step != 1 for step in attributes.get("dilations", ())):
        raise BadInput(f"node {name!r}: auto_pad and dilations are not supported; use explicit pads and dilation 1")
    strides, pads = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("pads", (0, 0, 0, 0)))
    if pads[:2] != pads[2:]:
        raise BadInput(f"node {name!r}: pads {list(pads)} must be the same at both ends of an axis")
    outputs, _, *kernel = weights.shape
    shape = Shape(
        size[1], outputs, (size[2], size[3]), (kernel[0], kernel[1]), strides, pads[:2],
        int(attributes.get("group", 1)),
    )  # fmt: skip
    return _layer(name, shape, weights, first=first)


def _linear(name: str, weights: NDArray[Any], attributes: Mapping[str, Any], *, first: bool) -> Layer:
    held = weights if attributes.get("transB") else weights.T
    outputs, inputs = held.shape
    return _layer(name, Shape(inputs, outputs, (1, 1), (1, 1)), held[:, :, None, None], first=first)


def _layer(name: str, shape: Shape, weights: NDArray[Any], *, first: bool) -> Layer:
    activations = DENSE if first else Operand(ACTIVATIONS)
    split = None if first else decomposition(shape, COEFFICIENTS)
    return Layer(name, shape, Operand.of(np.ascontiguousarray(weights)), activations, split)
