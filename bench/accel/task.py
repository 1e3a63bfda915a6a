"""A layer ready for counting: masks of all its operands, given or drawn at the stated densities."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tprune.bench.accel.layer import Layer, Mask, Operand, Shape


@dataclass(frozen=True, slots=True)
class Task:
    """Input of the models: masks (K, C/groups, R, S), (C, H, W) and, where decomposed, (K, C/groups, M).

    `exact`: count every event; otherwise a model may count a sample and scale up. `output_density`: density of the
    layer's output, as far as known.
    """

    layer: Layer
    weights: Mask
    activations: Mask
    coefficients: Mask | None
    output_density: float
    exact: bool

    @property
    def shape(self) -> Shape:
        """The layer's sizes."""
        return self.layer.shape


def prepare(layer: Layer, output_density: float, *, exact: bool, seed: int = 0) -> Task:
    """Return the task of a layer; a missing or ignored mask is drawn, seeded by `seed` and the layer's name.

    Statistical fidelity (`exact=False`) ignores given masks and uses their densities.
    """
    shape = layer.shape
    return Task(
        layer,
        _mask(layer, layer.weights, (shape.outputs, shape.depth, *shape.kernel), exact, (seed, 0)),
        _mask(layer, layer.activations, (shape.inputs, *shape.size), exact, (seed, 1)),
        coefficients(layer, exact=exact, seed=seed),
        output_density,
        exact,
    )


def coefficients(layer: Layer, *, exact: bool, seed: int = 0) -> Mask | None:
    """Return the mask of a layer's coefficients as in `prepare`; None if it is not decomposed."""
    split = layer.decomposition
    if split is None:
        return None
    return _mask(layer, split.coefficients, (layer.shape.outputs, layer.shape.depth, split.bases), exact, (seed, 2))


def _mask(layer: Layer, operand: Operand, size: tuple[int, ...], exact: bool, seed: tuple[int, int]) -> Mask:
    if exact and operand.mask is not None:
        return operand.mask
    if operand.density == 1:
        return np.ones(size, bool)
    rng = np.random.default_rng([*seed, zlib.crc32(layer.name.encode())])
    drawn: Mask = rng.random(size, np.float32) < operand.density
    return drawn


def windows(shape: Shape, activations: Mask) -> NDArray[np.bool_]:
    """Return the input window of each output position: (groups, E*F, R*S*C/groups), channels last."""
    high, wide = shape.paddings
    padded = np.pad(activations, ((0, 0), (high, high), (wide, wide)))
    views = np.lib.stride_tricks.sliding_window_view(padded, shape.kernel, axis=(1, 2))
    views = views[:, :: shape.strides[0], :: shape.strides[1]]  # (C, E, F, R, S)
    grouped = views.reshape(shape.groups, shape.depth, *views.shape[1:])
    ordered = grouped.transpose(0, 2, 3, 4, 5, 1)
    seen: NDArray[np.bool_] = ordered.reshape(shape.groups, shape.pixels, shape.area * shape.depth)
    return seen


def filters(shape: Shape, weights: Mask) -> NDArray[np.bool_]:
    """Return the filters in the order of `windows`: (groups, K/groups, R*S*C/groups)."""
    ordered = weights.transpose(0, 2, 3, 1)
    return ordered.reshape(shape.groups, shape.outputs // shape.groups, shape.area * shape.depth)
