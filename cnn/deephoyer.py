"""DeepHoyer (Yang, Wen and Li, ICLR 2020): train with a sparsity-inducing penalty, then cut small weights.

    penalty(module, "hoyer-square", 1e-4).backward()   # every step, after that of the loss
    cut(module, 0.5, structural=False, image=(1, 28, 28))

Weights of `Conv2d` and `Linear` and the coefficients of layers in PENNI's form are penalised and cut, each tensor W
separately and all with the same strength; biases, norms and bases are not. Element-wise measures, with sums over the
entries w of W:

    l1               sum |w|
    transformed-l1   sum (a + 1) |w| / (a + |w|) with a = 1   (Zhang and Xin, 2018)
    hoyer            sum |w| / sqrt(sum w^2)
    hoyer-square     (sum |w|)^2 / sum w^2

Structural measures, over the norms of the filters (rows) W[f] and of the input channels (columns) W[:, c] of W:

    group-lasso      sum_f ||W[f]|| + sum_c ||W[:, c]||
    group-hs         ((sum_f ||W[f]||)^2 + (sum_c ||W[:, c]||)^2) / ||W||^2
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tprune.base import hoyer as hoyers
from tprune.base.errors import BadInput
from tprune.cnn.channels import spaces
from tprune.cnn.forms import BasisConv2d

Image = tuple[int, int, int]  # channels, height, width
LAYERS = (nn.Conv2d, nn.Linear, BasisConv2d)
Mask = Callable[[float], Tensor]  # level -> mask of the kept entries, broadcasting over a weight


@dataclass(frozen=True, slots=True)
class Penalty:
    """`strength` times the measure `name` of the trainable weights; calling it returns the value, a scalar."""

    name: str
    strength: float
    image: Image | None
    measure: Callable[[], Tensor] = field(repr=False)
    pull: Callable[[float], None] = field(repr=False)

    def __call__(self) -> Tensor:
        return self.strength * self.measure()

    def backward(self) -> None:
        """Add the gradient, in closed form, to that of the weights."""
        self.pull(self.strength)


def penalty(module: nn.Module, name: str, strength: float, image: Image | None = None) -> Penalty:
    """Return the penalty `name` on all trainable weights of `module`.

    The groups of a structural penalty are, given an `image`, those that `cut` can remove; otherwise all rows and
    columns of every weight, as in the paper. BadInput lists the legal names and strengths.
    """
    if name not in ELEMENTWISE and name not in STRUCTURAL:
        raise BadInput(f"penalty {name!r} is not known; legal are {', '.join((*ELEMENTWISE, *STRUCTURAL))}")
    if not 0 <= strength < math.inf:
        raise BadInput(f"strength {strength} of the penalty must be a number, 0 or more")
    if name in ELEMENTWISE:
        weights = [weight for weight in _weights(module).values() if weight.requires_grad]
        if not weights:
            raise BadInput("no weight of the network trains: all have requires_grad off")
        value, pull = ELEMENTWISE[name]
        return Penalty(name, strength, image, functools.partial(value, weights), functools.partial(pull, weights))
    lines = [one for one in _lines(module, image)[0] if one.weight.requires_grad]
    of_groups, slopes = STRUCTURAL[name]
    measure, add = functools.partial(_structural, of_groups, lines), functools.partial(_pull_lines, slopes, lines)
    return Penalty(name, strength, image, measure, add)


def none(weights: Sequence[Tensor]) -> Tensor:
    """Return 0: no penalty."""
    return weights[0].new_zeros(())


def l1(weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of |w|, a scalar."""
    return torch.stack([w.abs().sum() for w in weights]).sum()


