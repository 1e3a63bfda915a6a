"""A layer of a workload as the simulator sees it: its shape, how sparse its operands are, how it was decomposed.

Everything is batch 1. A fully connected layer is a 1x1 convolution on a 1x1 image. Values are checked when they are
made; every complaint begins with the class and the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tprune.base.errors import BadInput

Mask = NDArray[np.bool_]
Sides = int | tuple[int, int]  # one number for height and width, or one for each


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one convolution: `inputs` (C) channels of `size` (H, W) to `outputs` (K) through `kernel` (R, S).

    `stride` and `padding` may differ between height and width, as in the R x 1 and 1 x S halves of a split kernel.
    """

    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: Sides = 1
    padding: Sides = 0
    groups: int = 1

    def __post_init__(self) -> None:
        _positive("Shape.inputs", self.inputs)
        _positive("Shape.outputs", self.outputs)
        for name, pair in (("size", self.size), ("kernel", self.kernel)):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise BadInput(f"Shape.{name} is {pair!r}; it must be two whole numbers: height and width")
            for number in pair:
                _positive(f"Shape.{name}", number)
        for step in _sides("Shape.stride", self.stride):
            _positive("Shape.stride", step)
        _positive("Shape.groups", self.groups)
        for border in _sides("Shape.padding", self.padding):
            if not _whole(border) or border < 0:
                raise BadInput(f"Shape.padding is {border!r}; it must be a whole number, 0 or more")
        if self.inputs % self.groups or self.outputs % self.groups:
            raise BadInput(
                f"Shape.groups is {self.groups}; it must divide inputs {self.inputs} and outputs {self.outputs}"
            )
        for side, length, border in zip(self.size, self.kernel, self.paddings, strict=True):
            if length > side + 2 * border:
                raise BadInput(
                    f"Shape.kernel is {self.kernel[0]}x{self.kernel[1]}; it must fit into the input of "
                    f"{self.size[0]}x{self.size[1]} with padding {self.padding}"
                )

    @property
    def strides(self) -> tuple[int, int]:
        """Steps of the kernel down and across."""
        return _sides("Shape.stride", self.stride)

    @property
    def paddings(self) -> tuple[int, int]:
        """Zeros above and below, and left and right."""
        return _sides("Shape.padding", self.padding)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of an output map (E, F)."""
        high, wide = (
            (side + 2 * border - length) // step + 1
            for side, length, step, border in zip(self.size, self.kernel, self.strides, self.paddings, strict=True)
        )
        return high, wide

    @property
    def depth(self) -> int:
        """Input channels that one filter sees (C / groups)."""
        return self.inputs // self.groups

    @property
    def area(self) -> int:
        """Positions of a kernel (R x S)."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Positions of an output map (E x F)."""
        return self.out_size[0] * self.out_size[1]

    @property
    def weights(self) -> int:
        """Weights of the layer, biases not counted."""
        return self.outputs * self.depth * self.area

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer, padding counted as work."""
        return self.weights * self.pixels

    @property
    def ifmap(self) -> int:
        """Input activations."""
        return self.inputs * self.size[0] * self.size[1]

    @property
    def ofmap(self) -> int:
        """Output activations."""
        return self.outputs * self.pixels


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of which only the zeros matter: the share that is not zero and, where known, which ones (`mask`).

    Activations change with the image: their mask is one image's, their density may be the mean over many.
    """

    density: float
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.density, (int, float)) or not 0 <= self.density <= 1:
            raise BadInput(f"Operand.density is {self.density!r}; it must be a number from 0 to 1")

    @classmethod
    def of(cls, values: NDArray[Any]) -> Operand:
        """Return the operand whose non-zeros are those of `values`."""
        mask = np.asarray(values) != 0
        return cls(float(mask.mean()), mask)

    def share(self, *, exact: bool) -> float:
        """Return the share that is not zero: the mask's own where events are counted one by one (`exact`)."""
        return float(self.mask.mean()) if exact and self.mask is not None else self.density


@dataclass(frozen=True, slots=True)
class Decomposition:
    """W[k, c] ~ sum over m of coefficient[k, c, m] * basis[m]: `bases` (M) kernels and ternary coefficients."""

    bases: int
    coefficients: Operand

    def __post_init__(self) -> None:
        _positive("Decomposition.bases", self.bases)


