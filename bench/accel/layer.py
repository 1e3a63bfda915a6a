"""The layers of a workload: their shapes, the sparsity of their operands, and their decomposition.

Everything is batch 1. A fully connected layer is a 1x1 convolution on a 1x1 image. Values are checked on construction;
every error begins with the class and the field.
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
Sides = int | tuple[int, int]  # one number for both height and width, or a pair


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one convolution: `inputs` (C) channels of `size` (H, W) to `outputs` (K) through `kernel` (R, S).

    `stride` and `padding` may differ between height and width, as in the R x 1 and 1 x S factors of a kernel.
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
        """Vertical and horizontal stride."""
        return _sides("Shape.stride", self.stride)

    @property
    def paddings(self) -> tuple[int, int]:
        """Vertical and horizontal padding."""
        return _sides("Shape.padding", self.padding)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output (E, F)."""
        high, wide = (
            (side + 2 * border - length) // step + 1
            for side, length, step, border in zip(self.size, self.kernel, self.strides, self.paddings, strict=True)
        )
        return high, wide

    @property
    def depth(self) -> int:
        """Input channels of one filter (C / groups)."""
        return self.inputs // self.groups

    @property
    def area(self) -> int:
        """Positions of the kernel (R x S)."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Positions of an output channel (E x F)."""
        return self.out_size[0] * self.out_size[1]

    @property
    def weights(self) -> int:
        """Number of weights, without biases."""
        return self.outputs * self.depth * self.area

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer, including those on padding."""
        return self.weights * self.pixels

    @property
    def ifmap(self) -> int:
        """Number of input activations."""
        return self.inputs * self.size[0] * self.size[1]

    @property
    def ofmap(self) -> int:
        """Number of output activations."""
        return self.outputs * self.pixels


@dataclass(frozen=True, slots=True)
class Operand:
    """The sparsity of a tensor: its density (share of non-zeros) and, where known, the mask of its non-zeros.

    For activations, which depend on the image, the mask is that of one image and the density may be a mean.
    """

    density: float
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.density, (int, float)) or not 0 <= self.density <= 1:
            raise BadInput(f"Operand.density is {self.density!r}; it must be a number from 0 to 1")

    @classmethod
    def of(cls, values: NDArray[Any]) -> Operand:
        """Return the operand with the non-zeros of `values`."""
        mask = np.asarray(values) != 0
        return cls(float(mask.mean()), mask)

    def share(self, *, exact: bool) -> float:
        """Return the density: that of the mask if events are counted one by one (`exact`)."""
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

    `weights` describe the pruned, undecomposed layer of the baselines, `decomposition` that of ESCALATE. `dense`: input
    and output channels before channels were removed, if any were.
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
                    f"layer {self.name!r}: {bases} bases; a kernel of {shape.area} weights has at most {shape.area}"
                )
            _fits(self.name, "coefficients", self.decomposition.coefficients, (shape.outputs, shape.depth, bases))
        if self.dense and (self.dense[0] < shape.inputs or self.dense[1] < shape.outputs):
            raise BadInput(
                f"layer {self.name!r}: dense is {list(self.dense)}; it must not be below the remaining channels, "
                f"[{shape.inputs}, {shape.outputs}]"
            )

    @property
    def widths(self) -> tuple[int, int]:
        """Input channels of one filter and number of filters, before channels were removed."""
        inputs, outputs = self.dense or (self.shape.inputs, self.shape.outputs)
        depthwise = self.shape.depth == 1  # its groups are removed with its channels
        return (1 if depthwise and self.shape.groups > 1 else inputs // self.shape.groups), outputs

    @property
    def dense_weights(self) -> int:
        """Number of weights before anything was removed."""
        return math.prod(self.widths) * self.shape.area


@dataclass(frozen=True, slots=True)
class Workload:
    """A network's layers in execution order; `source` is "trained" or "synthetic", `accuracy` is from 0 to 1.

    `plain`: the network, with the same layers but pruned instead of decomposed, for designs without bases. By default
    they run this network's undecomposed kernels.
    """

    network: str
    source: str
    layers: tuple[Layer, ...]
    accuracy: float | None = None
    note: str = ""
    id: str = ""
    plain: Workload | None = None

    def __repr__(self) -> str:
        return f"Workload({self.network}, {self.source}, {len(self.layers)} layers)"

    def __post_init__(self) -> None:
        if self.source not in ("trained", "synthetic"):
            raise BadInput(f"Workload.source is {self.source!r}; it must be 'trained' or 'synthetic'")
        if not self.layers:
            raise BadInput(f"Workload.layers of {self.network!r} is empty; there is nothing to simulate")
        names = [layer.name for layer in self.layers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise BadInput(
                f"Workload.layers of {self.network!r}: the name {twice[0]!r} appears twice; names must be unique"
            )
        others = [layer.name for layer in self.plain.layers] if self.plain else names
        if odd := [pair for pair in zip_longest(names, others) if pair[0] != pair[1]]:
            raise BadInput(
                f"Workload.plain of {self.network!r} must have the same layers in the same order; where one has "
                f"{odd[0][0]!r} the other has {odd[0][1]!r}"
            )

    @property
    def masked(self) -> bool:
        """Whether any layer has masks."""
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
