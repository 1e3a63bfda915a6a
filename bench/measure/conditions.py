"""What this machine is and what state it is in, read from /proc and /sys; None where the system does not say."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from tprune.base import processor

BUSY_CPUS = 0.25  # that other programs may keep busy before it is worth a word


def device() -> dict[str, Any]:
    """Return the `device` of a record that was measured on this machine."""
    own = processor.here()
    facts = {"kind": "host", "serial": None, "model": own.model, "abi": own.machine, "emulated": False}
    return {**facts, "soc": None, "android": None, "instruction_set": processor.known(own)}


def cpu_model(cpuinfo: str | None = None) -> str:
    """Return the CPU's name from the text of /proc/cpuinfo, or the architecture where it has none."""
    return (processor.here() if cpuinfo is None else processor.parse(cpuinfo, platform.machine())).model


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
