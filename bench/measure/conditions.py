"""`Conditions`: the state of a place before or after a block, and what this machine is (from /proc and /sys)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tprune.base import processor
from tprune.bench.measure.record import DeviceFacts

BUSY_CPUS = 0.25  # CPUs kept busy by other programs from which a report warns


class State(Protocol):
    """What a place reads about itself: `Load` on this machine, `tprune.bench.phone.pulse.Pulse` on a phone."""

    def document(self) -> dict[str, object]:
        """Return the JSON fields of a record's conditions."""


@dataclass(frozen=True)
class Conditions:
    """State, seconds waited for it, and the reasons why the place was too warm before or slowed down during a run."""

    state: State
    waited_s: float = 0.0
    too_warm: str | None = None
    throttled: str | None = None

    def document(self) -> dict[str, object]:
        """Return the conditions as a record holds them."""
        extra = {"waited_s": self.waited_s, "too_warm": self.too_warm, "throttled": self.throttled}
        return {**self.state.document(), **{name: value for name, value in extra.items() if value}}


@dataclass(frozen=True)
class Load:
    """Load average (1, 5, 15 minutes), governor and frequency in MHz of CPU 0; None where the system has no file.

    `others` is the number of CPUs that other programs kept busy since the last look.
    """

    loadavg: tuple[float, ...]
    governor: str | None
    mhz: int | None
    others: float | None = None

    def document(self) -> dict[str, object]:
        """Return the JSON fields of a record's conditions."""
        found = {**asdict(self), "loadavg": list(self.loadavg)}
        return {name: value for name, value in found.items() if name != "others" or value is not None}


def device() -> DeviceFacts:
    """Return the `device` of a record that was measured on this machine."""
    own = processor.here()
    return DeviceFacts(
        kind="host",
        serial=None,
        model=own.model,
        abi=own.machine,
        emulated=False,
        soc=None,
        android=None,
        instruction_set=processor.known(own),
    )


def now(others: float | None = None) -> Conditions:
    """Return the conditions of this machine."""
    frequency = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return Conditions(
        Load(
            loadavg=tuple(round(load, 2) for load in os.getloadavg()),
            governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            mhz=round(int(frequency) / 1000) if frequency else None,
            others=others,
        )
    )


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
