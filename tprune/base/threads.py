"""CPU threads of torch: how many, and how they wait for each other."""

from __future__ import annotations

import os

SPIN_COUNT, SPINS = "GOMP_SPINCOUNT", "10000"  # about ten microseconds
OPENMP_WAITS = ("OMP_WAIT_POLICY", SPIN_COUNT, "KMP_BLOCKTIME")  # how threads wait: GNU's and Intel's variables


def spin_briefly() -> None:
    """Limit how long torch's threads spin while they wait for each other. Call it before torch is loaded.

    By default OpenMP's threads spin for milliseconds. On a busy machine they thereby occupy the CPU that the thread
    they wait for needs. One training step of the demo on two CPUs: on a quiet machine 60 ms by default, 61 ms with this
    setting, 99 ms without any spinning, 107 ms with one thread; on a busy one (load average 6 to 11, one run) 3.2 s by
    default, 0.8 s with this setting, 0.6 s with one thread. A setting of the caller is kept.
    """
    if not any(name in os.environ for name in OPENMP_WAITS):
        os.environ[SPIN_COUNT] = SPINS


def use_threads(threads: int) -> None:
    """Load torch and let it use `threads` CPU threads. Child processes do not inherit what `spin_briefly` set."""
    import torch  # reads the environment

    if os.environ.get(SPIN_COUNT) == SPINS:
        del os.environ[SPIN_COUNT]
    torch.set_num_threads(threads)
