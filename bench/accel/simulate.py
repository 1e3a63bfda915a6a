"""Simulation of a workload on one or several designs: the cost of each layer, and the totals.

    result = simulate(networks.named("resnet18-32"), designs.design("escalate"))

Layers run in sequence at batch 1. Each reads its inputs and weights from DRAM and writes its outputs back, in the
design's compressed format. Its latency is the larger of compute time and DRAM time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tprune.bench.accel.counts import Counts
from tprune.bench.accel.energy import COMPONENTS, FORTY_FIVE, Prices, spent
from tprune.bench.accel.hardware import Hardware
from tprune.bench.accel.layer import Layer, Workload
from tprune.bench.accel.task import Task, prepare


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer on one design: `time` in cycles, the larger of compute and DRAM, and `energy` by component."""

    layer: Layer
    counts: Counts
    time: int
    energy: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """A network on one design; energy is in the unit of `prices`."""

    workload: Workload
    hardware: Hardware
    prices: Prices
    exact: bool
    layers: tuple[LayerResult, ...]

    def __repr__(self) -> str:
        where, energy = f"{self.workload.network} on {self.hardware.name}", sum(self.energy.values())
        return f"Result({where}: {self.latency_ms:.3g} ms, {energy:.3g} {self.prices.unit})"

    @property
    def accuracy(self) -> float | None:
        """Accuracy (0 to 1) of the network that the design runs; None if unknown."""
        plain = self.workload.plain if not self.hardware.model.decomposed else None
        return (plain or self.workload).accuracy

    @property
    def cycles(self) -> int:
        """Cycles of the whole network, including DRAM stalls."""
        return sum(layer.time for layer in self.layers)

    @property
    def compute_cycles(self) -> int:
        """Cycles with unlimited DRAM bandwidth."""
        return sum(layer.counts.cycles for layer in self.layers)

    @property
    def latency_ms(self) -> float:
        """Latency of one image in milliseconds."""
        return self.cycles / self.hardware.number("clock_mhz") / 1e3

    @property
    def dram_bytes(self) -> int:
        """DRAM traffic in bytes."""
        return sum(layer.counts.dram_bytes for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Share of all lane-cycles with an effective operation, DRAM stalls excluded."""
        return sum(x.counts.useful for x in self.layers) / sum(x.counts.lanes * x.counts.cycles for x in self.layers)

    @property
    def energy(self) -> dict[str, float]:
        """Energy by component."""
        return {part: math.fsum(layer.energy[part] for layer in self.layers) for part in COMPONENTS}

    @property
    def losses(self) -> dict[str, float]:
        """Share of all lane-cycles lost, by cause."""
        total = sum(layer.counts.lanes * layer.counts.cycles for layer in self.layers)
        causes = dict.fromkeys(cause for layer in self.layers for cause in layer.counts.losses)
        return {cause: sum(x.counts.losses.get(cause, 0) for x in self.layers) / total for cause in causes}


def simulate(
    workload: Workload, hardware: Hardware, prices: Prices = FORTY_FIVE, *, exact: bool = False, seed: int = 0
) -> Result:
    """Simulate a workload on one design."""
    return simulate_all(workload, [hardware], prices, exact=exact, seed=seed)[0]


def simulate_all(
    workload: Workload,
    designs: Sequence[Hardware],
    prices: Prices = FORTY_FIVE,
    *,
    exact: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Simulate a workload on each design; all use the same masks, or those of `workload.plain`."""
    rows: list[list[LayerResult]] = [[] for _ in designs]
    for number, (task, plain) in enumerate(_pairs(workload, exact=exact, seed=seed)):
        for hardware, found in zip(designs, rows, strict=True):
            found.append(run(task if hardware.model.decomposed else plain, hardware, prices))
        if progress:
            progress(number + 1, len(workload.layers))
    return [
        Result(workload, hardware, prices, exact, tuple(found)) for hardware, found in zip(designs, rows, strict=True)
    ]


def _pairs(workload: Workload, *, exact: bool, seed: int) -> Iterator[tuple[Task, Task]]:
    """Yield each layer twice: for designs that run decomposed layers, and for the others."""
    ours = tasks(workload, exact=exact, seed=seed)
    if workload.plain is None:
        yield from ((task, task) for task in ours)
    else:
        yield from zip(ours, tasks(workload.plain, exact=exact, seed=seed), strict=True)


def tasks(workload: Workload, *, exact: bool, seed: int = 0) -> Iterator[Task]:
    """Yield the layers ready for counting; a layer's output has the density of the next layer's input, the last one 1.

    This approximates the outputs of residual branches, which are taken in the order of the list.
    """
    following = [layer.activations.share(exact=exact) for layer in workload.layers[1:]] + [1.0]
    for layer, density in zip(workload.layers, following, strict=True):
        yield prepare(layer, density, exact=exact, seed=seed)


def run(task: Task, hardware: Hardware, prices: Prices = FORTY_FIVE) -> LayerResult:
    """Simulate one layer on one design."""
    counts = hardware.model.count(task, hardware)
    stall_free = math.ceil(counts.dram_bytes / hardware.bytes_per_cycle)
    return LayerResult(task.layer, counts, max(counts.cycles, stall_free), spent(counts, prices))
