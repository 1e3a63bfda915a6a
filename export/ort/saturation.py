"""Check that no sum of two 8-bit products in an ONNX graph can exceed 16 bits: see `export.targets`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tprune.base.errors import WorkFailed
from tprune.export.targets import PAIR, REDUCED

PRODUCTS = {"DynamicQuantizeMatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}  # operator -> input: weights (in, out)
CONVOLUTIONS = {"QLinearConv": 3, "ConvInteger": 1}
BETWEEN = "DequantizeLinear"  # of the form QDQ, in which what reads it becomes an 8-bit operator


def check(model: onnx.ModelProto) -> None:
    """Raise WorkFailed for signed 8-bit weights whose sums a processor without VNNI may saturate.

    Matrices of signed bytes that are not inputs of an operator in the two tables are refused, too. `MatMulNBits` is
    safe: its kernels move the sign to the other operand, and 2 * 127 * 128 fits.
    """
    weights = {one.name: one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8}
    unseen = {name for name, one in weights.items() if len(one.dims) > 1}
    for node in model.graph.node:
        is_product = node.op_type in PRODUCTS
        at = PRODUCTS.get(node.op_type, CONVOLUTIONS.get(node.op_type, 0 if node.op_type == BETWEEN else None))
        if at is None or at >= len(node.input) or node.input[at] not in weights:
            continue
        unseen.discard(node.input[at])
        weight = numpy_helper.to_array(weights[node.input[at]])
        largest = largest_pair(weight) if is_product else 2 * int(np.abs(weight.astype(np.int64)).max(initial=0))
        if weight.ndim > 1 and largest > PAIR:
            raise WorkFailed(
                f"weights {node.input[at]!r} of {node.op_type} add up to {largest} in two neighbours; processors "
                f"without VNNI take {PAIR} at most (each {REDUCED}): their sums of products would saturate"
            )
    if unseen:
        names = ", ".join(sorted(unseen))
        raise WorkFailed(f"8-bit weights {names} are inputs of operators that this check does not know; export fp32")


def largest_pair(weight: npt.NDArray[np.int8]) -> int:
    """Return the largest sum, as a magnitude, of two weights (in, out) of one sign that `vpmaddubsw` may add.

    It adds the products of inputs 0 and 1, of 2 and 3, and so on.
    """
    rows = np.asarray(weight, dtype=np.int64)
    pairs = np.pad(rows, ((0, len(rows) % 2), (0, 0))).reshape(-1, 2, rows.shape[1])
    return int(max(np.maximum(side * pairs, 0).sum(1).max(initial=0) for side in (1, -1)))
