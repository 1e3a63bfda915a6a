"""Small random layers for the simulator's tests, and small hardware that makes every effect show on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from tprune.bench.accel.escalate import ESCALATE
from tprune.bench.accel.eyeriss import EYERISS
from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape
from tprune.bench.accel.scnn import SCNN
from tprune.bench.accel.sparten import SPARTEN
from tprune.bench.accel.task import Task, prepare

SMALL_EYERISS = replace(EYERISS.having("test", rows=4, columns=3), name="small")
SMALL_SCNN = SCNN.having("test", pe_rows=2, pe_columns=2, weight_lanes=2, activation_lanes=2, banks=4, accumulators=40)
SMALL_SPARTEN = SPARTEN.having("test", clusters=3, units=2, chunk=4)
SMALL_ESCALATE = ESCALATE.having("test", blocks=2, slices=2, multipliers=3, adders=2, word=2)
BUSY = ESCALATE.having("test", blocks=2, slices=3, multipliers=9, adders=1, word=4)


def sides(least: int, most: int) -> st.SearchStrategy[int | tuple[int, int]]:
    """Draw one number for height and width, or one for each."""
    one = st.integers(least, most)
    return st.one_of(one, st.tuples(one, one))


@st.composite
def shapes(draw, *, kernels=((1, 1), (2, 2), (3, 3), (1, 3), (3, 1))) -> Shape:
    """Draw a shape with up to 6 input and 8 output channels, grouped or depthwise too."""
    kernel = draw(st.sampled_from(kernels))
    groups = draw(st.sampled_from((1, 1, 2)))
    depthwise = draw(st.booleans()) and groups == 2
    inputs = groups * draw(st.integers(1, 3))
    outputs = inputs if depthwise else groups * draw(st.integers(1, 4))
    size = (draw(st.integers(kernel[0], 7)), draw(st.integers(kernel[1], 7)))
    stride, padding = draw(sides(1, 2)), draw(sides(0, 1))
    return Shape(inputs, outputs, size, kernel, stride, padding, inputs if depthwise else groups)


@st.composite
def tasks(draw, *, kernels=((1, 1), (2, 2), (3, 3), (1, 3), (3, 1)), decomposed: bool = False) -> Task:
    """Draw a layer with random masks, ready to be counted exactly."""
    shape = draw(shapes(kernels=kernels))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    densities = draw(st.tuples(*[st.sampled_from((0.0, 0.2, 0.6, 1.0))] * 3))

    def operand(density: float, *size: int) -> Operand:
        return Operand.of(rng.random(size) < density)

    split = None
    if decomposed:
        bases = draw(st.integers(1, min(4, shape.area)))
        split = Decomposition(bases, operand(densities[2], shape.outputs, shape.depth, bases))
    layer = Layer(
        "layer", shape, operand(densities[0], shape.outputs, shape.depth, *shape.kernel),
        operand(densities[1], shape.inputs, *shape.size), split,
    )  # fmt: skip
    return prepare(layer, 0.5, exact=True)


def conv(
    name: str = "conv", *, inputs: int = 16, outputs: int = 32, size: int = 8, kernel: int = 3, stride: int = 1,
    groups: int = 1, weights: float = 0.3, activations: float = 0.5, coefficients: float | None = 0.2,
) -> Layer:  # fmt: skip
    """Return a layer with densities only."""
    shape = Shape(inputs, outputs, (size, size), (kernel, kernel), stride, kernel // 2, groups)
    bases = 1 if kernel == 1 else 6
    split = None if coefficients is None else Decomposition(bases, Operand(coefficients))
    return Layer(name, shape, Operand(weights), Operand(activations), split)
