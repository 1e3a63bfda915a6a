"""Store weights that two ONNX graphs share, such as the embedding table, once in a file beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

SMALLEST = 1024  # bytes; smaller tensors stay in the graphs
ALIGNMENT = 4096  # a page, so that a runtime can map the file into memory


def share(first: onnx.ModelProto, second: onnx.ModelProto, path: Path) -> bool:
    """Move the tensors that `second` shares with `first` into the file `path`; return whether there are any.

    A tensor of `second` is shared if its bytes are the first bytes of one of `first` (a trimmed table is
    the beginning of the whole one). Both models must be saved into the folder of `path`.
    """
    wholes = [tensor for tensor in first.graph.initializer if len(_bytes(tensor)) >= SMALLEST]
    offset = 0
    with path.open("wb") as file:
        for whole in wholes:
            held = _bytes(whole)
            parts = [part for part in second.graph.initializer if _begins(part, whole, held)]
            if not parts:
                continue
            file.write(held)
            for tensor in (whole, *parts):
                _refer(tensor, path.name, offset, len(_bytes(tensor)))
            end = offset + len(held)
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            file.write(bytes(offset - end))
    if not offset:
        path.unlink()
    return offset > 0


def _begins(part: TensorProto, whole: TensorProto, held: bytes) -> bool:
    same = (part.data_type, _sizes(part)[1:]) == (whole.data_type, _sizes(whole)[1:])
    return same and len(_bytes(part)) >= SMALLEST and held.startswith(_bytes(part))


def _sizes(tensor: TensorProto) -> Sequence[int]:
    return list(tensor.dims)


def _bytes(tensor: TensorProto) -> bytes:
    if tensor.data_location == TensorProto.EXTERNAL:
        return b""  # already moved
    return bytes(tensor.raw_data) or numpy_helper.to_array(tensor).tobytes()


def _refer(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
