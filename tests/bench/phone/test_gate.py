"""The thermal gate: when a block may start, how long it waits, and when it counts as throttled."""

from __future__ import annotations

import pytest

from tprune.bench.phone.gate import INTERVAL, Gate
from tprune.bench.phone.pulse import Pulse


class Device:
    """A fake device with a list of pulses; resting takes no time."""

    def __init__(self, *pulses: Pulse) -> None:
        self.pulses = list(pulses)
        self.rests: list[float] = []
        self.said: list[str] = []

    def gate(self, patience: float = 600.0) -> Gate:
        gate = Gate(None, patience)
        gate.look = lambda: self.pulses.pop(0) if len(self.pulses) > 1 else self.pulses[0]
        gate.rest = self.rests.append
        return gate


def skin(celsius: float | None, status: int | None = 0, **more) -> Pulse:
    return Pulse(thermal_status=status, case_celsius=celsius, **more)


def test_a_cool_device_starts_at_once():
    device = Device(skin(33))
    start = device.gate().wait(device.said.append)
    assert (start.state, start.waited_s, start.too_warm) == (skin(33), 0.0, None)
    assert device.rests == device.said == []


def test_a_warm_device_is_waited_for_with_the_reason():
    device = Device(skin(38), skin(45), skin(41), skin(39.5))
    gate = device.gate()
    gate.wait(device.said.append)
    start = gate.wait(device.said.append)
    assert (start.state.celsius, start.waited_s, start.too_warm) == (39.5, 2 * INTERVAL, None)
    assert device.said == [
        "cooling down: 45.0 °C, more than 40.0 °C (the first block began at 38.0 °C); 0 s of at most 600 s",
        "cooling down: 41.0 °C, more than 40.0 °C (the first block began at 38.0 °C); 5 s of at most 600 s",
    ]


def test_nobody_waits_for_less_than_cool():
    device = Device(skin(25), skin(36.9))
    gate = device.gate()
    gate.wait(device.said.append)
    assert gate.wait(device.said.append).waited_s == 0


def test_the_thermal_status_counts_first():
    device = Device(skin(30, status=1), skin(30))
    start = device.gate().wait(device.said.append)
    assert start.waited_s == INTERVAL
    assert device.said == ["cooling down: thermal status 1 (LIGHT); 0 s of at most 600 s"]


def test_patience_ends():
    device = Device(skin(30, status=3))
    start = device.gate(patience=12).wait(device.said.append)
    assert (start.waited_s, start.too_warm) == (15.0, "thermal status 3 (SEVERE)")


def test_a_device_that_tells_nothing_passes():
    device = Device(Pulse())
    gate = device.gate()
    assert [gate.wait(device.said.append).too_warm for _ in range(3)] == [None] * 3
    assert gate.throttled(Pulse(), [0, 1]) is None


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (skin(45, caps={6: 2000, 0: 1}), None),
        (skin(45, caps={6: 1900, 7: 2000}), r"the frequency limit of CPUs [6] was lowered"),
        (skin(30, status=2), "thermal status 2 (MODERATE)"),
        (skin(30, status=77), "thermal status 77 (unknown)"),
    ],
)
def test_what_counts_as_slowed_by_heat(after, reason):
    gate = Device(skin(30, caps={0: 1000, 6: 2000, 7: 2000})).gate()
    gate.wait(lambda why: None)
    assert gate.throttled(after, [6, 7]) == reason
