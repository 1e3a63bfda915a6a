"""PENNI (Li et al., 2020): kernels as sparse combinations of a few basis kernels shared by a layer.

    convert(module, 5)                                # once: W[o, i] ~ sum_b coefficients[o, i, b] basis[b]
    penalty(module, 1e-4).backward()                  # every step; frozen(module, 2) freezes one half
    cut(module, 1.0)                                  # zero small coefficients
    execute(module, image)                            # replace by plain layers, in the faster of two forms

1 x 1 convolutions are not decomposed; their weights are penalised and cut directly.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor, nn

from tprune.base.errors import BadInput
from tprune.cnn import forms
from tprune.cnn.forms import BasisConv2d

ROUNDS = 5  # both executable forms are timed in turn, so that other load slows both


def convert(module: nn.Module, bases: int, *, centred: bool = False) -> dict[str, str]:
    """Decompose every convolution larger than 1 x 1 into its best `bases` shared kernels and their coefficients.

    The best are the first right singular vectors of the kernels as a (outputs inputs) x (k k) matrix. centred: the
    variant of the authors' code, principal components of the kernels with the mean kernel discarded. Returns {path:
    why} of the convolutions left unchanged; layers in this form already are skipped. Raises BadInput when a kernel has
    fewer than `bases` entries, for non-finite weights, and when there is nothing to decompose.
    """
    found, notes = forms.plain_convolutions(module)
    small = [path for path, layer in found.items() if layer.kernel_size == (1, 1)]
    notes |= dict.fromkeys(small, "is 1 x 1: penalised and cut without decomposition")
    large = {path: layer for path, layer in found.items() if path not in small}
    there = {path: layer for path, layer in module.named_modules() if isinstance(layer, BasisConv2d)}
    notes |= {path: f"has {one.bases} bases already" for path, one in there.items() if one.bases != bases}
    if not large and not there:
        raise BadInput("the network has no convolution that PENNI supports" + forms.because(notes))
    for path, layer in large.items():
        most = layer.weight[0, 0].numel()
        if not 1 <= bases <= most:
            raise BadInput(f"bases {bases} must be 1 to {most}: the kernels of layer {path!r} have {most} entries")
    forms.replace(module, {layer: _based(layer, bases, centred) for layer in large.values()})
    return notes


@dataclass(frozen=True)
class SparseCoefficients:
    """strength x sum of |c| over all coefficients and all weights of 1 x 1 convolutions."""

    strength: float
    layers: tuple[BasisConv2d | nn.Conv2d, ...] = field(repr=False)

    def __call__(self) -> Tensor:
        """Return the current value of the penalty, a scalar."""
        norms = [torch.linalg.vector_norm(_cuttable(layer), 1) for layer in self.layers]
        return self.strength * torch.stack(norms).sum()

    def backward(self) -> None:
        """Add the gradient to that of the weights."""
        self().backward()


def penalty(module: nn.Module, strength: float) -> SparseCoefficients:
    """Return the l1 penalty; BadInput for a negative or infinite strength, or a network without basis layers."""
    if not (math.isfinite(strength) and strength >= 0):
        raise BadInput(f"strength {strength} must be 0 or a positive number")
    return SparseCoefficients(strength, tuple(_cuttables(module).values()))


@dataclass(frozen=True)
class Alternation:
    """Which half is frozen in an epoch: coefficients train first, and the halves swap every `interval` epochs.

    They swap at the start of epoch e when e + 1 is a multiple of the interval, as in the authors' code: with 2,
    coefficients train in epoch 0, bases in 1 and 2, coefficients in 3 and 4. With an interval above the number of
    epochs the bases are always frozen, which suits short training, as bases are few of the weights.
    """

    interval: int
    layers: tuple[BasisConv2d, ...] = field(repr=False)

    def __call__(self, epoch: int) -> list[nn.Parameter]:
        """Return the parameters that are frozen in 0-based `epoch`."""
        bases_train = (epoch + 1) // self.interval % 2 == 1
        return [one.coefficients if bases_train else one.basis for one in self.layers]


def frozen(module: nn.Module, interval: int) -> Alternation:
    """Return the alternation of all basis layers; BadInput for an interval below one epoch."""
    if interval < 1:
        raise BadInput(f"interval {interval} must be at least 1 epoch")
    return Alternation(interval, tuple(forms.layers(module, BasisConv2d).values()))


@torch.no_grad()
def cut(module: nn.Module, level: float) -> dict[str, tuple[int, int]]:
    """Zero each coefficient, and weight of a 1 x 1 convolution, below `level` standard deviations of its layer.

    The deviation is that of the non-zero entries: in the first round all entries, as in the paper; in later rounds the
    zeros would lower the threshold and nothing would be cut. Returns {path: (left, total)}. Raises BadInput, before any
    cut, for a level that is negative or would empty a layer.
    """
    if not (math.isfinite(level) and level >= 0):
        raise BadInput(f"level {level} must be a number of standard deviations, 0 or more")
    small = {}
    for path, layer in _cuttables(module).items():
        sizes = _cuttable(layer).abs()
        alive = _cuttable(layer)[sizes > 0]
        small[path] = sizes < level * alive.std(correction=0) if len(alive) else sizes < 0
        if len(alive) and bool(small[path].all()):
            largest = math.floor(100 * float(alive.abs().max() / alive.std(correction=0))) / 100
            raise BadInput(
                f"level {level} would empty layer {path!r}; the largest that leaves something is {largest:g}"
            )
    left = {}
    for path, layer in _cuttables(module).items():
        entries = _cuttable(layer).masked_fill_(small[path], 0)
        left[path] = (int(entries.count_nonzero()), entries.numel())
    return left


class Choice(TypedDict):
    """The chosen form of a layer, dense or basis, and the seconds of both on one image."""

    form: str
    dense: float
    basis: float


@torch.inference_mode()
def torch_seconds(layer: nn.Module, x: Tensor) -> float:
    """Return the latency of a layer in torch on one thread in seconds: the median of 10 after a warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layer(x)
        return statistics.median(_seconds(layer, x) for _ in range(10))
    finally:
        torch.set_num_threads(threads)


