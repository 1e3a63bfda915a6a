"""The roofline: which weights a step reads, and how the machine's numbers are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tprune.base.errors import WorkFailed
from tprune.bench.compare import roofline
from tprune.bench.compare.roofline import Roofline


def write_step(folder: Path, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> Path:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    token = helper.make_tensor_value_info("token", TensorProto.INT64, [1])
    hidden = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "step", [token], [hidden], tensors)
    onnx.save(helper.make_model(graph), folder / "decoder_step.onnx")
    return folder


def test_products_count_whole_and_lookups_by_the_row(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["found"]),
        helper.make_node("MatMul", ["found", "fc"], ["wide"]),
        helper.make_node("MatMulInteger", ["wide", "int8"], ["hidden"]),
    ]
    weights = {"table": np.zeros((10, 4), np.float32), "fc": np.zeros((4, 6), np.float32)}
    weights["int8"] = np.zeros((6, 3), np.int8)
    assert roofline.step_bytes(write_step(tmp_path, nodes, **weights)) == 4 * 4 + 4 * 6 * 4 + 6 * 3


def test_a_table_that_is_also_multiplied_with_counts_whole(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["found"]),
        helper.make_node("Gemm", ["found", "table"], ["hidden"], transB=1),
    ]
    assert roofline.step_bytes(write_step(tmp_path, nodes, table=np.zeros((10, 4), np.float32))) == 160


def test_an_index_that_is_a_constant_is_read_whole(tmp_path):
    nodes = [helper.make_node("Gather", ["fc", "rows"], ["hidden"])]
    weights = {"fc": np.zeros((10, 4), np.float32), "rows": np.zeros(3, np.int64)}
    assert roofline.step_bytes(write_step(tmp_path, nodes, **weights)) == 16 + 24


def test_weights_of_an_artefact_bound_its_step(tiny_artefact):
    folder = tiny_artefact("onnxruntime")
    whole = (folder / "decoder_step.onnx").stat().st_size
    assert 0 < roofline.step_bytes(folder) < whole


def test_the_largest_cache_is_read_from_the_system(tmp_path):
    for index, size in enumerate(("64K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert roofline.cache_bytes(tmp_path) == 32 << 20
    assert roofline.cache_bytes(tmp_path / "nowhere") is None


def test_the_bound_is_bytes_over_bandwidth_and_holds_outside_the_cache_only():
    bound = Roofline(step_bytes=200_000_000, bandwidth=20e9, cache_bytes=32 << 20)
    assert bound.step_ns == pytest.approx(10e6)
    assert bound.cached == pytest.approx((32 << 20) / 200e6)
    assert (Roofline(20_000_000, 20e9, 32 << 20).cached, Roofline(20_000_000, 20e9, None).cached) == (1, 0)


def test_bandwidth_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(roofline, "BUFFER", 1 << 20)
    monkeypatch.setattr(roofline, "REPEATS", 1)
    assert roofline.measure() > 1e6
    monkeypatch.setattr(roofline.sys, "executable", "/bin/false")
    with pytest.raises(WorkFailed, match="memory bandwidth cannot be measured"):
        roofline.read_bandwidth()
