"""Decide whether bf16 is faster on this machine: queried on a GPU, measured on a CPU."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

TURNS = 20

Work = Callable[[torch.dtype], Callable[[], object]]  # prepares the work to time in a data type


@functools.cache
def bf16_is_faster(work: Work) -> bool:
    """Return whether `work` takes less than 0.8 of its time in single precision; on a GPU whether it has bf16.

    On a CPU the best of many short turns on one thread: threads that wait for a busy core would make both look alike.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single, half = work(torch.float32), work(torch.bfloat16)
        turns = [(_seconds(single), _seconds(half)) for _ in range(1 + TURNS)][1:]  # the first one warms up
    finally:
        torch.set_num_threads(threads)
    best, best_half = (min(times) for times in zip(*turns, strict=True))
    return best_half < 0.8 * best


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
