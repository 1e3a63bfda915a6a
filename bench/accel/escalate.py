"""ESCALATE (Li et al., MICRO-54, 2021) as described in its abstract; undocumented details are our choice, and swept.

The decomposed convolution runs in the reorganised order. Stage 1 sums input channels with ternary coefficients into M
intermediate maps of one output channel, I[k, m] = sum over c of Ce[k, c, m] X[c]: additions only, zeros skipped.
Stage 2 convolves these maps with the M basis kernels and sums them, Y[k] = sum over m of B[m] (*) I[k, m]: dense.
Output channels are distributed over blocks, bases over the slices of a block (our reading of "Basis-First"), row by
row; while stage 2 processes a row, stage 1 computes the inputs of the next.

Layers that are not decomposed (first, depthwise, fully connected) run dense on the multipliers, slices independently.
A 1x1 layer (M = 1) has no second stage: output channels are distributed over all slices, and only the adders work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tprune.bench.accel.counts import Access, Counts, dram, masked, once, too_small
from tprune.bench.accel.hardware import CHOSEN, EQUAL, RECALLED, Constant, Hardware, Model
from tprune.bench.accel.layer import Mask, Shape
from tprune.bench.accel.storage import BITMASK, weight_bits
from tprune.bench.accel.task import Task

Numbers = NDArray[np.int64]
INTERMEDIATE_BYTES = 2  # a sum of ternary products of 8-bit activations; our choice
MOST_COEFFICIENTS = 1 << 20  # (channel, basis, pixel) sums at a time, to fit into a cache


@dataclass(frozen=True, slots=True)
class Work:
    """Cycles, their use on `lanes` units, and the numbers of additions and products."""

    cycles: int
    lanes: int
    useful: int
    losses: Mapping[str, int]
    additions: int
    products: int


def count(task: Task, hardware: Hardware) -> Counts:
    """Return the events of one layer on ESCALATE."""
    if task.coefficients is None:
        work = _dense(task.shape, hardware)
    elif task.shape.area == 1:
        work = _pointwise(task, task.coefficients, hardware)
    else:
        work = _decomposed(task, task.coefficients, hardware)
    return _counts(task, hardware, work)


def additions(task: Task, coefficients: Mask, hardware: Hardware) -> tuple[Numbers, Numbers]:
    """Return additions and stage-1 cycles of one slice for every intermediate row: both (K, M, rows).

    A pixel takes one cycle per mask word, or one per addition if there are more; the adders of a slice share the
    pixels of a row.
    """
    shape, word = task.shape, hardware.count("word")
    outputs, depth, bases = coefficients.shape
    maps = task.activations if hardware.count("skip_zero_activations") else np.ones_like(task.activations)
    if shape.area == 1:
        maps = maps[:, :: shape.strides[0], :: shape.strides[1]]
    _, high, wide = maps.shape
    matches = np.zeros((outputs, bases, high), np.int64)
    looks = np.zeros_like(matches)
    step = max(1, MOST_COEFFICIENTS // (bases * high * wide))
    for group in range(shape.groups):
        seen = maps[group * depth : (group + 1) * depth].reshape(depth, -1).astype(np.float32)
        last = (group + 1) * outputs // shape.groups
        for first in range(group * outputs // shape.groups, last, step):
            own = slice(first, min(first + step, last))
            held = coefficients[own].transpose(0, 2, 1).reshape(-1, depth).astype(np.float32)
            for start in range(0, depth, word):
                part = slice(start, start + word)
                found = (held[:, part] @ seen[part]).reshape(-1, bases, high, wide)
                matches[own] += found.sum(3, dtype=np.float64).astype(np.int64)
                looks[own] += np.maximum(1, found).sum(3, dtype=np.float64).astype(np.int64)
    looks[np.logical_not(np.any(coefficients, axis=1))] = 0  # (K, M) without coefficients take no cycle
    return matches, -(-looks // hardware.count("adders"))


def pipeline(first: Numbers, second: Numbers) -> int:
    """Return the cycles of a two-stage pipeline: `first` of the next item overlaps `second` of this one."""
    if not len(first):
        return 0
    return int(first[0] + np.maximum(second, np.append(first[1:], 0)).sum())


def rows_ahead(shape: Shape) -> list[slice]:
    """Return the new intermediate rows that each output row needs."""
    step, above = shape.strides[0], shape.paddings[0]
    ends = [min(shape.size[0], max(0, row * step - above + shape.kernel[0])) for row in range(shape.out_size[0])]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _decomposed(task: Task, coefficients: Mask, hardware: Hardware) -> Work:
    shape = task.shape
    blocks, slices, multipliers = (hardware.count(name) for name in ("blocks", "slices", "multipliers"))
    needed = shape.kernel[0] * shape.size[1] * INTERMEDIATE_BYTES
    if hardware.number("line_bytes") < needed:
        what = f"{shape.kernel[0]} rows of {shape.size[1]} intermediate values"
        raise too_small(task.layer.name, "line_bytes", hardware.number("line_bytes"), needed, what)
    matches, looks = additions(task, coefficients, hardware)
    bases = coefficients.shape[2]
    turns = math.ceil(bases / slices)
    pad = np.zeros((shape.outputs, turns * slices - bases, looks.shape[2]), np.int64)
    slowest = np.concatenate([looks, pad], 1).reshape(shape.outputs, turns, slices, -1).max(2).sum(1)  # (K, rows)
    first = np.stack([slowest[:, rows].sum(1) for rows in rows_ahead(shape)], 1)  # (K, output rows)
    alive: Mask = np.any(coefficients, axis=(1, 2))
    row = turns * math.ceil(shape.area * shape.out_size[1] / multipliers)
    second = np.where(alive[:, None], row, 0) * np.ones_like(first)
    times = [pipeline(first[block::blocks].ravel(), second[block::blocks].ravel()) for block in range(blocks)]
    cycles = max(1, *times)
    busy = int(second.sum())  # cycles of a block's multipliers
    block_lanes = slices * multipliers
    products = int(alive.sum()) * bases * shape.area * shape.pixels
    idle_slices = busy // turns * (turns * slices - bases) * multipliers
    losses = {
        "waiting for stage 1": (sum(times) - busy) * block_lanes,
        "idle blocks": (cycles * blocks - sum(times)) * block_lanes,
        "idle slices": idle_slices,
        "row ends": busy * block_lanes - idle_slices - products,
    }
    return Work(cycles, hardware.multipliers, products, losses, int(matches.sum()), products)


def _pointwise(task: Task, coefficients: Mask, hardware: Hardware) -> Work:
    slices, adders = hardware.count("blocks") * hardware.count("slices"), hardware.count("adders")
    matches, looks = additions(task, coefficients, hardware)
    rows = looks.sum(1).ravel()  # (output channel, row) items, distributed over the slices in turn
    busy = np.bincount(np.arange(len(rows)) % slices, rows, slices).astype(np.int64)
    cycles = max(1, int(busy.max()))
    useful = int(matches.sum())
    losses = {
        "looking at empty words": int(busy.sum()) * adders - useful,
        "idle slices": (cycles * slices - int(busy.sum())) * adders,
    }
    return Work(cycles, slices * adders, useful, losses, useful, task.shape.ofmap)


def _dense(shape: Shape, hardware: Hardware) -> Work:
    slices, multipliers = hardware.count("blocks") * hardware.count("slices"), hardware.count("multipliers")
    row = math.ceil(shape.depth * shape.area * shape.out_size[1] / multipliers)
    items = shape.outputs * shape.out_size[0]
    cycles = math.ceil(items / slices) * row
    losses = {
        "idle slices": (cycles * slices - items * row) * multipliers,
        "row ends": items * row * multipliers - shape.macs,
    }
    return Work(cycles, hardware.multipliers, shape.macs, losses, 0, shape.macs)


def _counts(task: Task, hardware: Hardware, work: Work) -> Counts:
    shape, bits, psum = task.shape, hardware.count("bits"), hardware.number("psum_bytes")
    width, line, buffer = bits / 8, hardware.number("line_bytes"), hardware.count("buffer_bytes")
    split = task.coefficients
    streamed = split is not None and shape.area > 1  # whether there is a second stage
    weights = weight_bits(shape, split, BITMASK, bits) / 8
    inputs = masked(shape.ifmap, float(task.activations.sum()), bits)
    outputs = masked(shape.ofmap, shape.ofmap * task.output_density, bits)
    at_once = hardware.count("blocks") * (1 if streamed else hardware.count("slices"))
    broadcasts = inputs * math.ceil(shape.outputs / shape.groups / at_once)  # inputs are broadcast to all blocks
    bases = split.shape[2] if split is not None else 1
    between = shape.outputs * bases * shape.size[0] * shape.size[1] * INTERMEDIATE_BYTES if streamed else 0
    sums = shape.ofmap * bases  # partial sums of the slices
    operand = width + (INTERMEDIATE_BYTES if streamed else width)
    registers = work.additions * (width + INTERMEDIATE_BYTES) + work.products * (operand + psum)
    return Counts(
        work.cycles,
        work.lanes,
        work.useful,
        work.losses,
        {"mac8" if bits <= 8 else "mac16": work.products, "add": work.additions + sums, "select": work.additions},
        broadcasts + weights + sums * psum,
        (
            Access("registers", 64, registers, work.additions * INTERMEDIATE_BYTES + work.products * psum),
            Access("line buffer", line, between * shape.kernel[0], between),
            Access("sums", psum * shape.out_size[1], sums * psum, sums * psum),
            Access("buffer", buffer, broadcasts + weights, inputs + weights + outputs),
        ),
        dram(inputs=inputs, weights=weights, outputs=outputs, buffer=buffer),
        once(inputs=inputs, weights=weights, outputs=outputs),
    )


ESCALATE = Hardware(
    "escalate",
    Model("escalate", count, ("blocks", "slices", "multipliers"), switches=("skip_zero_activations",), decomposed=True),
    {
        **EQUAL,
        "blocks": Constant(32, "near 1,024 multipliers with 6 slices of 5", CHOSEN),
        "slices": Constant(6, "M slices of a block, one a basis kernel (recalled), M = 6", RECALLED),
        "multipliers": Constant(5, "multipliers of a slice: 32 x 6 x 5 = 960", CHOSEN),
        "adders": Constant(4, "adders of a slice in stage 1; nothing is documented", CHOSEN),
        "word": Constant(64, "channels of a coefficient mask word, looked at in one cycle", CHOSEN),
        "skip_zero_activations": Constant(1, "stage 1 skips zero activations too ('dilution-concentration')", RECALLED),
        "line_bytes": Constant(1536, "line buffer of a slice: R rows of 16-bit intermediate values", CHOSEN),
        "psum_bytes": Constant(3, "24-bit partial sums", CHOSEN),
    },
    "#0072B2",
)
