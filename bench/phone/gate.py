"""`Gate`: no block starts on a warmer phone than the first one did. Every wait has a reason and a limit.

gate = Gate(device, patience=600)
before = gate.wait(print)      # before every block
after = gate.after([6, 7])     # with `throttled` when heat slowed the block down
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tprune.bench.measure.conditions import Conditions
from tprune.bench.phone import pulse
from tprune.bench.phone.adb import Device, Stopped
from tprune.bench.phone.pulse import PULSE, STATUS, Pulse

MARGIN = 2.0  # degrees by which a block may start warmer than the first
COOL = 37.0  # degrees of the case at which no phone throttles: never wait for less
INTERVAL = 5.0  # seconds between two readings
FRESH = 2.0  # seconds for which a reading is reused


@dataclass
class Gate:
    """The thermal gate of one phone during one call. The first reading that passes is the reference for later blocks.

    `patience` is in seconds.
    """

    device: Device
    patience: float = 600.0
    first: Pulse | None = field(default=None, init=False)
    before: Conditions | None = field(default=None, init=False)
    latest: tuple[float, Pulse] | None = field(default=None, init=False)

    def look(self) -> Pulse:
        """Read the phone's state; a reading younger than `FRESH` is reused."""
        if self.latest is None or time.monotonic() - self.latest[0] > FRESH:
            self.note(self.device.ask(PULSE))
        assert self.latest is not None
        return self.latest[1]

    def note(self, text: str) -> None:
        """Take over a reading: the output of `PULSE`."""
        self.latest = (time.monotonic(), pulse.parse(text))

    def rest(self, seconds: float) -> None:
        """Sleep. Raise `Stopped` when the call is interrupted."""
        if self.device.stop.wait(seconds):
            raise Stopped("stopped by Ctrl-C or a signal")

    def wait(self, tell: Callable[[str], None]) -> Conditions:
        """Return once the phone is as cool as at the first block, or patience is over; `tell` receives the reason."""
        waited = 0.0
        while True:
            now = self.look()
            why = self.too_warm(now)
            if why is None or waited >= self.patience:
                self.first = self.first or now
                self.before = Conditions(now, waited, why)
                return self.before
            tell(f"cooling down: {why}; {waited:.0f} s of at most {self.patience:.0f} s")
            self.rest(INTERVAL)
            waited += INTERVAL

    def after(self, cpus: Sequence[int], *, sustained: bool = False) -> Conditions:
        """Return the conditions after a block on these CPUs. A sustained run is never throttled: it measures heat."""
        now = self.look()
        reason = (self.before.too_warm if self.before else None) or self.throttled(now, cpus)
        return Conditions(now, throttled=None if sustained else reason)

    def too_warm(self, now: Pulse) -> str | None:
        """Return why a block must not start now, or None. A phone that reports no temperature always passes."""
        if now.thermal_status:
            return _status(now.thermal_status)
        began = self.first.celsius if self.first else None
        if began is not None and now.celsius is not None and now.celsius > (limit := max(began + MARGIN, COOL)):
            return f"{now.celsius:.1f} °C, more than {limit:.1f} °C (the first block began at {began:.1f} °C)"
        return None

    def throttled(self, after: Pulse, cpus: Sequence[int]) -> str | None:
        """Return why heat slowed a block down: the thermal status, or a frequency limit below that of the first block.

        `cpus` are those that the block ran on.
        """
        if after.thermal_status:
            return _status(after.thermal_status)
        caps = self.first.caps if self.first else {}
        lowered = [cpu for cpu in cpus if cpu in after.caps and after.caps[cpu] < caps.get(cpu, 0)]
        return f"the frequency limit of CPUs {lowered} was lowered" if lowered else None


def _status(status: int) -> str:
    return f"thermal status {status} ({STATUS[status] if status < len(STATUS) else 'unknown'})"
