"""Size of a compressed network's weights in bits, in three index formats, with and without channel shrinking.

Ternary coefficients are stored as positions, in one of three formats, and one sign each; a decomposed layer adds M
8-bit bases and two scales. Other layers are stored as plain 8-bit weights. With shrinking, channels without
coefficients are omitted (marked by one bit per channel); without it, layers have their original widths. Masks that a
workload does not contain are drawn at their densities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from tprune.bench.accel.layer import Layer, Mask, Shape, Workload
from tprune.bench.accel.task import coefficients

ORIGINAL_BITS = 32  # of a weight of the uncompressed network
SIGN_BITS = 1
SCALE_BITS = 2 * 32  # per layer: one learned scale for +1 and one for -1
NORM_BITS = 2 * 16  # per output channel: scale and shift of the folded batch norm

IndexFormat = Callable[[Mask], int]


def bit_mask(mask: Mask) -> int:
    """Return one bit per position."""
    return mask.size


def run_lengths(mask: Mask) -> int:
    """Return the bits of the zero runs before each non-zero, at the best field width from 1 to 16 bits.

    A run that exceeds its field is split by fillers of the largest value.
    """
    runs, times = np.unique(np.diff(np.flatnonzero(mask), prepend=-1) - 1, return_counts=True)
    return min(int(((runs // (2**width - 1) + 1) * times).sum()) * width for width in range(1, 17))


def coordinates(mask: Mask) -> int:
    """Return the bits of compressed rows: per output channel the number of its non-zeros, and their positions."""
    row = mask[0].size if mask.size else 1
    return int(mask.sum()) * max(1, (row - 1).bit_length()) + len(mask) * row.bit_length()


BITMASK = bit_mask
FORMATS: dict[str, IndexFormat] = {"bit mask": bit_mask, "run length": run_lengths, "coordinates": coordinates}


@dataclass(frozen=True, slots=True)
class Size:
    """Bits of a network's layers: `places` and `signs` of coefficients, `bases`, `scales`, plain `weights`, `norms`.

    `original`: uncompressed bits of all layers; `decomposed`: those of the decomposed layers.
    """

    original: int
    decomposed: int = 0
    places: int = 0
    signs: int = 0
    bases: int = 0
    scales: int = 0
    weights: int = 0
    norms: int = 0

    @property
    def compressed(self) -> int:
        """All stored bits."""
        return self.places + self.signs + self.bases + self.scales + self.weights + self.norms

    @property
    def ratio(self) -> float:
        """Size as 32-bit floats divided by the stored size."""
        return self.original / self.compressed

    @property
    def decomposed_ratio(self) -> float | None:
        """The same for the decomposed layers alone; None if there are none."""
        stored = self.places + self.signs + self.bases + self.scales
        return self.decomposed / stored if stored else None


def weight_bits(shape: Shape, coefficients: Mask | None, index: IndexFormat, bits: int) -> int:
    """Return the bits fetched for one layer: coefficients and bases, or plain weights."""
    if coefficients is None:
        return shape.weights * bits
    bases = 0 if shape.area == 1 else coefficients.shape[2] * shape.area * bits
    return index(coefficients) + int(coefficients.sum()) * SIGN_BITS + bases + SCALE_BITS


def sizes(workload: Workload, *, exact: bool, bits: int = 8, seed: int = 0) -> dict[tuple[str, bool], Size]:
    """Return the size of a whole network by (index format, with shrinking?)."""
    parts: dict[tuple[str, bool], list[Size]] = {(name, shrink): [] for name in FORMATS for shrink in (False, True)}
    for layer in workload.layers:
        mask = coefficients(layer, exact=exact, seed=seed)
        for (name, shrink), found in parts.items():
            found.append(layer_size(layer, mask, FORMATS[name], shrink=shrink, bits=bits))
    return {
        key: Size(*(sum(column) for column in zip(*map(astuple, found), strict=True))) for key, found in parts.items()
    }


def layer_size(layer: Layer, mask: Mask | None, index: IndexFormat, *, shrink: bool, bits: int) -> Size:
    """Return the size of one layer; without shrinking, at the widths before channels were cut."""
    shape, original = layer.shape, layer.dense_weights * ORIGINAL_BITS
    depth, outputs = (shape.depth, shape.outputs) if shrink else layer.widths
    norms = outputs * NORM_BITS
    if mask is None:
        return Size(original, weights=depth * outputs * shape.area * bits, norms=norms)
    whole = mask
    if (outputs, depth) != mask.shape[:2]:
        whole = np.zeros((outputs, depth, mask.shape[2]), bool)
        whole[: mask.shape[0], : mask.shape[1]] = mask
    places = index(whole)
    if shrink:  # index used channels only, if that is smaller in spite of one bit per channel
        used = np.any(whole, axis=2)
        places = min(places, index(whole[np.any(used, axis=1)][:, np.any(used, axis=0)]) + outputs + depth)
    bases = 0 if shape.area == 1 else mask.shape[2] * shape.area * bits
    return Size(original, original, places, int(mask.sum()) * SIGN_BITS, bases, SCALE_BITS, 0, norms)


def worked_example(bases: int, *, shrink: bool) -> float:
    """Return the compression of PENNI's released VGG16 in the plain bit-mask format, convolutions only.

    Its notebook shows the remaining widths and 135,817 non-zero coefficients (of 5 bases). Every convolution is
    decomposed; a coefficient takes one bit, a non-zero one a sign bit too, and bases take 8 bits per weight.
    """
    before = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    left = (3, 55, 64, 128, 128, 256, 256, 237, 158, 62, 48, 36, 26, 486)
    kernels = sum(math.prod(pair) for pair in zip(before, before[1:], strict=False))
    widths = left if shrink else before
    pairs = sum(math.prod(pair) for pair in zip(widths, widths[1:], strict=False))
    bits = pairs * bases + 135_817 * SIGN_BITS + (len(before) - 1) * bases * 9 * 8
    return kernels * 9 * ORIGINAL_BITS / bits
