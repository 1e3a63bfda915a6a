"""Energy model: prices of events, and the energy of a layer by component.

There are two tables, because conclusions must hold under both: absolute picojoules of a 45 nm process, and the
normalised costs of the Eyeriss analysis (ISCA'16), in units of one 16-bit multiply-accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tprune.bench.accel.counts import Counts

COMPONENTS = ("arithmetic", "control", "local", "network", "buffer", "dram")
LOCAL_BYTES = 4096  # memories up to this size are local to a unit, larger ones are shared buffers (our choice)

# operation -> component; `mac8`, `mac16`: multiply and accumulate; `gated`: a MAC skipped because of a zero
OPERATIONS = {
    "mac8": "arithmetic",
    "mac16": "arithmetic",
    "gated": "arithmetic",
    "add": "arithmetic",
    "prefix_sum": "control",
    "encode": "control",
    "select": "control",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """Energy per operation, and per byte of a memory by its capacity, of the network between units, and of DRAM."""

    name: str
    unit: str
    operations: Mapping[str, float]
    memory: Callable[[float], float]
    noc: float
    dram: float


def sram(capacity: float) -> float:
    """Return pJ per byte of a memory of `capacity` bytes.

    8 kB cost 10 pJ per 64 bits (Horowitz), scaled with the square root of the size (our rule; within 15 % of the
    recalled 1 MB value), at least a small scratch pad's 0.197 pJ per 16 bits (Sparseloop's Eyeriss table).
    """
    return max(0.0985, 1.25 * math.sqrt(capacity / 8192))


def normalised(capacity: float) -> float:
    """Return the cost of a byte in the Eyeriss analysis: register file 1, global buffer 6 per 16-bit word."""
    return 0.5 if capacity <= LOCAL_BYTES else 3.0


FORTY_FIVE = Prices(
    "45nm",
    "pJ",
    {
        "mac8": 0.25,  # multiply 0.2, 16-bit add 0.05: Horowitz 45 nm [seen]
        "mac16": 1.1,  # multiply about 1.0 (esim's estimate), 32-bit add 0.1: Horowitz [seen]
        "gated": 0.03,  # 3 % of a 16-bit MAC: Sparseloop's Eyeriss table has 0.066 of 2.2 [inferred]
        "add": 0.05,  # 16-bit add: Horowitz [seen]
        "prefix_sum": 1.88,  # SparTen's 48 mW over 32 units at 800 MHz [inferred]
        "encode": 0.25,  # SparTen's 6.4 mW over 32 units at 800 MHz [inferred]
        "select": 0.25,  # ESCALATE's mask AND and select: priced like an encoder [chosen, swept]
    },
    sram,
    0.2,  # two register accesses a byte, the ratio of the Eyeriss analysis [inferred]
    64.0,  # 8 pJ/bit, LPDDR class: 512 pJ per 64 bits in two published tables [seen]
)
NORMALISED = Prices(
    "eyeriss",
    "MAC",
    {
        "mac8": 1.0,
        "mac16": 1.0,
        "gated": 0.03,
        "add": 0.2,  # ratios of the 45 nm table: not in the analysis [inferred]
        "prefix_sum": 7.5,
        "encode": 1.0,
        "select": 1.0,
    },
    normalised,
    1.0,  # inter-PE 2 per 16-bit word [seen]
    100.0,  # DRAM 200 per 16-bit word [seen]
)


def spent(counts: Counts, prices: Prices) -> dict[str, float]:
    """Return the energy of a layer by component, in the unit of `prices`."""
    parts = dict.fromkeys(COMPONENTS, 0.0)
    for operation, number in counts.operations.items():
        parts[OPERATIONS[operation]] += number * prices.operations[operation]
    for access in counts.accesses:
        component = "local" if access.capacity <= LOCAL_BYTES else "buffer"
        parts[component] += (access.reads + access.writes) * prices.memory(access.capacity)
    parts["network"] += counts.noc * prices.noc
    parts["dram"] += counts.dram_bytes * prices.dram
    return parts
