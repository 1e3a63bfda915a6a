"""Measure how many CPUs other programs keep busy, from /proc/stat; None without it."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from tprune.base import processor


@dataclass
class Others:
    """The CPU use of other programs on the CPUs of this process, between two looks."""

    began: tuple[float, float] | None = None  # (seconds on the clock, CPU seconds that were not ours)

    def look(self) -> float | None:
        """Return how many CPUs other programs kept busy since the last look; None the first time or without /proc."""
        before, self.began = self.began, _foreign()
        if before is None or self.began is None or self.began[0] <= before[0]:
            return None
        return round(max(0.0, (self.began[1] - before[1]) / (self.began[0] - before[0])), 2)


def busy_cpus(seconds: float = 0.2) -> float | None:
    """Return how many CPUs other programs keep busy during the next `seconds`, in which this process waits."""
    others = Others()
    others.look()
    if others.began is None:
        return None
    time.sleep(seconds)
    return others.look()


def _foreign() -> tuple[float, float] | None:
    """Return the clock and the CPU seconds so far that went neither to this process nor to those it has ended."""
    ours = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    try:
        stat = Path("/proc/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    busy = busy_seconds(stat, processor.affinity(), os.sysconf("SC_CLK_TCK"))
    return None if busy is None else (time.monotonic(), busy - ours)


def busy_seconds(stat: str, cpus: set[int], ticks: int) -> float | None:
    """Return the seconds in which `cpus` were not idle, from the text of /proc/stat; None if it has no numbers."""
    told = {
        words[0]: [int(word) for word in words[1:9]]
        for line in stat.splitlines()
        if (words := line.split())[:1] and words[0].startswith("cpu")
    }
    own = [told[name] for cpu in cpus if (name := f"cpu{cpu}") in told]
    if not own or not sum(map(sum, own)):
        return None
    # user, nice, system, (idle, waiting for a disk), interrupts, soft interrupts, stolen
    return sum(sum(times[:3]) + sum(times[5:8]) for times in own) / ticks
