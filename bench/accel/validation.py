"""Validation of the models: published silicon and the ratios in the abstracts, beside the simulated values.

The per-layer densities of pruned AlexNet and VGG16 are recalled from the pruning literature and not verified. The
papers of the designs used such networks, but their tables were not available. SYNTHETIC, like every drawn mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tprune.bench.accel import eyeriss, networks, scnn, sparten
from tprune.bench.accel.eyeriss import EYERISS_CHIP
from tprune.bench.accel.hardware import Hardware
from tprune.bench.accel.layer import DENSE, Layer, Operand, Workload
from tprune.bench.accel.scnn import SCNN
from tprune.bench.accel.simulate import tasks
from tprune.bench.accel.sparten import SPARTEN, SPARTEN_PLAIN
from tprune.bench.accel.task import prepare

QUEUED = SCNN.having("products queue before the banks", queued=1)
BATCH = 4  # images of the published Eyeriss measurement

# Eyeriss, AlexNet, batch 4, 200 MHz: layer -> active PEs, processing latency in ms (JSSC'17 Table V, as nn_dataflow's
# tests quote it) [seen]
SILICON: Mapping[str, tuple[int, float]] = {
    "conv1": (154, 16.5),
    "conv2": (135, 39.2),
    "conv3": (156, 21.8),
    "conv4": (156, 16.0),
    "conv5": (156, 10.0),
}
DRAM_PER_MAC = 0.0029  # the same chip and network, batch 4 [seen]
# Per convolution: weights, input activations [recalled]
ALEXNET = ((0.84, 1.0), (0.38, 0.88), (0.35, 0.52), (0.37, 0.37), (0.37, 0.40))
VGG16 = (
    (0.58, 1.0), (0.22, 0.53), (0.34, 0.89), (0.36, 0.80), (0.53, 0.81), (0.24, 0.68), (0.42, 0.70),
    (0.32, 0.64), (0.27, 0.51), (0.34, 0.45), (0.35, 0.34), (0.29, 0.32), (0.36, 0.29),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """A published number and the simulated one; `within` is the accepted range of their ratio."""

    what: str
    published: float
    source: str
    simulated: float
    within: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Simulated value divided by the published one."""
        return self.simulated / self.published

    @property
    def passed(self) -> bool:
        """Whether the ratio is in the accepted range."""
        return self.within[0] <= self.ratio <= self.within[1]


def silicon() -> list[Check]:
    """Compare Eyeriss' measured AlexNet convolutions with the row-stationary model."""
    found = []
    for layer in networks.named("alexnet-224").layers:
        if layer.name in SILICON:
            active, latency = SILICON[layer.name]
            mapping = eyeriss.place(layer.name, layer.shape, EYERISS_CHIP)
            counts = eyeriss.count(prepare(layer, 1.0, exact=False), EYERISS_CHIP)
            ours = BATCH * counts.cycles / EYERISS_CHIP.number("clock_mhz") / 1e3
            source = "JSSC'17 Table V"
            found += [
                Check(f"Eyeriss AlexNet {layer.name}: active PEs", active, source, mapping.active, (1.0, 1.0)),
                Check(f"Eyeriss AlexNet {layer.name}: ms, batch 4", latency, source, ours, (0.8, 1.2)),
            ]
    what = f"Eyeriss AlexNet: DRAM accesses per MAC, batch {BATCH}"
    return [*found, Check(what, DRAM_PER_MAC, "JSSC'17 abstract", dram_per_mac(), (0.75, 1.25))]


def dram_per_mac() -> float:
    """Return DRAM accesses (16-bit words) per MAC at the recalled densities, weights fetched once per batch."""
    words = macs = 0.0
    for task in tasks(pruned()[0], exact=False):
        moved = eyeriss.count(task, EYERISS_CHIP).dram
        words += (moved["inputs"] + moved["outputs"] + moved["weights"] / BATCH) / 2
        macs += task.shape.macs
    return words / macs


def abstracts(*, exact: bool = False) -> list[Check]:
    """Compare the average ratios in SCNN's and SparTen's abstracts with ours on pruned AlexNet and VGG16.

    Compute cycles only; the average is the geometric mean over the two networks (GoogLeNet, which the papers also
    used, is missing).
    """
    totals = [cycles(workload, exact=exact) for workload in pruned()]

    def mean(slow: str, fast: str) -> float:
        return math.prod(total[slow] / total[fast] for total in totals) ** (1 / len(totals))

    band = (0.75, 1.25)
    return [
        Check("SCNN over dense", 2.7, "its abstract", mean("planar dense", "scnn"), band),
        Check("SCNN over dense, queued banks", 2.7, "its abstract", mean("planar dense", "scnn queued"), band),
        Check("SparTen over dense", 4.7, "its abstract", mean("chunked dense", "sparten"), band),
        Check("SparTen over one-sided", 1.8, "its abstract", mean("one-sided", "sparten"), band),
        Check("SparTen over SCNN", 3.0, "its abstract", mean("scnn", "sparten"), band),
    ]


def pruned() -> list[Workload]:
    """Return the convolutions of AlexNet and VGG16 at 224x224 with the recalled densities."""
    found = []
    for name, densities in (("alexnet-224", ALEXNET), ("vgg16-224", VGG16)):
        layers = [layer for layer in networks.named(name).layers if layer.name.startswith("conv")]
        sparse = tuple(
            replace(layer, weights=Operand(weights), activations=Operand(inputs), decomposition=None)
            for layer, (weights, inputs) in zip(layers, densities, strict=True)
        )
        found.append(Workload(f"{name} pruned", "synthetic", sparse, note="densities recalled, not verified"))
    return found


def cycles(workload: Workload, *, exact: bool) -> dict[str, int]:
    """Return compute cycles of SCNN, SparTen and their dense and one-sided baselines."""
    sums = dict.fromkeys(("planar dense", "chunked dense", "one-sided", "scnn", "scnn queued", "sparten"), 0)
    for layer in workload.layers:
        task = prepare(layer, 1.0, exact=exact)
        dense_weights = prepare(replace(layer, weights=DENSE), 1.0, exact=exact)
        sums["planar dense"] += planar(layer, SCNN)
        sums["chunked dense"] += chunked(layer, SPARTEN)
        sums["one-sided"] += sparten.count(dense_weights, SPARTEN_PLAIN).cycles
        sums["scnn"] += scnn.count(task, SCNN).cycles
        sums["scnn queued"] += scnn.count(task, QUEUED).cycles
        sums["sparten"] += sparten.count(task, SPARTEN).cycles
    return sums


def planar(layer: Layer, hardware: Hardware) -> int:
    """Return cycles of a dense design like SCNN: one tile of the output plane per PE, all multipliers busy."""
    shape, tiling = layer.shape, scnn.tile(layer.name, layer.shape, hardware)
    vector = hardware.count("weight_lanes") * hardware.count("activation_lanes")
    return math.ceil(tiling.outside[0] * tiling.outside[1] * shape.weights / vector)


def chunked(layer: Layer, hardware: Hardware) -> int:
    """Return cycles of a dense design like SparTen: one filter per unit, (position, set) items per cluster."""
    shape = layer.shape
    sets = math.ceil(shape.outputs // shape.groups / hardware.count("units"))
    items = shape.groups * shape.pixels * sets
    return math.ceil(items / hardware.count("clusters")) * shape.depth * shape.area