DENSE = Operand(1.0)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; masks are (K, C/groups, R, S) weights, (C, H, W) activations and (K, C/groups, M) coefficients.

    `weights` describe the pruned, un-decomposed layer that the baselines run, `decomposition` what ESCALATE runs.
    `dense` are the input and output channels before channels were cut away, where some were.
    """

    name: str
    shape: Shape
    weights: Operand = DENSE
    activations: Operand = DENSE
    decomposition: Decomposition | None = None
    dense: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        shape = self.shape
        _fits(self.name, "weights", self.weights, (shape.outputs, shape.depth, *shape.kernel))
        _fits(self.name, "activations", self.activations, (shape.inputs, *shape.size))
        if self.decomposition:
            bases = self.decomposition.bases
            if bases > shape.area:
                raise BadInput(
                    f"layer {self.name!r}: {bases} bases; a {shape.area}-weight kernel has no more than that"
                )
            _fits(self.name, "coefficients", self.decomposition.coefficients, (shape.outputs, shape.depth, bases))
        if self.dense and (self.dense[0] < shape.inputs or self.dense[1] < shape.outputs):
            raise BadInput(
                f"layer {self.name!r}: dense is {list(self.dense)}; it must not be below the channels that are left, "
                f"[{shape.inputs}, {shape.outputs}]"
            )

    @property
    def widths(self) -> tuple[int, int]:
        """Input channels that one filter saw, and filters, before channels were cut away."""
        inputs, outputs = self.dense or (self.shape.inputs, self.shape.outputs)
        depthwise = self.shape.depth == 1  # its groups are cut with its channels
        return (1 if depthwise and self.shape.groups > 1 else inputs // self.shape.groups), outputs

    @property
    def dense_weights(self) -> int:
        """Weights of the layer before anything was removed."""
        return math.prod(self.widths) * self.shape.area


@dataclass(frozen=True, slots=True)
class Workload:
    """A network's layers in the order they run; `source` is "trained" or "synthetic"; `accuracy` a share of 1.

    `plain` is the network that designs without bases run, of the same layers: pruned, not decomposed. Without it they
    run this one's un-decomposed kernels.
    """

    network: str
    source: str
    layers: tuple[Layer, ...]
    accuracy: float | None = None
    note: str = ""
    id: str = ""
    plain: Workload | None = None

    def __post_init__(self) -> None:
        if self.source not in ("trained", "synthetic"):
            raise BadInput(f"Workload.source is {self.source!r}; it must be 'trained' or 'synthetic'")
        if not self.layers:
            raise BadInput(f"Workload.layers of {self.network!r} is empty; there is nothing to simulate")
        names = [layer.name for layer in self.layers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise BadInput(f"Workload.layers of {self.network!r}: the name {twice[0]!r} stands twice; make them unique")
        others = [layer.name for layer in self.plain.layers] if self.plain else names
        if odd := [pair for pair in zip_longest(names, others) if pair[0] != pair[1]]:
            raise BadInput(
                f"Workload.plain of {self.network!r} must have the same layers in the same order; where one has "
                f"{odd[0][0]!r} the other has {odd[0][1]!r}"
            )

    @property
    def masked(self) -> bool:
        """Whether any layer comes with real masks."""
        operands = [operand for layer in self.layers for operand in (layer.weights, layer.activations)]
        operands += [layer.decomposition.coefficients for layer in self.layers if layer.decomposition]
        return any(operand.mask is not None for operand in operands)


def _sides(field: str, value: Any) -> tuple[int, int]:
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        raise BadInput(f"{field} is {value!r}; it must be a whole number, or two: for height and for width")
    return pair


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _positive(field: str, number: Any) -> None:
    if not _whole(number) or number < 1:
        raise BadInput(f"{field} is {number!r}; it must be a whole number, 1 or more")


def _fits(layer: str, what: str, operand: Operand, shape: tuple[int, ...]) -> None:
    if operand.mask is not None and operand.mask.shape != shape:
        raise BadInput(f"layer {layer!r}: the mask of its {what} is {operand.mask.shape}; it must be {shape}")