def _seconds(layer: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    layer(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.no_grad()
def execute(
    module: nn.Module, image: tuple[int, int, int], seconds: Callable[[nn.Module, Tensor], float] = torch_seconds
) -> dict[str, Choice]:
    """Replace every basis layer by plain ones: a dense kernel, or depthwise bases and pointwise coefficients.

    The faster form is chosen by `seconds(layer, input)` on the layer's input for one image (channels, height, width),
    as the median of interleaved rounds. The function is unchanged; unused bases are dropped from the second form.
    Returns {path: choice}; BadInput when the network does not accept the image.
    """
    found = forms.layers(module, BasisConv2d)
    seen = forms.inputs(module, image, BasisConv2d)
    choices: dict[str, Choice] = {}
    made: dict[BasisConv2d, nn.Module] = {}
    for path, layer in found.items():
        both = (forms.dense(layer), _separate(layer))
        rounds = [[sum(seconds(plain, x) for x in seen.get(layer, [])) for plain in both] for _ in range(ROUNDS)]
        dense, basis = (statistics.median(times) for times in zip(*rounds, strict=True))
        choices[path] = {"form": "basis" if basis < dense else "dense", "dense": dense, "basis": basis}
        made[layer] = both[basis < dense]
    forms.replace(module, made)
    return choices


@torch.no_grad()
def _based(layer: nn.Conv2d, bases: int, centred: bool) -> BasisConv2d:
    kernels = layer.weight.double().flatten(2)  # (outputs, inputs, k k)
    if centred:
        kernels = kernels - kernels.mean((0, 1))
    rows = kernels.flatten(0, 1)
    # Right singular vectors from the small Gram matrix: all k k of them, even if there are fewer kernels.
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    basis = vectors.T.flip(0)[:bases]
    form = BasisConv2d(bases=bases, **forms.geometry(layer))
    values = {"basis": basis.view(bases, *layer.kernel_size), "coefficients": kernels @ basis.T, "bias": layer.bias}
    return forms.filled(form, layer.weight, **values)


def _cuttables(module: nn.Module) -> dict[str, BasisConv2d | nn.Conv2d]:
    based = forms.layers(module, BasisConv2d)
    plain = {path: layer for path, layer in module.named_modules() if type(layer) is nn.Conv2d}
    return {**based, **{path: one for path, one in plain.items() if one.kernel_size == (1, 1) and one.groups == 1}}


def _cuttable(layer: BasisConv2d | nn.Conv2d) -> Tensor:
    return layer.coefficients if isinstance(layer, BasisConv2d) else layer.weight


def _separate(layer: BasisConv2d) -> nn.Sequential:
    """Return a depthwise convolution, whose output i bases + b is input i with basis b, and a pointwise one."""
    used = (layer.coefficients != 0).any(0).any(0).nonzero()[:, 0]
    used = used if len(used) else used.new_zeros(1)  # a layer of zeros keeps one basis
    maps = layer.inputs * len(used)
    depthwise = nn.Conv2d(
        layer.inputs, maps, layer.kernel, layer.stride, layer.padding, groups=layer.inputs, bias=False
    )
    pointwise = nn.Conv2d(maps, layer.outputs, 1, bias=layer.bias is not None)
    kernels = layer.basis[used].repeat(layer.inputs, 1, 1)[:, None]
    coefficients = layer.coefficients[:, :, used].flatten(1)[..., None, None]
    forms.filled(depthwise, kernels, weight=kernels)
    forms.filled(pointwise, kernels, weight=coefficients, bias=layer.bias)
    return nn.Sequential(depthwise, pointwise)
