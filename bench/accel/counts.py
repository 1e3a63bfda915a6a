"""Event counts of one layer, with assertions that they are consistent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tprune.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Access:
    """Traffic of one memory level in bytes; `capacity` (bytes of one instance) determines the energy per byte."""

    level: str
    capacity: float
    reads: float
    writes: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of one layer: compute `cycles` of `lanes` arithmetic units, their use, and the traffic.

    `useful`: lane-cycles with an effective operation; `losses`: the other lane-cycles by cause; both sum to
    lanes * cycles. `operations`: counts by kind (energy.OPERATIONS); `noc`: bytes between units; `dram`: bytes of
    inputs, weights and outputs including re-fetches; `compulsory`: the same without re-fetches.
    """

    cycles: int
    lanes: int
    useful: int
    losses: Mapping[str, int]
    operations: Mapping[str, float]
    noc: float
    accesses: tuple[Access, ...]
    dram: Mapping[str, int]
    compulsory: Mapping[str, int]

    def __post_init__(self) -> None:
        assert self.useful + sum(self.losses.values()) == self.lanes * self.cycles, "losses do not sum to the total"
        assert self.useful >= 0 and min(self.losses.values(), default=0) >= 0, f"negative loss: {dict(self.losses)}"
        assert self.dram_bytes >= sum(self.compulsory.values()), "less DRAM traffic than the layer needs"

    @property
    def dram_bytes(self) -> int:
        """DRAM traffic in bytes."""
        return sum(self.dram.values())

    @property
    def utilisation(self) -> float:
        """Share of the lane-cycles with an effective operation."""
        return self.useful / (self.lanes * self.cycles)


def dram(*, inputs: float, weights: float, outputs: float, buffer: int) -> dict[str, int]:
    """Return DRAM bytes of a layer that keeps one operand in half of the buffer and streams the other.

    If the resident operand does not fit, the other is fetched once per part; the cheaper order is chosen. Outputs are
    written once: partial sums stay on the chip.
    """
    half = buffer / 2
    by_inputs = weights * max(1, math.ceil(inputs / half))
    by_weights = inputs * max(1, math.ceil(weights / half))
    if inputs + by_inputs <= weights + by_weights:
        moved = {"inputs": inputs, "weights": by_inputs, "outputs": outputs}
    else:
        moved = {"inputs": by_weights, "weights": weights, "outputs": outputs}
    return {name: math.ceil(size) for name, size in moved.items()}


def once(*, inputs: float, weights: float, outputs: float) -> dict[str, int]:
    """Return the compulsory DRAM bytes of a layer."""
    return {name: math.ceil(size) for name, size in (("inputs", inputs), ("weights", weights), ("outputs", outputs))}


def masked(positions: float, nonzero: float, bits: int) -> float:
    """Return the bytes of a bit mask and the packed non-zeros."""
    return (positions + nonzero * bits) / 8


def run_length(positions: float, nonzero: float, bits: int, run_bits: int) -> float:
    """Return the bytes of the non-zeros with a zero run each, or of the plain tensor if that is smaller.

    Padding zeros for runs longer than 2**run_bits - 1 are ignored.
    """
    return min(positions * bits, nonzero * (bits + run_bits)) / 8


def too_small(layer: str, field: str, value: float, needed: float, what: str) -> BadInput:
    """Return the error for a memory that cannot hold one tile."""
    return BadInput(
        f"layer {layer!r}: {field} = {value:g} is too small for one tile ({what}); it must be at least {needed:g}"
    )
