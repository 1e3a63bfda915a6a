"""SCNN (Parashar et al., ISCA'17): the Cartesian product of a channel's non-zero weights and a tile's activations.

The plane is split into one tile per PE. For each input channel and each group of Kc output channels, a PE multiplies
its non-zeros, F weights by I activations per step. The products are scattered into accumulator banks: a step takes as
many cycles as its busiest bank receives products; with queues, only a whole channel waits for its fullest bank. PEs
synchronise after each channel. After a group, sums that belong to a neighbour's tile (the halo) are exchanged. Strides
are split into phases; products outside the output plane are discarded. The algorithm is that of DNNsim; tiles are of
the unpadded input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tprune.bench.accel.counts import Access, Counts, dram, once, run_length, too_small
from tprune.bench.accel.hardware import EQUAL, RECALLED, SEEN, Constant, Hardware, Model
from tprune.bench.accel.layer import Shape
from tprune.bench.accel.task import Task

Numbers = NDArray[np.int64]
MOST_PRODUCTS = 1 << 21  # at a time, to limit memory
SAMPLES = 40  # channels sampled for bank conflicts in statistical fidelity; a fifth of that on large planes
SAMPLED_PLANES = 1 << 14  # positions in all of them
SAMPLED_PRODUCTS = 1 << 13  # in each of them


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tile of a PE in input and output positions, output channels per group (`together`, Kc), halo sums of each."""

    inside: tuple[int, int]
    outside: tuple[int, int]
    together: int
    halo: int


@dataclass(frozen=True, slots=True)
class Operands:
    """Non-zeros by stride phase: activations (phases, C, PEs) and weights (phases, C, groups of Kc)."""

    activations: Numbers
    weights: Numbers


@dataclass(frozen=True, slots=True)
class Work:
    """Totals of a layer: compute `cycles` without halo, steps, bank conflicts, products, and `valid` products."""

    cycles: int
    steps: int
    conflicts: int
    products: int
    valid: int


