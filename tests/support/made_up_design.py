"""A design of somebody else's: dense, 100 multipliers, all of them always busy but in the last cycle."""

from __future__ import annotations

from tprune.bench.accel.counts import Access, Counts, dram, once
from tprune.bench.accel.hardware import CHOSEN, EQUAL, Constant, Hardware, Model
from tprune.bench.accel.task import Task


def count(task: Task, hardware: Hardware) -> Counts:
    """Return the events of one layer."""
    shape, lanes = task.shape, hardware.multipliers
    cycles = -(-shape.macs // lanes)
    moved = {"inputs": shape.ifmap, "weights": shape.weights, "outputs": shape.ofmap}
    return Counts(
        cycles, lanes, shape.macs, {"last cycle": cycles * lanes - shape.macs}, {"mac8": shape.macs}, 0.0,
        (Access("buffer", hardware.number("buffer_bytes"), shape.ifmap, shape.ofmap),),
        dram(**moved, buffer=hardware.count("buffer_bytes")), once(**moved),
    )  # fmt: skip


MADE_UP = Hardware(
    "made-up",
    Model("made-up", count, ("lanes",)),
    {**EQUAL, "lanes": Constant(100, "made up", CHOSEN)},
    "#123456",
)
