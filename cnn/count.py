"""Size of a network: weights, and multiply-accumulates for one image, by layer and in total.

    count(module, (3, 32, 32)).macs

A multiply-accumulate (MAC) counts 1; batch norms, biases, activations and pooling count 0. `macs` is the cost of a
dense run of the layer's form, `effective_macs` excludes products with zero weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tprune.cnn.channels import dry_run, evaluating
from tprune.cnn.forms import BasisConv2d, SvdConv2d, only
from tprune.cnn.structure import describe


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its path and kind (see `tprune.cnn.structure`), sizes, and the shape of its output without batch.

    `weights` and `nonzero` exclude biases and batch norms, which are `others` and `nonzero_others`. The weights of a
    basis-conv are its coefficients (also in `coefficients`) and its basis kernels, those of an svd-conv its two thin
    convolutions at its rank.
    """

    path: str
    kind: str
    weights: int
    nonzero: int
    others: int
    nonzero_others: int
    coefficients: int
    nonzero_coefficients: int
    macs: int
    effective_macs: int
    output: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """The layers in the order of the network, and their totals."""

    rows: tuple[Row, ...]

    def of(self, kinds: Collection[str]) -> Count:
        """Return the layers of the given kinds."""
        return Count(tuple(row for row in self.rows if row.kind in kinds))

    @property
    def convs(self) -> Count:
        """The convolutions, in any form."""
        return self.of(("conv", "svd-conv", "basis-conv"))

    @property
    def weights(self) -> int:
        """Weights of convolutions and linear layers."""
        return sum(row.weights for row in self.rows)

    @property
    def nonzero(self) -> int:
        """Non-zero `weights`."""
        return sum(row.nonzero for row in self.rows)

    @property
    def parameters(self) -> int:
        """Trained parameters: weights, biases, batch norms."""
        return self.weights + sum(row.others for row in self.rows)

    @property
    def nonzero_parameters(self) -> int:
        """Non-zero `parameters`."""
        return self.nonzero + sum(row.nonzero_others for row in self.rows)

    @property
    def coefficients(self) -> int:
        """Coefficients of basis-convs."""
        return sum(row.coefficients for row in self.rows)

    @property
    def nonzero_coefficients(self) -> int:
        """Non-zero `coefficients`."""
        return sum(row.nonzero_coefficients for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, including zero weights."""
        return sum(row.macs for row in self.rows)

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates for one image, excluding zero weights."""
        return sum(row.effective_macs for row in self.rows)


@dataclass(frozen=True, slots=True)
class Kept:
    """The share of the parameters that PENNI keeps, in the three definitions used in papers."""

    of_convolutions: float  # coefficients and basis kernels kept, relative to the weights of the original convolutions
    of_coefficients: float  # coefficients kept, relative to those right after the decomposition
    of_network: (
        float  # all parameters kept, relative to the original network, including linear layers, biases and batch norms
    )


def kept(dense: Count, decomposed: Count, left: Mapping[str, int]) -> Kept:
    """Return the shares kept of a network that was `dense`, and `decomposed` before any pruning.

    left: its current `totals`.
    """
    return Kept(
        left["convolutions"] / dense.convs.weights,
        left["coefficients"] / decomposed.coefficients,
        left["parameters"] / dense.parameters,
    )


def totals(counted: Count) -> dict[str, int]:
    """Return weights, products, and non-zero weights, convolutions, coefficients and parameters."""
    return {
        "weights": counted.weights,
        "nonzero": counted.nonzero,
        "macs": counted.macs,
        "effective_macs": counted.effective_macs,
        "convolutions": counted.convs.nonzero,
        "coefficients": counted.nonzero_coefficients,
        "parameters": counted.nonzero_parameters,
    }


def count(module: nn.Module, image: tuple[int, int, int]) -> Count:
    """Count a network with input `image` (channels, height, width); layers that a run does not reach have no MACs.

    Raises BadInput for a layer with weights of an unknown kind, or when the network does not accept the image.
    """
    kinds = {path: str(entry["kind"]) for path, entry in describe(module).items()}
    calls: dict[str, list[_Call]] = {path: [] for path in kinds}
    hooks = [module.get_submodule(path).register_forward_hook(_note(calls[path]), with_kwargs=True) for path in kinds]
    try:
        with evaluating(module):
            dry_run(module, image, module)
    finally:
        for hook in hooks:
            hook.remove()
    return Count(tuple(_row(path, kind, module.get_submodule(path), calls[path]) for path, kind in kinds.items()))


_Call = tuple[Sequence[int], Sequence[int]]  # shapes of a layer's input and output, batch 1
_Sizes = tuple[int, int, int, int]  # weights, those that are not zero, MACs, effective MACs


def _note(calls: list[_Call]) -> Callable[..., None]:
    return lambda layer, given, named, output: calls.append((only(given, named).shape, output.shape))


def _row(path: str, kind: str, layer: nn.Module, calls: list[_Call]) -> Row:
    weights, nonzero, macs, effective = 0, 0, 0, 0
    coefficients, nonzero_coefficients = 0, 0
    if isinstance(layer, SvdConv2d):
        weights, nonzero, macs, effective = _svd(layer, calls)
    elif isinstance(layer, BasisConv2d):
        coefficients, nonzero_coefficients = layer.coefficients.numel(), _nonzero(layer.coefficients)
        weights, nonzero = coefficients + layer.basis.numel(), nonzero_coefficients + _nonzero(layer.basis)
        planes = sum(math.prod(output[2:]) for _, output in calls)
        stage = planes * layer.inputs * layer.basis.numel()  # every input channel times every basis kernel
        macs, effective = stage + planes * coefficients, stage + planes * nonzero_coefficients
    elif isinstance(layer, (nn.Conv2d, nn.Linear)):
        weights, nonzero = layer.weight.numel(), _nonzero(layer.weight)
        conv = isinstance(layer, nn.Conv2d)
        places = sum(math.prod(output[2:] if conv else output[1:-1]) for _, output in calls)
        macs, effective = places * weights, places * nonzero
    others = [one for name, one in layer.named_parameters(recurse=False) if name == "bias" or kind == "batch-norm"]
    return Row(
        path, kind, weights, nonzero, sum(one.numel() for one in others), sum(_nonzero(one) for one in others),
        coefficients, nonzero_coefficients, macs, effective, tuple(calls[-1][1][1:]) if calls else (),
    )  # fmt: skip


def _svd(layer: SvdConv2d, calls: list[_Call]) -> _Sizes:
    """Return the sizes of an SvdConv2d as two thin convolutions (sections 3.1 and 3.3).

    channel: both run at the output's positions. spatial: the vertical one strides over rows only, so it runs at the
    output's rows and the input's columns.
    """
    live = layer.scale != 0
    first, second = _nonzero(layer.first[live]), _nonzero(layer.second[:, live])
    macs, effective = 0, 0
    for inputs, output in calls:
        columns = inputs[3] if layer.scheme == "spatial" else output[3]
        early, late = output[2] * columns, output[2] * output[3]
        macs += early * layer.first.numel() + late * layer.second.numel()
        effective += early * first + late * second
    return layer.first.numel() + layer.second.numel(), first + second, macs, effective


def _nonzero(tensor: Tensor) -> int:
    return int(torch.count_nonzero(tensor))
