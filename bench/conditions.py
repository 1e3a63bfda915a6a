"""What this machine is and how busy it is, read from /proc and /sys; None where the system does not say."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


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


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