def transformed_l1(weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of 2 |w| / (1 + |w|), a scalar: about 2 |w| near 0, at most 2 per entry."""
    return torch.stack([2 * (size / (1 + size)).sum() for size in (w.abs() for w in weights)]).sum()


def hoyer(weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of the tensors' Hoyer measures, a scalar."""
    return torch.stack([hoyers.hoyer(w) for w in weights]).sum()


def hoyer_square(weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of the tensors' Hoyer-Square measures, a scalar."""
    return torch.stack([hoyers.hoyer_square(w) for w in weights]).sum()


def _pull_nowhere(weights: Sequence[Tensor], strength: float) -> None:
    """The gradient of `none`."""


@torch.no_grad()
def _pull_l1(weights: Sequence[Tensor], strength: float) -> None:
    for w in weights:
        hoyers.gradient(w).add_(w.sign(), alpha=strength)


@torch.no_grad()
def _pull_transformed_l1(weights: Sequence[Tensor], strength: float) -> None:
    for w in weights:
        hoyers.gradient(w).addcdiv_(w.sign(), w.abs().add_(1).square_(), value=2 * strength)


_Pull = Callable[[Sequence[Tensor], float], None]  # (weights, strength): adds to their gradients
ELEMENTWISE: dict[str, tuple[Callable[[Sequence[Tensor]], Tensor], _Pull]] = {  # value, its gradient
    "none": (none, _pull_nowhere),
    "l1": (l1, _pull_l1),
    "transformed-l1": (transformed_l1, _pull_transformed_l1),
    "hoyer": (hoyer, functools.partial(hoyers.add_hoyer_gradients, square=False)),
    "hoyer-square": (hoyer_square, functools.partial(hoyers.add_hoyer_gradients, square=True)),
}
_Slopes = Callable[[Tensor], Tensor]
STRUCTURAL: dict[str, tuple[Callable[[Tensor], Tensor], _Slopes]] = {  # of squared norms of groups: value, derivatives
    "group-lasso": (hoyers.group_lasso, hoyers.group_lasso_slopes),
    "group-hs": (hoyers.group_hoyer_square, hoyers.group_hoyer_square_slopes),
}


def _structural(of_groups: Callable[[Tensor], Tensor], lines: Sequence[_Lines]) -> Tensor:
    return torch.stack([of_groups(one.squares(one.weight.square())) for one in lines]).sum()


@torch.no_grad()
def _pull_lines(slopes: _Slopes, lines: Sequence[_Lines], strength: float) -> None:
    """Add 2 w times the sum of the derivatives for w's filter and input channel."""
    for _, group in itertools.groupby(lines, lambda one: one.path):
        own = list(group)
        weight = own[0].weight
        square = weight.square()
        of_both = functools.reduce(torch.add, [one.spread(slopes(one.squares(square))) for one in own])
        hoyers.gradient(weight).addcmul_(weight, of_both, value=2 * strength)


@dataclass(frozen=True, slots=True)
class Gone:
    """Number of zero weights, filters or inputs of a layer after a cut, out of `of`."""

    path: str
    what: str  # "weights", "filters" or "inputs"
    zero: int
    of: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Result of a cut at `level`: zeros in the order of the network, and the layers left alone (path -> why)."""

    level: float
    gone: tuple[Gone, ...]
    left: dict[str, str]


@torch.no_grad()
def cut(module: nn.Module, level: float, *, structural: bool, image: Image) -> Cut:
    """Zero small weights in place, relative to their tensor.

    Element-wise: entries below `level` standard deviations of the tensor. Structural: filters whose norm is below
    `level` times the root mean square over the layer's filters, and input channels likewise, if `tprune.cnn.channels`
    allows it; a Linear that reads a flattened map has the map's channels as inputs. Zeros are excluded from the
    statistics, so that a later cut is the same before and after shrinking. Raises BadInput, before any cut, for a level
    that would empty a layer.
    """
    if not 0 <= level < math.inf:
        raise BadInput(f"cut level {level} must be a number, 0 or more")
    weights, (lines, left) = _weights(module), _lines(module, image) if structural else ([], {})
    masks: dict[str, Mask] = {
        path: functools.partial(_mask, weight, [one for one in lines if one.path == path] if structural else None)
        for path, weight in weights.items()
    }
    for path, weight in weights.items():
        if _empties(weight, masks[path], level):
            largest = min(_largest(weight, masks[path], level) for path, weight in weights.items())
            raise BadInput(f"cut level {level:g} would empty layer {path!r}; the largest legal level is {largest:g}")
    for path, weight in weights.items():
        weight.mul_(masks[path](level))
    if structural:
        return Cut(level, tuple(one.gone() for one in lines), left)
    return Cut(level, tuple(Gone(path, "weights", int((w == 0).sum()), w.numel()) for path, w in weights.items()), left)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The filters (dim 0) or the input channels (dim 1, `repeat` inputs each) of one weight."""

    path: str
    weight: Tensor
    dim: int
    repeat: int = 1

    def squares(self, square: Tensor) -> Tensor:
        """Return the squared norms, shape (filters or channels,), of the weight's `square`."""
        norms = square.sum([dim for dim in range(square.ndim) if dim != self.dim])
        return norms if self.repeat == 1 else norms.view(-1, self.repeat).sum(1)

    def spread(self, values: Tensor) -> Tensor:
        """Return `values`, one per filter or channel, in a shape that broadcasts over the weight."""
        values = values if self.repeat == 1 else values.repeat_interleave(self.repeat)
        return values.view([-1 if dim == self.dim else 1 for dim in range(self.weight.ndim)])

    def keep(self, level: float) -> Tensor:
        """Return the mask of the filters or channels to keep, broadcasting over the weight."""
        squares = self.squares(self.weight.square())
        return self.spread(squares.sqrt() >= level * squares[squares > 0].mean().sqrt())

    def gone(self) -> Gone:
        """Return the number of zero filters or channels."""
        squares = self.squares(self.weight.square())
        return Gone(self.path, ("filters", "inputs")[self.dim], int((squares == 0).sum()), len(squares))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Return every weight once, by the path of its layer."""
    layers = {path: layer for path, layer in module.named_modules() if isinstance(layer, LAYERS)}
    found = {
        layer.coefficients if isinstance(layer, BasisConv2d) else layer.weight: path for path, layer in layers.items()
    }
    if not found:
        raise BadInput("the network has neither a Conv2d nor a Linear")
    return {path: weight for weight, path in found.items()}


def _lines(module: nn.Module, image: Image | None) -> tuple[list[_Lines], dict[str, str]]:
    """Return the filters and channels of every weight in network order, and {path: why} of layers without any."""
    weights = _weights(module)
    if image is None:
        return [_Lines(path, weight, dim) for path, weight in weights.items() for dim in (0, 1)], {}
    found, lines = spaces(module, image), []
    reasons: dict[str, str] = {}
    for space in found:
        ends = [(end.path, 0, 1) for end in space.writers] + [(link.path, 0, 1) for link in space.links]
        ends += [(end.path, 1, end.repeat) for end in space.readers]
        for path, dim, repeat in dict.fromkeys(ends):  # once, even if the layer is called several times
            if space.fixed:
                reasons.setdefault(path, space.fixed)
            elif path in weights:
                lines.append(_Lines(path, weights[path], dim, repeat))
    for path in weights.keys() - reasons.keys():  # in no space; the spaces that it touches have the reason
        reasons[path] = next((one.fixed for one in found if repr(path) in one.fixed), "its channels are not supported")
    left = {path: reasons[path] for path in weights if path not in {one.path for one in lines}}
    return sorted(lines, key=lambda one: list(weights).index(one.path)), left


def _mask(weight: Tensor, lines: Sequence[_Lines] | None, level: float) -> Tensor:
    if lines is None:
        alive = weight[weight != 0]
        return weight.abs() >= level * alive.std(correction=0) if len(alive) else weight != 0
    return functools.reduce(torch.mul, (one.keep(level) for one in lines), torch.ones_like(weight, dtype=torch.bool))


def _empties(weight: Tensor, mask: Mask, level: float) -> bool:
    return bool(weight.any()) and not bool((weight * mask(level)).any())


def _largest(weight: Tensor, mask: Mask, level: float) -> float:
    """Return the largest legal level up to `level`, rounded down to three digits."""
    low, high = 0.0, level
    if not _empties(weight, mask, level):
        return level
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _empties(weight, mask, middle) else (middle, high)
    unit = 10.0 ** (math.floor(math.log10(low)) - 2)
    return math.floor(low / unit) * unit
