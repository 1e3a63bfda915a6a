"""The roofline of greedy decoding: a step cannot be faster than its weights can be read from memory.

    step_bytes(Path("onnx/dense")) / read_bandwidth(threads=1)  # seconds a decoder step takes at least

It bounds models that are larger than the last-level cache; the weights of a smaller one are read from the cache.
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

BUFFER = 256 << 20  # bytes; many times what any cache holds
REPEATS = 12
WIDTH = 512  # columns of the matrix that is multiplied
LOOKUPS = {"Gather", "GatherBlockQuantized"}  # these read the rows that are asked for, and nothing else


@dataclass(frozen=True)
class Roofline:
    """What one decoder step has to read, how fast this machine reads (bytes/s), and what its largest cache holds."""

    step_bytes: int
    bandwidth: float
    cache_bytes: int | None

    @property
    def step_ns(self) -> float:
        """The least time of a decoder step, in nanoseconds, as long as its weights come from memory."""
        return 1e9 * self.step_bytes / self.bandwidth

    @property
    def cached(self) -> float:
        """The share of the weights that may stay in the cache from step to step; at 1 memory is no bound at all."""
        return min(1.0, (self.cache_bytes or 0) / self.step_bytes)


def step_bytes(folder: Path) -> int:
    """Return the bytes of weights that one step of an ONNX artefact reads; of tables only looked up, a row counts."""
    import onnx  # noqa: PLC0415 - only who asks for the roofline pays for it

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
    """Return the size of the largest cache of CPU 0; None where the system does not say."""
    sizes = []
    for file in folder.glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]])
    return max(sizes, default=None)


def read_bandwidth(threads: int = 1) -> float:
    """Return the bytes/s that `threads` threads read from memory: the best of several passes, in a process of its own.

    A matrix of 256 MiB is added up and multiplied by a vector, which is what decoding does; the faster one counts.
    """
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONSAFEPATH": "1"}
    argv = [sys.executable, "-m", "tprune.bench.compare.roofline"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkFailed(f"memory bandwidth cannot be measured: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def measure() -> float:
    """Return the bytes/s that this process reads from memory, on the threads that its environment gave numpy."""
    import numpy as np  # noqa: PLC0415 - after the threads were set

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
