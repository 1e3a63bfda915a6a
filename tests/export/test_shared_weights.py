"""Weights of two ONNX graphs stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tprune.export.ort.shared_weights import share

TABLE = np.arange(40 * 16, dtype=np.float32).reshape(40, 16)


def model(**arrays: np.ndarray) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in arrays]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [], outputs, weights))


def reread(proto: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    onnx.save(proto, path)
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("rows", [40, 17])
def test_a_table_and_its_beginning_are_stored_once(tmp_path: Path, rows: int) -> None:
    other = np.ones((40, 16), dtype=np.float32)
    first, second = model(a=TABLE, only=other), model(b=TABLE[:rows], mine=other + 1)
    assert share(first, second, tmp_path / "shared.bin")
    assert (tmp_path / "shared.bin").stat().st_size == 4096  # the table once, filled up to a page
    np.testing.assert_array_equal(reread(first, tmp_path / "1.onnx")["a"], TABLE)
    found = reread(second, tmp_path / "2.onnx")
    np.testing.assert_array_equal(found["b"], TABLE[:rows])
    np.testing.assert_array_equal(found["mine"], other + 1)


@pytest.mark.parametrize(
    "array",
    [TABLE + 1, TABLE.astype(np.int32), TABLE.reshape(20, 32), TABLE[1:], TABLE[:8]],
    ids=["other numbers", "other type", "other rows", "not the beginning", "too small"],
)
def test_what_is_not_alike_stays_where_it_is(tmp_path: Path, array: np.ndarray) -> None:
    first, second = model(a=TABLE), model(b=array)
    assert not share(first, second, tmp_path / "shared.bin")
    assert list(tmp_path.iterdir()) == []
    assert all(t.data_location != TensorProto.EXTERNAL for m in (first, second) for t in m.graph.initializer)
