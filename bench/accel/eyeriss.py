"""Eyeriss, row stationary (Chen et al., ISCA'16 and JSSC'17): a PE convolves one filter row with one input row.

A 2-D convolution of an R-row filter to E output rows is a logical set of R x E PEs. Sets wider than the array are split
into strips of output rows, which are stacked if the height allows it. Remaining PEs run sets of other filters, channels
or groups. A zero input gates a PE's multiplier but still takes its cycle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tprune.bench.accel.counts import Access, Counts, dram, once, run_length, too_small
from tprune.bench.accel.hardware import CHOSEN, EQUAL, INFERRED, RECALLED, SEEN, Constant, Hardware, Model
from tprune.bench.accel.layer import Shape
from tprune.bench.accel.task import Task


@dataclass(frozen=True, slots=True)
class Mapping:
    """The mapping of one layer to the PE array.

    A pass runs `channels` x `filters` x `groups` sets of `high` filter rows by `wide` output rows; `folds` of filter
    rows and `strips` of output rows run in sequence. A PE interleaves `reuse` = (input channels, filters).
    """

    high: int
    wide: int
    folds: int
    strips: int
    channels: int
    filters: int
    groups: int
    reuse: tuple[int, int]

    @property
    def active(self) -> int:
        """PEs that are busy in a full pass."""
        return self.high * self.wide * self.channels * self.filters * self.groups


def place(layer: str, shape: Shape, hardware: Hardware) -> Mapping:
    """Return the mapping of a layer with the fewest passes."""
    rows, columns = hardware.count("rows"), hardware.count("columns")
    (filter_rows, filter_width), out_rows = shape.kernel, shape.out_size[0]
    folds = math.ceil(filter_rows / rows)
    high = math.ceil(filter_rows / folds)
    above = rows // high  # sets, or strips of a set, that can be stacked
    pieces = math.ceil(out_rows / columns)
    stacked = min(above, pieces)
    strips = math.ceil(pieces / stacked)
    sets = above // stacked * max(1, columns // out_rows)
    per_group = (shape.depth, shape.outputs // shape.groups)
    channels, filters, groups = min(
        (
            (c, k, g)
            for c in range(1, min(sets, per_group[0]) + 1)
            for k in {min(sets // c, per_group[1])}
            for g in {min(sets // (c * k), shape.groups)}
        ),
        key=lambda split: (_passes(shape, *split), -split[1]),
    )
    return Mapping(
        high, math.ceil(out_rows / strips), folds, strips, channels, filters, groups,
        _reuse(layer, filter_width, per_group, hardware),
    )  # fmt: skip


def _passes(shape: Shape, channels: int, filters: int, groups: int) -> int:
    per_group = math.ceil(shape.depth / channels) * math.ceil(shape.outputs // shape.groups / filters)
    return per_group * math.ceil(shape.groups / groups)


def _reuse(layer: str, width: int, most: tuple[int, int], hardware: Hardware) -> tuple[int, int]:
    """Return the numbers of input channels and filters whose rows fit into the scratch pads of a PE."""
    for field in ("ifmap_words", "filter_words"):
        if hardware.number(field) < width:
            raise too_small(layer, field, hardware.number(field), width, f"a filter row of {width} words")
    channels = min(hardware.count("ifmap_words") // width, most[0])
    filters = max(1, min(hardware.count("psum_words"), hardware.count("filter_words") // (channels * width), most[1]))
    return channels, filters


def count(task: Task, hardware: Hardware) -> Counts:
    """Return the events of one layer on Eyeriss."""
    shape, layer = task.shape, task.layer
    mapping = place(layer.name, shape, hardware)
    passes = _passes(shape, mapping.channels, mapping.filters, mapping.groups) * mapping.folds * mapping.strips
    cycles = passes * shape.kernel[1] * shape.out_size[1]  # of a PE: S products for each of the F outputs of its row
    lanes = hardware.multipliers
    width, bits = hardware.count("bits") / 8, hardware.count("bits")
    density = layer.activations.share(exact=task.exact)
    effective = round(shape.macs * density)  # MACs with a non-zero input; the others are gated

    q, p = mapping.reuse
    input_turns = math.ceil(shape.outputs // shape.groups / (p * mapping.filters))  # buffer reads of each input
    sum_turns = math.ceil(shape.depth / (q * mapping.channels)) * mapping.folds  # buffer accesses of each sum
    overlap = _overlap(shape, mapping)
    input_reads = shape.ifmap * overlap * input_turns
    filter_reads = shape.weights * mapping.strips
    per_pe = shape.outputs * shape.depth * shape.kernel[0] * shape.out_size[0]  # (filter row, output row) pairs
    noc = per_pe * (shape.kernel[1] + shape.size[1] / p + shape.out_size[1] / q)
    inputs = run_length(shape.ifmap, round(shape.ifmap * density), bits, hardware.count("run_bits"))
    weights = shape.weights * width  # zero weights are stored and fetched too
    outputs = run_length(shape.ofmap, shape.ofmap * task.output_density, bits, hardware.count("run_bits"))
    pads = [hardware.number(field) * width for field in ("ifmap_words", "filter_words", "psum_words")]
    return Counts(
        cycles,
        lanes,
        shape.macs,
        {"idle PEs": lanes * cycles - shape.macs},
        {"mac16" if bits > 8 else "mac8": effective, "gated": shape.macs - effective},
        noc * width,
        (
            Access("input pad", pads[0], shape.macs * width, per_pe * shape.size[1] / p * width),
            Access("filter pad", pads[1], effective * width, per_pe * shape.kernel[1] * width),
            Access("sum pad", pads[2], effective * width, effective * width),
            Access(
                "global buffer",
                hardware.number("buffer_bytes"),
                (input_reads + filter_reads + shape.ofmap * (sum_turns - 1)) * width,
                (shape.ifmap + shape.weights + shape.ofmap * sum_turns) * width,
            ),
        ),
        dram(inputs=inputs, weights=weights, outputs=outputs, buffer=hardware.count("buffer_bytes")),
        once(inputs=inputs, weights=weights, outputs=outputs),
    )


def _overlap(shape: Shape, mapping: Mapping) -> float:
    """Return the mean number of reads of an input row, as neighbouring strips overlap."""
    rows, step, above = 0, shape.strides[0], shape.paddings[0]
    for first in range(0, shape.out_size[0], mapping.wide):
        last = min(first + mapping.wide, shape.out_size[0]) - 1
        top = max(0, first * step - above)
        bottom = min(shape.size[0], last * step - above + shape.kernel[0])
        rows += max(0, bottom - top)
    return rows / shape.size[0]


MODEL = Model("eyeriss", count, ("rows", "columns"))
EYERISS_CHIP = Hardware(
    "eyeriss-chip",
    MODEL,
    {
        "clock_mhz": Constant(200, "core clock of Eyeriss' published measurements (nn_dataflow tests)", SEEN),
        "bits": Constant(16, "16-bit fixed point (Sparseloop's Eyeriss configuration)", SEEN),
        "buffer_bytes": Constant(108 * 1024, "108 kB global buffer (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "dram_gb_s": Constant(0.72, "64-bit link at its 90 MHz; the width is our assumption", INFERRED),
        "rows": Constant(12, "12 x 14 PEs (JSSC'17 abstract: 168)", SEEN),
        "columns": Constant(14, "12 x 14 PEs (JSSC'17 abstract: 168)", SEEN),
        "ifmap_words": Constant(12, "per-PE scratch pad for inputs (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "filter_words": Constant(225, "per-PE scratch pad for weights (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "psum_words": Constant(24, "per-PE scratch pad for partial sums (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "run_bits": Constant(5, "bits of a zero run in its run-length code", RECALLED),
    },
    "#D55E00",
)
EYERISS_168 = replace(
    EYERISS_CHIP,
    name="eyeriss-168",  # the chip's array and buffer at the clock, precision and DRAM of all designs
    constants={**EYERISS_CHIP.constants, **{name: EQUAL[name] for name in ("clock_mhz", "bits", "dram_gb_s")}},
    colour="#cccccc",
)
EYERISS = Hardware(
    "eyeriss",
    MODEL,
    {
        **EYERISS_CHIP.constants,
        **EQUAL,
        "rows": Constant(32, "scaled to 1,024 PEs, square", CHOSEN),
        "columns": Constant(32, "scaled to 1,024 PEs, square", CHOSEN),
    },
    "#999999",
)
