"""What this machine is and how busy it is, read from /proc and /sys; None where the system does not say."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def device() -> dict[str, Any]:
    """Return the `device` of a record that was measured on this machine."""
    return {"kind": "host", "serial": None, "model": cpu_model(), "abi": platform.machine(), "emulated": False}


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


def peak_kib(status: str | None = None) -> int:
    """Return the largest resident size this process ever had, in KiB (`VmHWM` of /proc/self/status)."""
    text = _read("/proc/self/status") if status is None else status
    for line in (text or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM line: peak memory needs Linux")


def allowed_cpus() -> list[int]:
    """Return the CPUs that any thread of this process may run on, read back from the kernel."""
    threads = Path("/proc/self/task")
    names = [int(entry.name) for entry in threads.iterdir()] if threads.is_dir() else [0]
    found: set[int] = set()
    for thread in names:
        found |= os.sched_getaffinity(thread)
    return sorted(found)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
