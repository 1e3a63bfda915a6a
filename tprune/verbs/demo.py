"""The whole journey on embedded data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base import stamp
from tprune.base.processor import usable_threads
from tprune.base.threads import use_threads
from tprune.demo.journey import TRAINING, Demo, journey, share_done
from tprune.verbs.inputs import Watch, silent


@dataclass(frozen=True)
class Step:
    """One step: its number out of `total`, the seconds left, and its call of `tprune`; the training has none."""

    number: int
    total: int
    left: float
    call: Sequence[str] = ()


def demo(
    out: Path,
    run: Callable[[Sequence[str]], None],
    *,
    seed: int = 0,
    threads: int | None = None,
    begin: Callable[[Step], None] = lambda step: None,
    watch: Watch = silent,
) -> None:
    """Train a model in the new folder `out` and `run` every call of the journey; `begin` is called before each step.

    `threads` defaults to 2, or to 1 on a single CPU.
    """
    threads = threads or min(2, usable_threads())
    stamp.check_vacant(out)
    use_threads(threads)
    from tprune.demo.build import build

    began = time.monotonic()
    calls = journey(out, Demo(out / "data", out / "dense"), threads=threads)
    begin(Step(1, 1 + len(calls), TRAINING / share_done(calls, 0)))
    build(out, seed=seed, watch=lambda done, total, loss: watch("train", done, total, f"loss {loss:.2f}"))
    for number, call in enumerate(calls):
        share = share_done(calls, number)
        begin(Step(number + 2, 1 + len(calls), (time.monotonic() - began) * (1 - share) / share, call))
        run(call)
