"""Training forms of a convolution: singular vectors and values, or a shared kernel basis.

Both compose the kernel from their factors and run one ordinary convolution. This computes the same function as the
factors in sequence, at about the cost of the dense layer; full-rank factors would need up to twice as many products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tprune.base.errors import BadInput
from tprune.cnn import strided  # noqa: F401 - replaces a broken operator of torch

Layer = TypeVar("Layer", bound=nn.Module)


class SvdConv2d(nn.Module):
    """A convolution W = second · diag(|scale|) · first of `rank` singular values (SVD training, section 3).

    channel: first (rank, inputs, k, k), second (outputs, rank, 1, 1): W as an outputs x (inputs k k) matrix.
    spatial: first (rank, inputs, k, 1), second (outputs, rank, 1, k): W as an (outputs k) x (inputs k) matrix.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        rank: int,
        *,
        scheme: str,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.rank, self.scheme = inputs, outputs, rank, scheme
        self.kernel, self.stride, self.padding = (_two(one) for one in (kernel, stride, padding))
        (height, width), spatial = self.kernel, scheme == "spatial"
        self.first = nn.Parameter(torch.empty(rank, inputs, height, 1 if spatial else width))
        self.second = nn.Parameter(torch.empty(outputs, rank, 1, width if spatial else 1))
        self.scale = nn.Parameter(torch.empty(rank))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def weight(self) -> Tensor:
        """Return the composed kernel (outputs, inputs, k, k) in full precision."""
        with torch.autocast(self.scale.device.type, enabled=False):
            second = self.second * self.scale.abs()[:, None, None]
            if self.scheme == "channel":
                return (second.flatten(1) @ self.first.flatten(1)).view(self.outputs, self.inputs, *self.kernel)
            return torch.einsum("orx,riy->oiyx", second[:, :, 0, :], self.first[..., 0])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, inputs, height, width) with `weight()`."""
        return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding)

    def about(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer."""
        geometry = {"kernel": list(self.kernel), "stride": list(self.stride), "padding": list(self.padding)}
        return {
            "inputs": self.inputs, "outputs": self.outputs, "rank": self.rank, "scheme": self.scheme, **geometry,
            "bias": self.bias is not None,
        }  # fmt: skip


class BasisConv2d(nn.Module):
    """A convolution whose kernels are combinations of `bases` kernels shared by the layer (PENNI, section 3.1).

    W[o, i] = sum_b coefficients[o, i, b] · basis[b], with coefficients (outputs, inputs, bases), basis (bases, k, k).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        bases: int,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.bases = inputs, outputs, bases
        self.kernel, self.stride, self.padding = (_two(one) for one in (kernel, stride, padding))
        self.basis = nn.Parameter(torch.empty(bases, *self.kernel))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, bases))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def weight(self) -> Tensor:
        """Return the composed kernel (outputs, inputs, k, k) in full precision."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return (self.coefficients @ self.basis.flatten(1)).view(self.outputs, self.inputs, *self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, inputs, height, width) with `weight()`."""
        return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding)

    def about(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer."""
        geometry = {"kernel": list(self.kernel), "stride": list(self.stride), "padding": list(self.padding)}
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "bases": self.bases}
        return {**sizes, **geometry, "bias": self.bias is not None}


def plain_convolutions(module: nn.Module) -> tuple[dict[str, nn.Conv2d], dict[str, str]]:
    """Return the convolutions of a network that can be decomposed, and {path: why not} of all others.

    Raises BadInput for non-finite weights.
    """
    found: dict[str, nn.Conv2d] = {}
    notes: dict[str, str] = {}
    for path, layer in module.named_modules():
        if not isinstance(layer, nn.modules.conv._ConvNd):
            continue
        if type(layer) is not nn.Conv2d:
            notes[path] = f"is {type(layer).__name__}, not Conv2d"
        elif reason := _why_not(layer) if path else "is the whole network; put it into a Sequential":
            notes[path] = reason
        elif not bool(torch.isfinite(layer.weight).all()):
            raise BadInput(f"layer {path!r} has weights that are not finite; it cannot be decomposed")
        else:
            found[path] = layer
    return found, notes


def because(notes: dict[str, str]) -> str:
    """Return the first of the notes as the end of a message."""
    return "".join(f": {path} {why}" for path, why in list(notes.items())[:1])


@torch.no_grad()
def filled(layer: Layer, like: Tensor, **values: Tensor | None) -> Layer:
    """Return the layer with the device and dtype of `like` and the given parameters copied in; None is skipped."""
    layer = layer.to(like.device, like.dtype)
    for name, value in values.items():
        if value is not None:
            getattr(layer, name).copy_(value)
    return layer


def dense(layer: SvdConv2d | BasisConv2d) -> nn.Conv2d:
    """Return the plain convolution with the composed kernel."""
    has_bias, weight = layer.bias is not None, layer.weight()
    plain = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=has_bias)
    return filled(plain, weight, weight=weight, bias=layer.bias)


def geometry(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments of a form that equal those of a plain convolution."""
    return {
        "inputs": layer.in_channels, "outputs": layer.out_channels, "kernel": layer.kernel_size,
        "stride": layer.stride, "padding": layer.padding, "bias": layer.bias is not None,
    }  # fmt: skip


def replace(module: nn.Module, forms: Mapping[Layer, nn.Module]) -> None:
    """Replace each key by its value, at all its paths and in the same mode (train or eval)."""
    places = [(path, one) for path, one in module.named_modules(remove_duplicate=False) if one in forms]
    for path, layer in places:
        module.set_submodule(path, forms[layer].train(layer.training))


def layers(module: nn.Module, form: type[Layer]) -> dict[str, Layer]:
    """Return the layers of one form by path; BadInput when the network has none."""
    found = {path: layer for path, layer in module.named_modules() if type(layer) is form}
    if not found:
        raise BadInput(f"the network has no {form.__name__} layer; convert it first")
    return found


def only(given: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Tensor:
    """Return the single input of a layer, positional or by name, from the arguments of a hook."""
    return (*given, *named.values())[0]


@torch.no_grad()
def inputs(module: nn.Module, image: Sequence[int], form: type[Layer]) -> dict[Layer, list[Tensor]]:
    """Return the inputs of every layer of one form when the network runs on one image (channels, height, width).

    Raises BadInput when the network does not accept the image.
    """
    seen: dict[Layer, list[Tensor]] = {}
    modes = {layer: layer.training for layer in module.modules()}
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, given, named: seen.setdefault(layer, []).append(only(given, named)), with_kwargs=True
        )
        for layer in modes
        if type(layer) is form
    ]
    like = next(module.parameters())
    picture = torch.rand(1, *image, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        module.eval()(picture.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"the network does not accept an image of {' x '.join(map(str, image))}: {reason}") from None
    finally:
        for hook in hooks:
            hook.remove()
        for layer, training in modes.items():
            layer.training = training
    return seen


def _why_not(layer: nn.Conv2d) -> str | None:
    if layer.groups != 1:
        return f"has {layer.groups} groups"
    if layer.dilation != (1, 1):
        return f"is dilated by {layer.dilation[0]} x {layer.dilation[1]}"
    if isinstance(layer.padding, str):
        return f"is padded by name ({layer.padding!r})"
    if layer.padding_mode != "zeros":
        return f"is padded with {layer.padding_mode!r}, not zeros"
    return None


def _two(one: Sequence[int]) -> tuple[int, int]:
    return (int(one[0]), int(one[1]))
