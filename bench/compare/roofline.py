"""The roofline of greedy decoding: a step cannot be faster than its weights can be read from memory.

    step_bytes(Path("onnx/dense")) / read_bandwidth(threads=1)  # least seconds of a decoder step

The bound holds for models larger than the last-level cache; a smaller model reads its weights from the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tprune.base.errors import WorkFailed
from tprune.export.manifest import GRAPHS

BUFFER = 256 << 20  # bytes; many times the size of any cache
REPEATS = 12
WIDTH = 512  # columns of the matrix
LOOKUPS = {"Gather", "GatherBlockQuantized"}  # operators that read only the requested rows


@dataclass(frozen=True)
class Roofline:
    """Bytes that one decoder step reads, this machine's read bandwidth (bytes/s) and the size of its largest cache."""

    step_bytes: int
    bandwidth: float
    cache_bytes: int | None

    @property
    def step_ns(self) -> float:
        """The least time of a decoder step in nanoseconds, if its weights come from memory."""
        return 1e9 * self.step_bytes / self.bandwidth

    @property
    def cached(self) -> float:
        """The share of the weights that may stay in the cache between steps; at 1, memory is no bound."""
        return min(1.0, (self.cache_bytes or 0) / self.step_bytes)


def step_bytes(folder: Path) -> int:
    """Return the bytes of weights that one step of an ONNX artefact reads; a lookup table counts as one row."""
    import onnx  # noqa: PLC0415 - slow to import

    graph = onnx.load(str(folder / GRAPHS["decoder_step"])).graph
    readers: dict[str, set[tuple[str, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, set()).add((node.op_type, place))
    total = 0
    for tensor in graph.initializer:
        looked_up = all(kind in LOOKUPS and place != 1 for kind, place in readers.get(tensor.name, set()))
        size = _bytes(tensor)
        total += size // max(1, tensor.dims[0]) if looked_up and tensor.dims else size
    return total


def _bytes(tensor: Any) -> int:
    if tensor.raw_data:
        return len(tensor.raw_data)
    import onnx  # noqa: PLC0415

    return int(prod(tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Return the size of the largest cache of CPU 0; None where unknown."""
    sizes = []
    for file in folder.glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]])
    return max(sizes, default=None)


def read_bandwidth(threads: int = 1) -> float:
    """Measure the bytes/s that `threads` threads read from memory: the best of several passes, in a new process.

    A pass sums a matrix of 256 MiB or multiplies it by a vector, as decoding does.
    """
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONSAFEPATH": "1"}
    argv = [sys.executable, "-m", "tprune.bench.compare.roofline"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkFailed(f"memory bandwidth cannot be measured: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def measure() -> float:
    """Measure the bytes/s that this process reads from memory, with numpy's threads as set in the environment."""
    import numpy as np  # noqa: PLC0415 - after the number of threads is set

    matrix = np.ones((BUFFER // (4 * WIDTH), WIDTH), dtype=np.float32)
    vector, result = np.ones(WIDTH, dtype=np.float32), np.empty(len(matrix), dtype=np.float32)
    best = float("inf")
    for _ in range(REPEATS):
        for work in (lambda: np.dot(matrix, vector, out=result), matrix.sum):
            begin = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - begin)
    return matrix.nbytes / best


if __name__ == "__main__":
    sys.stdout.write(f"{measure()}\n")
