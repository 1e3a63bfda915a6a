"""Open an ONNX artefact in Python. Needs numpy and onnxruntime only.

translator = open("artefacts/dense", threads=1)
translator.greedy([73, 9, 512, 0]).ids
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, which would write a device id to the home folder
import onnxruntime as ort  # noqa: E402
from onnxruntime.capi.onnxruntime_pybind11_state import OrtValue  # noqa: E402

from tprune.base.errors import BadInput  # noqa: E402
from tprune.export import targets  # noqa: E402
from tprune.export.manifest import GRAPHS, Manifest, Tensors  # noqa: E402
from tprune.export.search.batch import Floats, Ints  # noqa: E402
from tprune.export.search.translator import Translator  # noqa: E402

CPU = ort.OrtDevice.make("cpu", 0)._get_c_device()
ROOM = 64
"""Initial number of positions in a cache; doubled when a translation is longer."""


def open(folder: str | Path, threads: int = 1) -> Translator:  # noqa: A001 - used as `runtime.open(folder)`
    """Check the files of an ONNX artefact against its manifest and open it. Raises BadInput for a damaged artefact.

    Warns (`errors.Caution`) if it was exported for other processors.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, not {threads}")
    manifest = Manifest.read(folder)
    if manifest.runtime != "onnxruntime":
        raise BadInput(f"{str(folder)!r} is for {manifest.runtime}; this opens onnxruntime artefacts only")
    manifest.check_files(folder)
    targets.warn(f"artefact {str(folder)!r}", manifest.target_cpu)
    encoder, step = (session(Path(folder) / GRAPHS[name], threads) for name in ("encoder", "decoder_step"))
    tensors = manifest.tensors
    return Translator(manifest, threads, _Encoder(encoder, tensors["encoder"]), _Step(step, tensors["decoder_step"]))


class _Encoder:
    """An `Encoder` that leaves its outputs inside ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession, tensors: Tensors) -> None:
        self._session = session._sess
        self._binding = session.io_binding()._iobinding
        self._names = [port.name for port in tensors.outputs]

    def run(self, ids: Ints, mask: Ints) -> tuple[dict[str, Any], int]:
        binding = self._binding
        binding.bind_ortvalue_input("input_ids", _value(ids))
        binding.bind_ortvalue_input("attention_mask", _value(mask))
        for name in self._names:
            binding.bind_output(name, CPU)
        begin = perf_counter_ns()
        self._session.run_with_iobinding(binding, None)
        run_ns = perf_counter_ns() - begin
        values = binding.get_outputs()
        return {name: values[i] for i, name in enumerate(self._names)}, run_ns


class _Step:
    """A `Step` with bound arrays: the session reads token, position and caches, and writes logits and caches, in place.

    Uses the objects below onnxruntime's Python wrappers; the wrappers would add a few percent to every step.
    """

    logits: Floats

    def __init__(self, session: ort.InferenceSession, tensors: Tensors) -> None:
        self._session = session._sess
        self._binding = session.io_binding()._iobinding
        self._inputs = {port.name for port in tensors.inputs}
        past = [port for port in tensors.inputs if "cache" in port.shape]
        self._ports = list(zip(past, tensors.outputs[1:], strict=True))
        self._logits = tensors.outputs[0]
        self._batch = 0
        self._position = np.zeros(1, dtype=np.int64)
        self._bind("position", self._position)

    def start(self, encoded: Mapping[str, Any], batch: int) -> None:
        if batch != self._batch:
            self._allocate(batch)
        self._copies = []  # keep a reference: the session reads them in place
        for name, value in encoded.items():
            if name in self._inputs and value.shape()[0] == batch:
                self._binding.bind_ortvalue_input(name, value)
            elif name in self._inputs:
                self._copies.append(np.repeat(value.numpy(), batch // value.shape()[0], axis=0))
                self._bind(name, self._copies[-1])

    def run(self, position: int, token: int | Ints) -> int:
        if position == self._room:
            self._make_room(2 * self._room)
        self._token[:] = token
        self._position[0] = position
        begin = perf_counter_ns()
        self._session.run_with_iobinding(self._binding, None)
        return perf_counter_ns() - begin

    def reorder(self, rows: Sequence[int]) -> None:
        filled = int(self._position[0]) + 1
        for cache in self._caches:
            cache[:, :, :filled] = cache[list(rows), :, :filled]

    def _allocate(self, batch: int) -> None:
        self._batch, self._caches = batch, list[Floats]()
        self._token = np.zeros(batch, dtype=np.int64)
        self.logits = np.zeros((batch, int(self._logits.shape[1])), dtype=np.float32)
        self._bind("token", self._token)
        self._binding.bind_ortvalue_output(self._logits.name, _value(self.logits))
        self._make_room(ROOM)

    def _make_room(self, room: int) -> None:
        """Enlarge the caches to `room` positions and keep their contents."""
        self._room, old = room, self._caches
        sizes: dict[int | str, int] = {"batch": self._batch, "cache": room}
        shapes = [[sizes[s] if isinstance(s, str) else s for s in port.shape] for port, _ in self._ports]
        self._caches = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        for cache, before in zip(self._caches, old, strict=False):  # `old` is empty on the first call
            cache[:, :, : before.shape[2]] = before
        for (past, present), cache in zip(self._ports, self._caches, strict=True):
            value = _value(cache)
            self._binding.bind_ortvalue_input(past.name, value)
            self._binding.bind_ortvalue_output(present.name, value)

    def _bind(self, name: str, array: npt.NDArray[Any]) -> None:
        self._binding.bind_ortvalue_input(name, _value(array))


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Open an ONNX file with the session options that every caller shares."""
    return ort.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only
    return options


def _value(array: npt.NDArray[Any]) -> Any:
    """Return a view of `array`, which must outlive it, in the form that bindings take."""
    return OrtValue.ortvalue_from_numpy(array, CPU)
