"""SVD training (Yang et al., 2020): train the singular vectors and values of every convolution, and cut small values.

    convert(module, "channel")                        # once; the function is unchanged
    penalty(module, "hoyer", 0.03, 1.0).backward()    # every step; no decomposition is computed
    cut(module, 0.01); thin(module, image)            # two thin convolutions a layer

W = N diag(|s|) C, where the penalty ||N^T N - I||^2 + ||C C^T - I||^2 keeps N and C nearly orthonormal, so that s
approximates the singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tprune.base.errors import BadInput
from tprune.base.hoyer import hoyer, hoyer_square
from tprune.cnn import forms
from tprune.cnn.forms import SvdConv2d
from tprune.cnn.settings import SCHEMES

# name -> measure of a layer's singular values, smallest where they are sparsest
SPARSITY: dict[str, Callable[[Tensor], Tensor]] = {
    "hoyer": lambda s: hoyer(s) - 1,
    "hoyer-square": lambda s: hoyer_square(s) - 1,
    "l1": lambda s: torch.linalg.vector_norm(s, 1),
}
PENALTIES = ("none", *SPARSITY)


def convert(module: nn.Module, scheme: str) -> dict[str, str]:
    """Factor every convolution into singular vectors and values at full rank; the function is unchanged.

    scheme: channel or spatial, see `SvdConv2d`. Returns {path: why} of the convolutions left unchanged. Layers in this
    form already are skipped. Raises BadInput for an unknown scheme, non-finite weights, and a network without a
    suitable convolution.
    """
    if scheme not in SCHEMES:
        raise BadInput(f"scheme {scheme!r} must be {' or '.join(SCHEMES)}")
    found, notes = forms.plain_convolutions(module)
    there = {path: layer for path, layer in module.named_modules() if isinstance(layer, SvdConv2d)}
    notes |= {path: f"is factored already, by {one.scheme}" for path, one in there.items() if one.scheme != scheme}
    if not found and not there:
        raise BadInput("the network has no convolution that SVD training supports" + forms.because(notes))
    forms.replace(module, {layer: _factored(layer, scheme) for layer in found.values()})
    return notes


@dataclass(frozen=True)
class LowRank:
    """strength x sum of R(s) + orthogonality x sum of (||N^T N - I||_F^2 + ||C C^T - I||_F^2) / rank^2, over layers.

    R: hoyer ||s||_1 / ||s||_2 - 1, hoyer-square ||s||_1^2 / ||s||_2^2 - 1, l1 ||s||_1. If the other side of a factor
    is shorter than the rank, orthonormality is required along that side.
    """

    name: str
    strength: float
    orthogonality: float
    layers: tuple[SvdConv2d, ...] = field(repr=False)

    def __call__(self) -> Tensor:
        """Return the current value of the penalty, a scalar."""
        total = self.layers[0].scale.new_zeros(())
        if self.strength and self.name != "none":
            total = total + self.strength * torch.stack([SPARSITY[self.name](one.scale) for one in self.layers]).sum()
        if self.orthogonality:
            alike: dict[tuple[int, Sequence[int]], list[Tensor]] = {}
            for rank, factor in _factors(self.layers):
                alike.setdefault((rank, factor.shape), []).append(factor)
            for (rank, _), factors in alike.items():
                total = total + _Orthogonality.apply(self.orthogonality / rank**2, *factors)
        return total

    def backward(self) -> None:
        """Add its gradient to that of the factors."""
        value = self()
        if value.requires_grad:  # not without any strength
            value.backward()


def penalty(module: nn.Module, name: str, strength: float, orthogonality: float) -> LowRank:
    """Return the penalty over all factored layers; name is none, hoyer, hoyer-square or l1 (on singular values).

    Raises BadInput for another name, a negative or infinite weight, and a network without factored layers.
    """
    if name not in PENALTIES:
        raise BadInput(f"penalty {name!r} must be one of {', '.join(PENALTIES)}")
    for what, value in (("strength", strength), ("orthogonality", orthogonality)):
        if not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{what} {value} must be 0 or a positive number")
    return LowRank(name, strength, orthogonality, tuple(forms.layers(module, SvdConv2d).values()))


@torch.no_grad()
def cut(module: nn.Module, energy: float) -> dict[str, tuple[int, int]]:
    """Remove the smallest singular values of each layer, up to the share `energy` of their sum of squares.

    As in the paper, the trained values |s| are used; how well they approximate those of the composed kernel depends on
    the orthogonality penalty. The largest one is always kept. Parameters are replaced, so optimisers must be recreated.
    Returns {path: (rank before, rank after)}; BadInput unless energy is in [0, 1).
    """
    if not 0 <= energy < 1:
        raise BadInput(f"energy {energy} must be in [0, 1): the share of the squared singular values to remove")
    ranks = {}
    for path, layer in forms.layers(module, SvdConv2d).items():
        kept = _kept(layer.scale, energy)
        ranks[path] = (layer.rank, len(kept))
        layer.first = nn.Parameter(layer.first[kept])
        layer.second = nn.Parameter(layer.second[:, kept])
        layer.scale = nn.Parameter(layer.scale[kept])
        layer.rank = len(kept)
    return ranks


@torch.no_grad()
def thin(module: nn.Module, image: tuple[int, int, int]) -> dict[str, Literal["pair", "dense"]]:
    """Replace every factored layer by two thin convolutions, or by a dense one if that needs no more products.

    channel: k x k to `rank` channels, then 1 x 1; spatial: k x 1, then 1 x k. Both are scaled by the square root of
    |s|, and the second has the bias. The function is unchanged. image: channels, height, width. Returns {path: which};
    BadInput when the network does not accept the image.
    """
    found = forms.layers(module, SvdConv2d)
    seen = forms.inputs(module, image, SvdConv2d)
    made = {layer: _thinner(layer, seen.get(layer, [])) for layer in found.values()}
    forms.replace(module, made)
    return {path: "pair" if isinstance(made[layer], nn.Sequential) else "dense" for path, layer in found.items()}


@torch.no_grad()
def _factored(layer: nn.Conv2d, scheme: str) -> SvdConv2d:
    outputs, inputs, height, width = layer.weight.shape
    weight = layer.weight.double()
    if scheme == "channel":
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        first = right.view(-1, inputs, height, width)
        second = left[:, :, None, None]
    else:
        matrix = weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        first = right.view(-1, inputs, height, 1)
        second = left.view(outputs, width, -1).transpose(1, 2)[:, :, None]
    form = SvdConv2d(rank=len(values), scheme=scheme, **forms.geometry(layer))
    return forms.filled(form, layer.weight, first=first, second=second, scale=values, bias=layer.bias)


def _factors(layers: Sequence[SvdConv2d]) -> Iterator[tuple[int, Tensor]]:
    """Yield two (rank, factor) pairs per layer; the first dimension of a factor is its shorter side."""
    for layer in layers:
        for factor in (layer.first, layer.second.transpose(0, 1)):
            tall = layer.rank > factor[0].numel()
            yield layer.rank, factor.flatten(1).T if tall else factor


class _Orthogonality(torch.autograd.Function):
    """scale x sum over equally shaped A of ||A A^T - I||_F^2, and its gradient 4 scale (A A^T - I) A.

    Factors of one shape are batched and the gradient is in closed form: half the time of autograd layer by layer.
    """

    @staticmethod
    def forward(ctx: Any, scale: float, *factors: Tensor) -> Tensor:
        stacked = torch.stack(factors).flatten(2)  # (count, short side, long side)
        gap = stacked @ stacked.mT
        gap.diagonal(dim1=1, dim2=2).sub_(1)
        ctx.save_for_backward((gap @ stacked).mul_(4 * scale))
        ctx.shape = factors[0].shape
        return gap.square().sum() * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (None, *(one.view(ctx.shape) for one in slope * grad))


def _kept(scale: Tensor, energy: float) -> Tensor:
    """Return the sorted indices of the fewest values with (1 - energy) of the sum of squares."""
    squares, order = scale.double().square().sort(descending=True, stable=True)
    held = squares.cumsum(0)
    count = 1 + int((held < (1 - energy) * held[-1]).sum())
    return order[: min(count, len(order))].sort().values


def _thinner(layer: SvdConv2d, inputs: Sequence[Tensor]) -> nn.Conv2d | nn.Sequential:
    (height, width), (down, across), (top, side) = layer.kernel, layer.stride, layer.padding
    root, has_bias = layer.scale.abs().sqrt()[:, None, None], layer.bias is not None
    if layer.scheme == "channel":
        first = nn.Conv2d(layer.inputs, layer.rank, layer.kernel, layer.stride, layer.padding, bias=False)
        second = nn.Conv2d(layer.rank, layer.outputs, 1, bias=has_bias)
    else:
        first = nn.Conv2d(layer.inputs, layer.rank, (height, 1), (down, 1), (top, 0), bias=False)
        second = nn.Conv2d(layer.rank, layer.outputs, (1, width), (1, across), (0, side), bias=has_bias)
    forms.filled(first, root, weight=layer.first * root[..., None])
    forms.filled(second, root, weight=layer.second * root, bias=layer.bias)
    pair, dense = nn.Sequential(first, second), forms.dense(layer)
    return pair if sum(_products(pair, x) for x in inputs) < sum(_products(dense, x) for x in inputs) else dense


def _products(layer: nn.Module, x: Tensor) -> int:
    """Return the multiplications of a sequence of convolutions on the input."""
    total = 0
    for one in (one for one in layer.modules() if isinstance(one, nn.Conv2d)):
        x = one(x)
        total += x.numel() * one.weight[0].numel()
    return total
