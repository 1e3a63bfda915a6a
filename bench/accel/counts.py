"""What a model counts for one layer; the books must balance, or the model is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tprune.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Access:
    """Traffic of one memory level in bytes; `capacity` (bytes of one instance) decides what a byte costs."""

    level: str
    capacity: float
    reads: float
    writes: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of one layer: compute `cycles` of `lanes` arithmetic units, what they did, and the traffic it took.

    `useful` lane-cycles did an effective operation; `losses` name what the others were lost to, and both sum to
    lanes * cycles. `operations` are counts by kind (energy.OPERATIONS), `noc` bytes between units,
    `dram` bytes of inputs, weights and outputs with re-fetching, `compulsory` the same moved once.
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
        """Bytes to and from DRAM."""
        return sum(self.dram.values())

    @property
    def utilisation(self) -> float:
        """Share of the lane-cycles that did an effective operation."""
        return self.useful / (self.lanes * self.cycles)


def dram(*, inputs: float, weights: float, outputs: float, buffer: int) -> dict[str, int]:
    """Return DRAM bytes of one layer that keeps one operand in half the buffer and streams the other past it.

    Where the resident operand needs several fillings the other is fetched as often; the cheaper order is taken.
    Outputs leave once: partial sums stay on the chip.
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
    """Return the bytes of a layer that cross the DRAM at least."""
    return {name: math.ceil(size) for name, size in (("inputs", inputs), ("weights", weights), ("outputs", outputs))}


def masked(positions: float, nonzero: float, bits: int) -> float:
    """Return bytes of a bit mask and the packed non-zeros."""
    return (positions + nonzero * bits) / 8


def run_length(positions: float, nonzero: float, bits: int, run_bits: int) -> float:
    """Return bytes of non-zeros with a zero run each, or of the plain tensor where that is smaller.

    Zeros that a run longer than 2**run_bits - 1 would store are left out.
    """
    return min(positions * bits, nonzero * (bits + run_bits)) / 8


def too_small(layer: str, field: str, value: float, needed: float, what: str) -> BadInput:
    """Return the error of a memory that cannot hold one tile."""
    return BadInput(
        f"layer {layer!r}: {field} = {value:g} is too small for one tile ({what}); it takes at least {needed:g}"
    )
