"""An ONNX CNN becomes a workload with its own zeros; what cannot be read is named with its node."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from tprune.base.errors import BadInput
from tprune.bench.accel import onnx_file


def write(path, nodes, weights, size=("N", 3, 8, 8)):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_convolutions_and_matrices_become_layers(tmp_path):
    first, deep = np.ones((16, 3, 3, 3)), np.ones((16, 1, 3, 3))
    deep[:, :, 0] = 0
    path = write(
        tmp_path / "net.onnx",
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], "first", pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["c"], "deep", pads=[1, 1, 1, 1], group=16),
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["e"]),
            helper.make_node("Gemm", ["e", "w3"], ["y"], "head", transB=1),
        ],
        {"w1": first, "w2": deep, "w3": np.ones((10, 16))},
    )
    found = onnx_file.read(path)
    one, two, three = found.layers
    assert (found.network, found.source, found.masked) == ("net", "synthetic", True)
    assert (one.name, one.shape.size, one.shape.out_size, one.activations.density) == ("first", (8, 8), (4, 4), 1)
    assert (two.shape.groups, two.weights.density, two.decomposition) == (16, pytest.approx(2 / 3), None)
    assert (three.shape.inputs, three.shape.outputs, three.shape.macs) == (16, 10, 160)


def test_the_halves_of_a_split_kernel_pad_one_side_each(tmp_path):
    down = helper.make_node("Conv", ["x", "w1"], ["a"], "down", pads=[1, 0, 1, 0], strides=[2, 1])
    across = helper.make_node("Conv", ["a", "w2"], ["y"], "across", pads=[0, 1, 0, 1])
    path = write(tmp_path / "net.onnx", [down, across], {"w1": np.ones((4, 3, 3, 1)), "w2": np.ones((6, 4, 1, 3))})
    one, two = onnx_file.read(path).layers
    assert (one.shape.kernel, one.shape.out_size) == ((3, 1), (4, 8))
    assert (two.shape.size, two.shape.out_size) == ((4, 8), (4, 8))


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (helper.make_node("LSTM", ["x", "w", "w"], ["y"], "memory"), "net.onnx: node 'memory' is of type 'LSTM'"),
        (
            helper.make_node("Conv", ["x", "x"], ["y"], "loose"),
            "node 'loose' is of type 'Conv', or its weights are not",
        ),
        (helper.make_node("Conv", ["x", "w"], ["y"], "wide", dilations=[2, 2]), "node 'wide': auto_pad and dilations"),
        (
            helper.make_node("Conv", ["x", "w"], ["y"], "lop", pads=[0, 0, 1, 1]),
            r"node 'lop': pads \[0, 0, 1, 1\] must be",
        ),
    ],
)
def test_a_node_that_cannot_be_taken_is_named(tmp_path, node, complaint):
    path = write(tmp_path / "net.onnx", [node], {"w": np.ones((4, 3, 3, 3))})
    with pytest.raises(BadInput, match=complaint):
        onnx_file.read(path)


def test_an_input_of_unknown_size_is_refused(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    path = write(tmp_path / "net.onnx", [node], {"w": np.ones((4, 3, 3, 3))}, size=("N", 3, "H", "W"))
    with pytest.raises(BadInput, match="node 'conv': its input has no known size"):
        onnx_file.read(path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="is not an ONNX model"):
        onnx_file.read(tmp_path / "net.onnx")