def tile(layer: str, shape: Shape, hardware: Hardware) -> Tiling:
    """Return the distribution of a layer over the PEs."""
    grid = (hardware.count("pe_rows"), hardware.count("pe_columns"))
    inside = (math.ceil(shape.size[0] / grid[0]), math.ceil(shape.size[1] / grid[1]))
    outside = (math.ceil(shape.out_size[0] / grid[0]), math.ceil(shape.out_size[1] / grid[1]))
    area = outside[0] * outside[1]
    together = hardware.count("accumulators") // area
    if not together:
        need = f"the {outside[0]}x{outside[1]} sums of one output channel"
        raise too_small(layer, "accumulators", hardware.number("accumulators"), area, need)
    return Tiling(inside, outside, min(together, shape.outputs // shape.groups), _halo(shape, outside))


def _halo(shape: Shape, outside: tuple[int, int]) -> int:
    """Return the number of sums in the largest of the eight neighbouring regions reached by a tile."""
    high, wide = (
        (math.ceil(max(0, length - 1 - border) / step), side, math.ceil(border / step))
        for length, side, step, border in zip(shape.kernel, outside, shape.strides, shape.paddings, strict=True)
    )
    return max(y * x for row, y in enumerate(high) for column, x in enumerate(wide) if (row, column) != (1, 1))


def bank(channel: Numbers, x: Numbers, y: Numbers, banks: int) -> Numbers:
    """Return the accumulator bank of an output; neighbouring positions and channels differ (DNNsim)."""
    swapped = ((channel & 4) << 2) ^ ((x & 2) << 3) ^ ((y & 2) << 3)
    return (swapped + ((x & 1) << 3) + ((y & 1) << 2) + (channel & 3)) % banks


def count(task: Task, hardware: Hardware) -> Counts:
    """Return the events of one layer on SCNN."""
    shape, tiling = task.shape, tile(task.layer.name, task.shape, hardware)
    operands = _operands(task, tiling, hardware)
    work = _exact(task, tiling, hardware) if task.exact else _sampled(task, tiling, operands, hardware)
    sizes = _group_sizes(shape, tiling)
    halo = tiling.halo * sum(sizes) * shape.groups
    pes = operands.activations.shape[2]
    vector = hardware.count("weight_lanes") * hardware.count("activation_lanes")
    cycles = max(1, work.cycles + halo)
    losses = {
        "incomplete vectors": work.steps * vector - work.products,
        "outside the plane": work.products - work.valid,
        "bank conflicts": work.conflicts * vector,
        "halo": (cycles - work.cycles) * pes * vector,
        "waiting for other PEs": (work.cycles * pes - work.steps - work.conflicts) * vector,
    }
    return _counts(task, hardware, operands, cycles, work, losses, halo)


def _counts(
    task: Task, hardware: Hardware, operands: Operands, cycles: int, work: Work, losses: dict[str, int], halo: int
) -> Counts:
    shape, bits, index = task.shape, hardware.count("bits"), hardware.count("index_bits")
    pes, psum, packed = operands.activations.shape[2], hardware.number("psum_bytes"), (bits + index) / 8
    rounds = operands.weights.shape[2]
    lanes = hardware.count("activation_lanes")
    weights_seen, inputs_seen = float(task.weights.sum()), float(task.activations.sum())
    streamed = float(np.einsum("fcp,fcg->", -(-operands.activations // lanes), operands.weights, dtype=float))
    inputs = run_length(shape.ifmap, inputs_seen, bits, index)
    weights = run_length(shape.weights, weights_seen, bits, index)
    outputs = run_length(shape.ofmap, shape.ofmap * task.output_density, bits, index)
    per_bank = hardware.number("accumulators") * psum / hardware.number("banks")
    per_pe = hardware.number("buffer_bytes") / pes
    buffer = hardware.count("buffer_bytes")
    return Counts(
        cycles,
        hardware.multipliers,
        work.valid,
        losses,
        {"mac8" if bits <= 8 else "mac16": work.products},
        (weights_seen * packed + halo * psum) * pes + work.valid * psum,  # weights to all PEs; the products' crossbar
        (
            Access("accumulators", per_bank, (work.valid + shape.ofmap) * psum, work.valid * psum),
            Access("weight FIFO", hardware.number("fifo_bytes"), streamed * packed, weights_seen * packed * pes),
            Access("activation RAM", per_pe, inputs_seen * rounds * packed, inputs + outputs),
            Access("weight buffer", buffer, weights, weights),
        ),
        dram(inputs=inputs, weights=weights, outputs=outputs, buffer=buffer),
        once(inputs=inputs, weights=weights, outputs=outputs),
    )


def _group_sizes(shape: Shape, tiling: Tiling) -> list[int]:
    """Return the sizes of the groups of Kc output channels in one convolution group."""
    outputs = shape.outputs // shape.groups
    return [min(tiling.together, outputs - first) for first in range(0, outputs, tiling.together)]


def _phases(shape: Shape) -> list[tuple[int, int]]:
    return [(y, x) for y in range(shape.strides[0]) for x in range(shape.strides[1])]


def _operands(task: Task, tiling: Tiling, hardware: Hardware) -> Operands:
    shape, phases = task.shape, _phases(task.shape)
    grid = (hardware.count("pe_rows"), hardware.count("pe_columns"))
    high, wide = grid[0] * tiling.inside[0], grid[1] * tiling.inside[1]
    padded = np.zeros((shape.inputs, high, wide), np.int32)
    padded[:, : shape.size[0], : shape.size[1]] = task.activations
    rows, columns = (
        (np.arange(side) + border) % step
        for side, step, border in zip((high, wide), shape.strides, shape.paddings, strict=True)
    )
    acts = np.empty((len(phases), shape.inputs, grid[0] * grid[1]), np.int64)
    for number, (y, x) in enumerate(phases):
        own = padded * ((rows == y)[:, None] & (columns == x)) if len(phases) > 1 else padded
        tiles = own.reshape(shape.inputs, grid[0], tiling.inside[0], grid[1], tiling.inside[1])
        acts[number] = tiles.sum((2, 4)).reshape(shape.inputs, -1)
    per_group = task.weights.reshape(shape.groups, shape.outputs // shape.groups, shape.depth, *shape.kernel)
    starts = np.arange(0, shape.outputs // shape.groups, tiling.together)
    held = [
        np.add.reduceat(per_group[..., y :: shape.strides[0], x :: shape.strides[1]].sum((3, 4)), starts, axis=1)
        for y, x in phases
    ]
    weights = np.array(held, np.int64).transpose(0, 1, 3, 2).reshape(len(phases), shape.inputs, len(starts))
    return Operands(acts, weights)


def _exact(task: Task, tiling: Tiling, hardware: Hardware) -> Work:
    """Return the work of every step of every PE."""
    pes = hardware.count("pe_rows") * hardware.count("pe_columns")
    totals = np.zeros(5, np.int64)
    for channel in range(task.shape.inputs):
        for group in range(len(_group_sizes(task.shape, tiling))):
            busy = np.zeros(pes, np.int64)
            for phase in _phases(task.shape):
                places = _places(task, tiling, hardware, channel, phase)
                for weights in _weights(task, tiling, hardware, len(places[0]), channel, group, phase):
                    time, steps, valid = _steps(task.shape, hardware, places, weights)
                    busy += time
                    totals[1:] += (steps, time.sum() - steps, len(places[0]) * len(weights[0]), valid)
            totals[0] += busy.max()
    return Work(*map(int, totals))


def _places(
    task: Task, tiling: Tiling, hardware: Hardware, channel: int, phase: tuple[int, int]
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return PE, y, x and step of the non-zero activations of a channel and phase, in processing order."""
    y, x = np.nonzero(task.activations[channel])
    (down, across), (above, left) = task.shape.strides, task.shape.paddings
    own = ((y + above) % down == phase[0]) & ((x + left) % across == phase[1])
    y, x = y[own], x[own]
    pe = y // tiling.inside[0] * hardware.count("pe_columns") + x // tiling.inside[1]
    order = np.argsort(pe, kind="stable")
    pe, y, x = pe[order], y[order], x[order]
    held = np.bincount(pe, minlength=hardware.count("pe_rows") * hardware.count("pe_columns"))
    steps = -(-held // hardware.count("activation_lanes"))
    within = np.arange(len(pe)) - np.repeat(np.cumsum(held) - held, held)
    step = within // hardware.count("activation_lanes") + np.repeat(np.cumsum(steps) - steps, held)
    return pe, y, x, step


def _weights(
    task: Task,
    tiling: Tiling,
    hardware: Hardware,
    activations: int,
    channel: int,
    group: int,
    phase: tuple[int, int],
    at_most: int = MOST_PRODUCTS,
) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Yield output channel, row and column of the non-zero weights, in multiples of whole steps."""
    shape, (down, across) = task.shape, task.shape.strides
    first = channel // shape.depth * (shape.outputs // shape.groups) + group * tiling.together
    last = min(first + tiling.together, (channel // shape.depth + 1) * (shape.outputs // shape.groups))
    own = task.weights[first:last, channel % shape.depth, phase[0] :: down, phase[1] :: across]
    r, s, k = np.nonzero(own.transpose(1, 2, 0))
    r, s, k = r * down + phase[0], s * across + phase[1], k + first
    lanes = hardware.count("weight_lanes")
    size = max(1, at_most // max(1, activations) // lanes) * lanes
    for start in range(0, len(k), size):
        part = slice(start, start + size)
        yield k[part], r[part], s[part]


def _steps(
    shape: Shape,
    hardware: Hardware,
    places: tuple[Numbers, Numbers, Numbers, Numbers],
    weights: tuple[Numbers, Numbers, Numbers],
) -> tuple[Numbers, int, int]:
    """Return busy cycles of each PE, steps, and products inside the plane."""
    pe, y, x, step = places
    k, r, s = weights
    pes, banks = hardware.count("pe_rows") * hardware.count("pe_columns"), hardware.count("banks")
    if not len(pe) or not len(k):
        return np.zeros(pes, np.int64), 0, 0
    across = -(-len(k) // hardware.count("weight_lanes"))
    out_y = (y[:, None] + shape.paddings[0] - r) // shape.strides[0]
    out_x = (x[:, None] + shape.paddings[1] - s) // shape.strides[1]
    valid = (out_y >= 0) & (out_y < shape.out_size[0]) & (out_x >= 0) & (out_x < shape.out_size[1])
    down = int(step[-1]) + 1
    found = int(valid.sum())
    banked = bank(np.broadcast_to(k, out_x.shape), out_x, out_y, banks)[valid]
    if hardware.count("queued"):
        steps = np.bincount(pe[np.unique(step, return_index=True)[1]], minlength=pes) * across
        owner = np.broadcast_to(pe[:, None], valid.shape)[valid]
        fullest = np.bincount(owner * banks + banked, minlength=pes * banks).reshape(pes, banks).max(1)
        return np.maximum(steps, fullest), down * across, found
    key = (step[:, None] * across + np.arange(len(k)) // hardware.count("weight_lanes"))[valid] * banks + banked
    hits = np.bincount(key, minlength=down * across * banks).reshape(down, across, banks)
    cost = np.maximum(1, hits.max(2)).sum(1)
    owner = np.zeros(down, np.int64)
    owner[step] = pe
    return np.bincount(owner, cost, pes).astype(np.int64), down * across, found


def _sampled(task: Task, tiling: Tiling, operands: Operands, hardware: Hardware) -> Work:
    """Return the work from exact step counts and sampled bank conflicts."""
    a_steps = -(-operands.activations // hardware.count("activation_lanes"))
    w_steps = -(-operands.weights // hardware.count("weight_lanes"))
    slowest = int(np.einsum("fcp,fcg->cgp", a_steps, w_steps).max(2).sum())
    steps = int((a_steps.sum(2) * w_steps.sum(2)).sum())
    products = int((operands.activations.sum(2) * operands.weights.sum(2)).sum())
    stretch, cost, share = _conflicts(task, tiling, hardware)
    conflicts = round(steps * (cost - 1))
    pes = operands.activations.shape[2]
    cycles = max(round(slowest * stretch), -(-(steps + conflicts) // pes))
    return Work(cycles, steps, conflicts, products, round(products * share))


def _conflicts(task: Task, tiling: Tiling, hardware: Hardware) -> tuple[float, float, float]:
    """Return the effect of bank conflicts in a fixed sample of channels.

    That is the cycles per step of the slowest PE, the mean cycles per step, and the share of valid products.
    """
    groups = len(_group_sizes(task.shape, tiling))
    rng = np.random.default_rng(0)
    sums = np.zeros(6)
    samples = max(SAMPLES // 5, min(SAMPLES, SAMPLED_PLANES // (task.shape.size[0] * task.shape.size[1])))
    for channel in map(int, rng.permutation(task.shape.inputs)[:samples]):
        group = int(rng.integers(groups))
        busy = alone = np.zeros(hardware.count("pe_rows") * hardware.count("pe_columns"), np.int64)
        for phase in _phases(task.shape):
            places = _places(task, tiling, hardware, channel, phase)
            at_most = SAMPLED_PRODUCTS // len(_phases(task.shape))
            chunks = list(_weights(task, tiling, hardware, len(places[0]), channel, group, phase, at_most))
            if not chunks or not len(places[0]):
                continue
            weights = chunks[int(rng.integers(len(chunks)))]
            time, steps, valid = _steps(task.shape, hardware, places, weights)
            ends = np.bincount(places[0][np.unique(places[3], return_index=True)[1]], minlength=len(busy))
            busy, alone = busy + time, alone + ends * -(-len(weights[0]) // hardware.count("weight_lanes"))
            sums[2:] += (time.sum(), steps, valid, len(places[0]) * len(weights[0]))
        sums[:2] += (busy.max(), alone.max())
    return (sums[0] / sums[1], sums[2] / sums[3], sums[4] / sums[5]) if sums[1] else (1.0, 1.0, 1.0)


SCNN = Hardware(
    "scnn",
    Model("scnn", count, ("pe_rows", "pe_columns", "weight_lanes", "activation_lanes"), switches=("queued",)),
    {
        **EQUAL,
        "pe_rows": Constant(8, "8 x 8 PEs (DNNsim's defaults and code)", SEEN),
        "pe_columns": Constant(8, "8 x 8 PEs (DNNsim's defaults and code)", SEEN),
        "weight_lanes": Constant(4, "F = 4 weights a step (DNNsim)", SEEN),
        "activation_lanes": Constant(4, "I = 4 activations a step (DNNsim)", SEEN),
        "banks": Constant(32, "2 x F x I accumulator banks (DNNsim)", SEEN),
        "queued": Constant(
            0, "1: products queue before the banks; 0: a step waits for its busiest bank (DNNsim)", SEEN
        ),
        "accumulators": Constant(6144, "accumulator entries a PE (DNNsim's default; another example: 1,024)", SEEN),
        "index_bits": Constant(4, "bits of a zero run per non-zero", RECALLED),
        "fifo_bytes": Constant(512, "weight FIFO of a PE, about 500 B", RECALLED),
        "psum_bytes": Constant(3, "24-bit partial sums", RECALLED),
    },
    "#E69F00",
)
