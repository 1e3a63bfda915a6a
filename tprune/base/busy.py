"""Measure how many CPUs other programs keep busy, from /proc/stat; None on systems without it."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from tprune.base import processor


@dataclass
class Others:
    """The CPU use of other programs between two calls of `look`."""

    began: tuple[float, float] | None = None  # (clock in seconds, CPU seconds of other processes)

    def look(self) -> float | None:
        """Return how many CPUs others kept busy since the last call; None on the first call and without /proc."""
        before, self.began = self.began, _foreign()
        if before is None or self.began is None or self.began[0] <= before[0]:
            return None
        return round(max(0.0, (self.began[1] - before[1]) / (self.began[0] - before[0])), 2)


def busy_cpus(seconds: float = 0.2) -> float | None:
    """Wait for `seconds` and return how many CPUs other programs kept busy meanwhile."""
    others = Others()
    others.look()
    if others.began is None:
        return None
    time.sleep(seconds)
    return others.look()


def _foreign() -> tuple[float, float] | None:
    """Return the clock and the CPU seconds used so far by other processes than this one and its finished children."""
    ours = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    try:
        stat = Path("/proc/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    busy = busy_seconds(stat, processor.affinity(), os.sysconf("SC_CLK_TCK"))
    return None if busy is None else (time.monotonic(), busy - ours)


def busy_seconds(stat: str, cpus: set[int], ticks: int) -> float | None:
    """Parse /proc/stat and return the seconds in which `cpus` were not idle; None without data."""
    times_of = {
        words[0]: [int(word) for word in words[1:9]]
        for line in stat.splitlines()
        if (words := line.split())[:1] and words[0].startswith("cpu")
    }
    own = [times_of[name] for cpu in cpus if (name := f"cpu{cpu}") in times_of]
    if not own or not sum(map(sum, own)):
        return None
    # user, nice, system, (idle, iowait,) irq, softirq, steal
    return sum(sum(times[:3]) + sum(times[5:8]) for times in own) / ticks
