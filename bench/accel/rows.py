"""The rows of a simulation, one per network and design: the fields that tests and reports rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tprune.bench.accel.layer import Workload
from tprune.bench.accel.simulate import Result
from tprune.bench.accel.storage import ORIGINAL_BITS, Size
from tprune.bench.accel.targets import compression

FORMAT = ("bit mask", True)  # index format of ESCALATE's weights in a row, with channel shrinking


@dataclass(frozen=True, slots=True)
class Row:
    """One network on one design, batch 1.

    `cycles` include DRAM stalls, `utilisation` does not; `compression` is of the weights, relative to 32-bit floats;
    `target` is the paper's compression for ESCALATE, `accuracy` that of the trained network, if known.
    """

    network: str
    source: str
    design: str
    cycles: int
    utilisation: float
    energy_pj: float
    dram_bytes: int
    latency_ms: float
    compression: float
    accuracy: float | None
    target: float | None
    command: str


def row(result: Result, sizes: dict[tuple[str, bool], Size], command: str) -> Row:
    """Return the row of a result."""
    ours = result.hardware.model.decomposed
    return Row(
        result.workload.network,
        result.workload.source,
        result.hardware.name,
        result.cycles,
        result.utilisation,
        sum(result.energy.values()),
        result.dram_bytes,
        result.latency_ms,
        sizes[FORMAT].ratio if ours else kept(result),
        result.accuracy,
        compression(result.workload).value if ours else None,
        command,
    )


def kept(result: Result) -> float:
    """Return the size of the uncompressed weights divided by what the design fetches."""
    original = sum(one.layer.dense_weights for one in result.layers) * ORIGINAL_BITS / 8
    return original / max(1, sum(layer.counts.compulsory["weights"] for layer in result.layers))


def layer_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the cost of every layer on every design."""
    return [
        {
            "network": result.workload.network,
            "design": result.hardware.name,
            "layer": one.layer.name,
            "macs": one.layer.shape.macs,
            "cycles": one.time,
            "compute_cycles": one.counts.cycles,
            "useful": one.counts.useful,
            "losses": dict(one.counts.losses),
            "lane_cycles": one.counts.lanes * one.counts.cycles,
            "energy_pj": dict(one.energy),
            "dram_bytes": dict(one.counts.dram),
            "accesses": [asdict(access) for access in one.counts.accesses],
        }
        for result in results
        for one in result.layers
    ]


def size_rows(workload: Workload, sizes: dict[tuple[str, bool], Size]) -> list[dict[str, Any]]:
    """Return the compressed sizes in bits, by index format, with and without channel shrinking."""
    return [
        {
            "network": workload.network,
            "source": workload.source,
            "format": name,
            "shrunk": shrink,
            **asdict(size),
            "compressed": size.compressed,
            "compression": size.ratio,
        }
        for (name, shrink), size in sizes.items()
    ]
