"""`Gate`: no block starts on a warmer device than the first one did; waiting has a reason, and an end.

gate = Gate(look=..., rest=...)
start = gate.wait(tell=print)      # before every block
if start.still or gate.throttled(after, cpus): ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tprune.bench.phone.pulse import STATUS, Pulse

MARGIN = 2.0  # degrees by which a block may start warmer than the first
COOL = 37.0  # degrees of the case at which no phone throttles: never wait for less
INTERVAL = 5.0  # seconds between two looks


@dataclass(frozen=True)
class Start:
    """What a block starts from: the last look, how long was waited for it, and why waiting was given up, if it was."""

    pulse: Pulse
    waited: float = 0.0
    still: str | None = None


@dataclass
class Gate:
    """The thermal gate of one device in one session; the first look that passes sets what later blocks must be near.

    `look` takes a pulse, `rest` sleeps some seconds (or raises when the session is stopped), `patience` is in seconds.
    """

    look: Callable[[], Pulse]
    rest: Callable[[float], None]
    patience: float = 600.0
    first: Pulse | None = field(default=None, init=False)

    def wait(self, tell: Callable[[str], None]) -> Start:
        """Return once the device is as cool as at the first block or patience is over; `tell` hears the reason."""
        waited = 0.0
        while True:
            pulse = self.look()
            why = self.too_warm(pulse)
            if why is None or waited >= self.patience:
                self.first = self.first or pulse
                return Start(pulse, waited, why)
            tell(f"cooling down: {why}; {waited:.0f} s of at most {self.patience:.0f} s")
            self.rest(INTERVAL)
            waited += INTERVAL

    def too_warm(self, now: Pulse) -> str | None:
        """Return why a block must not start now, or None. A device that tells no temperature always passes."""
        if now.thermal_status:
            return _status(now.thermal_status)
        began = self.first.celsius if self.first else None
        if began is not None and now.celsius is not None and now.celsius > (limit := max(began + MARGIN, COOL)):
            return f"{now.celsius:.1f} °C, more than {limit:.1f} °C (the first block began at {began:.1f} °C)"
        return None

    def throttled(self, after: Pulse, cpus: Sequence[int]) -> str | None:
        """Return why a block that ended like this was slowed down by heat: its status, or lower limits; or None.

        `cpus` are those it ran on; their frequency limits are compared with those before the first block.
        """
        if after.thermal_status:
            return _status(after.thermal_status)
        caps = self.first.caps if self.first else {}
        lowered = [cpu for cpu in cpus if cpu in after.caps and after.caps[cpu] < caps.get(cpu, 0)]
        return f"the frequency limit of CPUs {lowered} was lowered" if lowered else None


def _status(status: int) -> str:
    return f"thermal status {status} ({STATUS[status] if status < len(STATUS) else 'unknown'})"
