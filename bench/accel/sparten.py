"""SparTen (Gondimalla et al., MICRO'19): sparse dot products by an inner join of bit masks.

A filter and its input window are vectors, channels first, split into chunks. Each unit of a cluster holds a chunk of a
different filter, and all get the same chunk of the window. A unit needs one cycle per position where both are non-zero,
and all wait for the slowest (at least one cycle per chunk). With greedy balancing (GB-H) a unit processes two filters,
the densest chunk paired with the sparsest, to balance the units. (Filter set, position) items are distributed over the
clusters in turn, set after set, and the clusters synchronise at the end of the layer. In a depthwise layer no two
filters share a window, so one unit works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tprune.bench.accel.counts import Access, Counts, dram, masked, once, too_small
from tprune.bench.accel.hardware import CHOSEN, EQUAL, RECALLED, SEEN, Constant, Hardware, Model
from tprune.bench.accel.task import Task, filters, windows

Numbers = NDArray[np.int64]
SMALL_LAYER = 1 << 26  # dense MACs up to which statistical fidelity counts all filters, not one set only


@dataclass(frozen=True, slots=True)
class Work:
    """Cycles of each item (groups, positions, filter sets), total matches, and unit-cycles of empty units."""

    items: Numbers
    matches: int
    empty: int


def count(task: Task, hardware: Hardware) -> Counts:
    """Return the events of one layer on SparTen."""
    if hardware.number("local_bytes") * 8 < hardware.number("chunk") * hardware.number("bits"):
        needed = hardware.number("chunk") * hardware.number("bits") / 8
        what = f"one chunk of {hardware.count('chunk')} values"
        raise too_small(task.layer.name, "local_bytes", hardware.number("local_bytes"), needed, what)
    work = _joined(task, hardware) if task.exact else _sampled(task, hardware)
    clusters, units = hardware.count("clusters"), hardware.count("units")
    items = work.items.transpose(2, 0, 1).ravel()  # set after set: all clusters share the broadcast of a filter set
    busy = np.bincount(np.arange(items.size) % clusters, items, clusters).astype(np.int64)
    cycles = int(busy.max())
    total = int(busy.sum())
    losses = {
        "filter barrier": total * units - work.empty - work.matches,
        "empty units": work.empty,
        "idle clusters": (cycles * clusters - total) * units,
    }
    return _counts(task, hardware, cycles, work, losses)


def _counts(task: Task, hardware: Hardware, cycles: int, work: Work, losses: dict[str, int]) -> Counts:
    shape, bits, units = task.shape, hardware.count("bits"), hardware.count("units")
    width, psum = bits / 8, hardware.number("psum_bytes")
    buffer, local = hardware.count("buffer_bytes"), hardware.number("local_bytes")
    inputs = masked(shape.ifmap, float(task.activations.sum()), bits)
    weights = masked(shape.weights, float(task.weights.sum()), bits)
    outputs = masked(shape.ofmap, shape.ofmap * task.output_density, bits)
    sets = work.items.shape[2]
    density = float(task.activations.mean())
    length = shape.area * shape.depth
    windows_read = shape.groups * shape.pixels * sets * masked(length, length * density, bits)
    holders = min(hardware.count("clusters"), work.items.size // sets)  # clusters that receive the same filters at once
    return Counts(
        cycles,
        hardware.multipliers,
        work.matches,
        losses,
        {"mac8" if bits <= 8 else "mac16": work.matches, "prefix_sum": work.matches, "encode": work.matches},
        windows_read + weights * holders,
        (
            Access("chunk buffers", local, 2 * work.matches * width, windows_read * units + weights * holders),
            Access("sums", psum * units, (work.matches + shape.ofmap) * psum, work.matches * psum),
            Access("buffer", buffer, windows_read + weights, inputs + weights + outputs),
        ),
        dram(inputs=inputs, weights=weights, outputs=outputs, buffer=buffer),
        once(inputs=inputs, weights=weights, outputs=outputs),
    )


def _joined(task: Task, hardware: Hardware) -> Work:
    """Return the work of every chunk of every item; matches are counted by matrix products of 0 and 1."""
    seen, held = windows(task.shape, task.activations), filters(task.shape, task.weights)
    groups, positions, length = seen.shape
    paired = bool(hardware.count("balanced")) and held.shape[1] > hardware.count("units")
    sets = len(_slots(held.shape[1], hardware.count("units"), paired))
    items = np.zeros((groups, positions, sets), np.int64)
    matches = empty = 0
    for first in range(0, length, hardware.count("chunk")):
        own = held[:, :, first : first + hardware.count("chunk")]
        joined = seen[:, :, first : first + hardware.count("chunk")].astype(np.float32) @ own.transpose(0, 2, 1).astype(
            np.float32
        )
        matches += int(joined.sum(dtype=np.float64))
        if paired:
            joined = _paired(joined, own.sum(2))
        for number, (start, stop) in enumerate(_slots(joined.shape[2], hardware.count("units"), paired=False)):
            time = np.maximum(1, joined[:, :, start:stop].max(2)).astype(np.int64)
            items[:, :, number] += time
            empty += int(time.sum()) * (hardware.count("units") - (stop - start))
    return Work(items, matches, empty)


def _slots(count: int, units: int, paired: bool) -> list[tuple[int, int]]:
    """Return (start, stop) of each set of filters, or pairs of filters, that fills a cluster."""
    lanes = math.ceil(count / 2) if paired else count
    return [(start, min(start + units, lanes)) for start in range(0, lanes, units)]


def _paired(joined: NDArray[np.float32], density: Numbers) -> NDArray[np.float32]:
    """Return the matches of filter pairs, the densest chunk with the sparsest: (groups, positions, K / 2)."""
    order = np.argsort(density, axis=1, kind="stable")
    ordered = np.take_along_axis(joined, order[:, None, :], axis=2)
    if ordered.shape[2] % 2:
        ordered = np.concatenate([np.zeros_like(ordered[:, :, :1]), ordered], axis=2)  # the densest is not paired
    half = ordered.shape[2] // 2
    pairs: NDArray[np.float32] = ordered[:, :, :half] + ordered[:, :, : half - 1 : -1]
    return pairs


def _sampled(task: Task, hardware: Hardware) -> Work:
    """Return the work of a large layer, estimated from one set of filters and scaled up."""
    shape = task.shape
    per_group = shape.outputs // shape.groups
    paired = bool(hardware.count("balanced")) and per_group > hardware.count("units")
    whole = hardware.count("units") * (2 if paired else 1)
    if shape.macs <= SMALL_LAYER or per_group <= whole or per_group % whole:
        return _joined(task, hardware)
    kept = np.arange(shape.outputs) % per_group < whole
    fewer = replace(shape, outputs=whole * shape.groups)
    layer = replace(
        task.layer, shape=fewer, weights=replace(task.layer.weights, mask=None), decomposition=None, dense=None
    )
    work = _joined(replace(task, layer=layer, weights=task.weights[kept]), hardware)
    factor = per_group // whole
    return Work(np.repeat(work.items, factor, axis=2), work.matches * factor, work.empty * factor)


SPARTEN = Hardware(
    "sparten",
    Model("sparten", count, ("clusters", "units"), switches=("balanced",)),
    {
        **EQUAL,
        "clusters": Constant(32, "32 clusters make 1,024 units", RECALLED),
        "units": Constant(32, "32 compute units a cluster (third-party code of SparTen)", SEEN),
        "chunk": Constant(128, "positions of a chunk (third-party code of SparTen)", SEEN),
        "balanced": Constant(1, "greedy balancing per chunk (GB-H), 0 is none (abstract names it)", SEEN),
        "local_bytes": Constant(128, "a unit's buffer for values of one chunk (simulator behind BBS)", SEEN),
        "psum_bytes": Constant(3, "24-bit partial sums", CHOSEN),
    },
    "#009E73",
)
SPARTEN_PLAIN = replace(SPARTEN.having("SparTen without balancing", balanced=0), name="sparten-plain", colour="#66c2a5")
