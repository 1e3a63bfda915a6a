"""Targets from the ESCALATE paper beside simulated numbers: a target is always the paper's, a simulated number ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tprune.bench.accel.hardware import RECALLED, SEEN
from tprune.bench.accel.layer import Workload
from tprune.bench.accel.simulate import Result

DENSE, SPARSE = ("eyeriss", "eyeriss-168"), ("scnn", "sparten")
SMALL_IMAGE = 64  # pixels per side; networks for images up to this size are compared with the paper's CIFAR-10 number


@dataclass(frozen=True, slots=True)
class Target:
    """A number of the paper: "seen" in its abstract, or "recalled", attributed to it but not verified."""

    value: float
    confidence: str

    @property
    def standing(self) -> str:
        """The confidence as text."""
        return "in its abstract" if self.confidence == SEEN else "given for it, not verified"


CIFAR = Target(325, SEEN)
IMAGENET = Target(11, SEEN)
LATENCY = {"dense": Target(17.9, RECALLED), "sparse": Target(2.16, RECALLED)}
ENERGY = {"dense": Target(8.3, RECALLED), "sparse": Target(3.77, RECALLED)}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the summary: a quantity, the paper's target and our simulated value."""

    network: str
    source: str
    quantity: str
    target: Target
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated value divided by the target."""
        return self.simulated / self.target.value


def compression(workload: Workload) -> Target:
    """Return the paper's best compression for images of this size."""
    return CIFAR if workload.layers[0].shape.size[0] <= SMALL_IMAGE else IMAGENET


def summary(results: Sequence[Result], compressed: float) -> list[Line]:
    """Return the lines of one network; those that need a design that was not simulated are omitted."""
    by_name = {result.hardware.name: result for result in results}
    workload = results[0].workload

    def line(quantity: str, target: Target, simulated: float) -> Line:
        return Line(workload.network, workload.source, quantity, target, simulated)

    lines = [line("compression", compression(workload), compressed)]
    if "escalate" not in by_name:
        return []
    for name in DENSE:
        if name in by_name:
            time, energy = gain(by_name["escalate"], [by_name[name]])
            lines += [
                line(f"latency over dense ({name})", LATENCY["dense"], time),
                line(f"energy over dense ({name})", ENERGY["dense"], energy),
            ]
    if rivals := [by_name[name] for name in SPARSE if name in by_name]:
        time, energy = gain(by_name["escalate"], rivals)
        names = ", ".join(result.hardware.name for result in rivals)
        lines += [
            line(f"latency over sparse ({names})", LATENCY["sparse"], time),
            line(f"energy over sparse ({names})", ENERGY["sparse"], energy),
        ]
    return lines


def gain(ours: Result, rivals: Sequence[Result]) -> tuple[float, float]:
    """Return the speed-up and energy gain of `ours` over the rivals (geometric mean of several)."""
    times = [rival.latency_ms / ours.latency_ms for rival in rivals]
    energies = [sum(rival.energy.values()) / sum(ours.energy.values()) for rival in rivals]
    return math.prod(times) ** (1 / len(times)), math.prod(energies) ** (1 / len(energies))


def averages(lines: Sequence[Line]) -> list[Line]:
    """Return the geometric mean over networks of each quantity that several have, except compression."""
    by_quantity: Mapping[str, list[Line]] = {}
    for line in lines:
        if line.quantity != "compression":
            by_quantity = {**by_quantity, line.quantity: [*by_quantity.get(line.quantity, []), line]}
    return [
        Line(
            f"all {len(found)} networks",
            "synthetic" if any(line.source == "synthetic" for line in found) else "trained",
            quantity,
            found[0].target,
            math.prod(line.simulated for line in found) ** (1 / len(found)),
        )
        for quantity, found in by_quantity.items()
        if len(found) > 1
    ]
