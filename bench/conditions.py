"""What this machine is and how busy it is, read from /proc and /sys; None where the system does not say."""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY_CPUS = 0.25  # that other programs may keep busy before it is worth a word


def device() -> dict[str, Any]:
    """Return the `device` of a record that was measured on this machine."""
    facts = {"kind": "host", "serial": None, "model": cpu_model(), "abi": platform.machine(), "emulated": False}
    return {**facts, "soc": None, "android": None}


def cpu_model(cpuinfo: str | None = None) -> str:
    """Return the CPU's name from the text of /proc/cpuinfo, or the architecture where it has none."""
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Hardware", "Model"} and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def now() -> dict[str, Any]:
    """Return load average (1, 5, 15 minutes), governor and current frequency in MHz of CPU 0."""
    frequency = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return {
        "loadavg": [round(load, 2) for load in os.getloadavg()],
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mhz": round(int(frequency) / 1000) if frequency else None,
    }


@dataclass
class Others:
    """What other programs do on the CPUs of this process, from one look to the next."""

    began: tuple[float, float] | None = None  # (seconds on the clock, CPU seconds that were not ours)

    def look(self) -> float | None:
        """Return how many CPUs other programs kept busy since the look before; None at the first and without /proc."""
        before, self.began = self.began, _foreign()
        if before is None or self.began is None or self.began[0] <= before[0]:
            return None
        return round(max(0.0, (self.began[1] - before[1]) / (self.began[0] - before[0])), 2)


def _foreign() -> tuple[float, float] | None:
    """Return the clock and the CPU seconds so far that went neither to this process nor to those it has ended."""
    ours = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    busy = busy_seconds(_read("/proc/stat") or "", os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK"))
    return None if busy is None else (time.monotonic(), busy - ours)


def busy_seconds(stat: str, cpus: set[int], ticks: int) -> float | None:
    """Return the seconds in which `cpus` were not idle, from the text of /proc/stat; None where it does not say."""
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


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
