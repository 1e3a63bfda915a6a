"""The task `graph` of our runner against ONNX Runtime in Python: one small graph, its inputs and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.support.native import Called, Runner, build


@pytest.fixture(scope="module")
def program() -> Path:
    return build("host", "tprune-ort")


@pytest.fixture
def runner(program: Path, tmp_path: Path) -> Runner:
    return Runner(program, tmp_path)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """Return a graph of two inputs and three outputs, one of a size that depends on the input and one of int64."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["y/out"]),
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    body = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("y/out", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("size", TensorProto.INT64, [2]),
            helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 4], weights.tobytes(), raw=True)],
    )
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run_graph(runner: Runner, graph: Path, arrays: dict[str, np.ndarray], *words: object) -> Called:
    inputs: list[object] = []
    for name, array in arrays.items():
        np.save(runner.folder / f"{name}.npy", array)
        inputs += ["--in", f"{name}={runner.folder / name}.npy"]
    return runner.call("graph", "--model", graph, "--out-dir", runner.folder / "out", *inputs, *words)


ARRAYS = {"x": np.arange(15, dtype=np.float32).reshape(5, 3) - 7, "scale": np.float32([[1, 2, 3]])}


def test_graph_equals_python(runner: Runner, graph: Path) -> None:
    called = run_graph(runner, graph, ARRAYS, "--iterations", 7, "--warmup", 2, "--nonce", "n")
    report = called.report
    assert (report["task"], report["artefact"], len(report["samples_ns"])) == ("graph", None, 7)
    assert report["samples_ns"] == report["run_ns"]
    assert not {"steps", "encoder_ns", "step_ns", "beams", "max_length"} & set(report)
    wanted = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).run(None, ARRAYS)
    tensors = report["outputs"]["tensors"]
    assert [tensor["file"] for tensor in tensors] == ["y_out.npy", "size.npy", "scaled.npy"]
    for tensor, array in zip(tensors, wanted, strict=True):
        found = np.load(called.folder / tensor["file"])
        assert (tensor["dtype"], tuple(tensor["shape"])) == (str(found.dtype), found.shape)
        np.testing.assert_array_equal(found, array)


def test_graph_runs_for_a_time(runner: Runner, graph: Path) -> None:
    samples = run_graph(runner, graph, ARRAYS, "--iterations", 1, "--min-ms", 3).report["samples_ns"]
    assert sum(samples) >= 3_000_000
    assert sum(samples[:-1]) < 3_000_000


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": ARRAYS["x"]}, "input 'scale' is not given"),
        (ARRAYS | {"other": ARRAYS["x"]}, "--in other: the graph has no such input"),
        (ARRAYS | {"x": np.zeros((5, 3))}, "is float64 [5, 3], the graph takes float32 [?, 3]"),
        (ARRAYS | {"x": np.zeros((5, 4), np.float32)}, "is float32 [5, 4]"),
        (ARRAYS | {"x": np.zeros((3, 5), np.float32).T}, "it is not in C order"),
        (ARRAYS | {"x": np.zeros((1, 3), ">f4")}, "its type is not one of"),
    ],
)
def test_graph_refuses_wrong_inputs(runner: Runner, graph: Path, arrays, complaint: str) -> None:
    run_graph(runner, graph, arrays).check_failed(2, complaint)


def test_graph_refuses_what_is_no_model(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model at all")
    run_graph(runner, tmp_path / "bad.onnx", ARRAYS).check_failed(1, "ONNX Runtime cannot open")
    run_graph(runner, tmp_path / "none.onnx", ARRAYS).check_failed(2, "none.onnx: No such file")


def test_graph_profile(runner: Runner, graph: Path) -> None:
    called = run_graph(runner, graph, ARRAYS, "--profile", "--iterations", 1)
    assert called.report["profile"] == "profile.json"
    events = json.loads((called.folder / "profile.json").read_text())
    assert any(event.get("args", {}).get("op_name") == "MatMul" for event in events)
