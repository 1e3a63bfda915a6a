"""A workload on several designs: what each layer costs, and the sums.

    result = simulate(networks.named("resnet18-32"), hardware.ESCALATE)

Layers run one after another, batch 1; each reads its inputs and weights from DRAM and writes its outputs back, in the
design's own compressed format; its latency is the larger of compute and DRAM time.
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
    """One layer on one design; `time` in cycles is the larger of compute and DRAM, `energy` is by component."""

    layer: Layer
    counts: Counts
    time: int
    energy: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """A network on one design; energies in the unit of `prices`."""

    workload: Workload
    hardware: Hardware
    prices: Prices
    exact: bool
    layers: tuple[LayerResult, ...]

    @property
    def accuracy(self) -> float | None:
        """That of the network which the design runs, a share of 1; None where it is not known."""
        plain = self.workload.plain if not self.hardware.model.decomposed else None
        return (plain or self.workload).accuracy

    @property
    def cycles(self) -> int:
        """Cycles of the whole network, DRAM stalls among them."""
        return sum(layer.time for layer in self.layers)

    @property
    def compute_cycles(self) -> int:
        """Cycles with a DRAM of endless bandwidth."""
        return sum(layer.counts.cycles for layer in self.layers)

    @property
    def latency_ms(self) -> float:
        """Milliseconds of one image."""
        return self.cycles / self.hardware.number("clock_mhz") / 1e3

    @property
    def dram_bytes(self) -> int:
        """Bytes to and from DRAM."""
        return sum(layer.counts.dram_bytes for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Share of the lane-cycles of all layers, DRAM stalls not counted, that did an effective operation."""
        return sum(x.counts.useful for x in self.layers) / sum(x.counts.lanes * x.counts.cycles for x in self.layers)

    @property
    def energy(self) -> dict[str, float]:
        """Energy by component."""
        return {part: math.fsum(layer.energy[part] for layer in self.layers) for part in COMPONENTS}

    @property
    def losses(self) -> dict[str, float]:
        """Share of all lane-cycles lost to each cause."""
        total = sum(layer.counts.lanes * layer.counts.cycles for layer in self.layers)
        causes = dict.fromkeys(cause for layer in self.layers for cause in layer.counts.losses)
        return {cause: sum(x.counts.losses.get(cause, 0) for x in self.layers) / total for cause in causes}


def simulate(
    workload: Workload, hardware: Hardware, prices: Prices = FORTY_FIVE, *, exact: bool = False, seed: int = 0
) -> Result:
    """Return what a workload costs on one design."""
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
    """Return what a workload costs on each design; every design sees the same masks, or those of `workload.plain`."""
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
    """Yield each layer as the design with bases runs it, and as the others do."""
    ours = tasks(workload, exact=exact, seed=seed)
    if workload.plain is None:
        yield from ((task, task) for task in ours)
    else:
        yield from zip(ours, tasks(workload.plain, exact=exact, seed=seed), strict=True)


def tasks(workload: Workload, *, exact: bool, seed: int = 0) -> Iterator[Task]:
    """Yield the layers ready for counting; a layer's output is as dense as the next one's input, the last one's full.

    Branches of a residual network are taken in the order of the list: for their outputs that is an approximation.
    """
    following = [layer.activations.share(exact=exact) for layer in workload.layers[1:]] + [1.0]
    for layer, density in zip(workload.layers, following, strict=True):
        yield prepare(layer, density, exact=exact, seed=seed)


def run(task: Task, hardware: Hardware, prices: Prices = FORTY_FIVE) -> LayerResult:
    """Return what one layer costs on one design."""
    counts = hardware.model.count(task, hardware)
    stall_free = math.ceil(counts.dram_bytes / hardware.bytes_per_cycle)
    return LayerResult(task.layer, counts, max(counts.cycles, stall_free), spent(counts, prices))
