"""What a simulated design is: a model that counts events, and constants with their source and confidence.

Confidence: "seen" in a published text or code, "inferred" from such a fact, "recalled" (not verified: do not quote it
as a paper's number), "chosen" by us because nothing is documented (these are varied in the sweep), "given" by a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tprune.base.errors import BadInput

if TYPE_CHECKING:
    from tprune.bench.accel.counts import Counts
    from tprune.bench.accel.task import Task

SEEN, INFERRED, RECALLED, CHOSEN = "seen", "inferred", "recalled", "chosen"


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, its source in a few words, and its confidence."""

    value: float
    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class Model:
    """A dataflow: `count` returns the events of a layer; the product of the constants `multipliers` is their number.

    `switches` are constants that are 0 or 1; `decomposed`: the design runs decomposed layers where there are any.
    """

    name: str
    count: Callable[[Task, Hardware], Counts]
    multipliers: tuple[str, ...]
    switches: tuple[str, ...] = ()
    decomposed: bool = False


@dataclass(frozen=True, slots=True)
class Hardware:
    """A design: its model, its constants by name, and its colour in figures (empty: any)."""

    name: str
    model: Model
    constants: Mapping[str, Constant]
    colour: str = ""

    def __post_init__(self) -> None:
        for field, constant in self.constants.items():
            if field in self.model.switches:
                if constant.value not in (0, 1):
                    raise BadInput(f"Hardware.{field} of {self.name!r} is {constant.value:g}; it must be 0 or 1")
            elif not constant.value > 0:
                raise BadInput(f"Hardware.{field} of {self.name!r} is {constant.value:g}; it must be above 0")

    def __repr__(self) -> str:
        return f"Hardware({self.name}, {self.multipliers} multipliers)"

    def number(self, field: str) -> float:
        """Return a constant."""
        return self.constants[field].value

    def count(self, field: str) -> int:
        """Return a constant as an integer."""
        return int(self.constants[field].value)

    def having(self, source: str, **values: float) -> Hardware:
        """Return the design with other values, which come from `source`."""
        changed = {field: Constant(value, source, "given") for field, value in values.items()}
        return replace(self, constants={**self.constants, **changed})

    @property
    def multipliers(self) -> int:
        """Multipliers on the chip."""
        return prod(self.count(field) for field in self.model.multipliers)

    @property
    def bytes_per_cycle(self) -> float:
        """DRAM bandwidth in bytes per clock cycle."""
        return self.number("dram_gb_s") * 1e3 / self.number("clock_mhz")


EQUAL = {  # shared by all designs that are scaled to equal resources
    "clock_mhz": Constant(800, "SparTen's 45 nm clock (third-party copy of its Table 4), taken for all", SEEN),
    "bits": Constant(8, "same precision for all designs", CHOSEN),
    "buffer_bytes": Constant(512 * 1024, "same shared buffer for all designs", CHOSEN),
    "dram_gb_s": Constant(12.8, "64-bit DDR3-1600, same for all designs", CHOSEN),
}
