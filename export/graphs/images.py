"""The exported module of an image network: pixels from 0 to 1 in, logits out, plain layers only.

Both back ends export the same one. Convolutions that training keeps as factors are multiplied out, batch norms are
folded into the convolutions before them, and what the network wants of its pixels (mean, deviation) is the first thing
that the graph does.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn

from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.network import Network
from tprune.cnn.rounding import STEPS, EightBit
from tprune.cnn.structure import place
from tprune.export.graphs.ports import Port

Folded = tuple[Tensor, Tensor]  # a norm as (scale, shift), one of each a channel, in float64


class ClassifierGraph(nn.Module):
    """image (1, channels, height, width) float32, 0 to 1 -> logits (1, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.body = fold_norms(plain(network.module))
        self.scaled = any(network.mean) or any(one != 1 for one in network.std)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(network, name))[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of one image."""
        return self.body((image - self.mean) / self.std if self.scaled else image)


class Rounded(nn.Module):
    """An `EightBit` layer after training, with constant scale and zero point."""

    scale: Tensor
    zero: Tensor

    def __init__(self, layer: EightBit) -> None:
        super().__init__()
        low, high = layer.range.tolist()
        self.rounds = high > low
        scale = (layer.range[1] - layer.range[0]) / STEPS if self.rounds else torch.ones(())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", (-layer.range[0] / scale).round())

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        if not self.rounds:
            return x
        return (((x / self.scale).round() + self.zero).clamp(0, STEPS) - self.zero) * self.scale


def ports(network: Network) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and outputs of a network's graph."""
    return (Port("image", "float32", (1, *network.image)),), (Port("logits", "float32", (1, len(network.classes))),)


def plain(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode with torch's own layers and `Rounded` only; factors are multiplied out."""
    copied = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for path, layer in list(copied.named_modules()):
        if isinstance(layer, (SvdConv2d, BasisConv2d)):
            place(copied, path, _composed(layer))
        elif isinstance(layer, EightBit):
            place(copied, path, Rounded(layer))
    return copied


@torch.no_grad()
def _composed(layer: SvdConv2d | BasisConv2d) -> nn.Conv2d:
    biased = layer.bias is not None
    conv = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=biased)
    conv.weight.copy_(layer.weight())
    if conv.bias is not None and layer.bias is not None:
        conv.bias.copy_(layer.bias)
    return conv.eval()


@torch.no_grad()
def fold_norms(module: nn.Module) -> nn.Module:
    """Return a module of the same function without batch norms; `module` must be in eval mode and is consumed.

    norm(conv(x)) = (s W) * x + s b + t with s = weight / sqrt(var + eps), t = bias - s mean. A norm that follows no
    convolution of its own becomes a 1 x 1 convolution of every channel by itself. A module whose calls depend on what
    it computes cannot be followed and is returned as it is: runtimes do most of this themselves.
    """
    try:
        traced = fx.symbolic_trace(module)
    except fx.proxy.TraceError:
        return module
    layers = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        before = node.args[0]
        conv = layers.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(conv, nn.Conv2d) and calls[before.target] == calls[node.target] == len(before.users) == 1:
            _scale(conv, _scale_shift(norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif calls[node.target] == 1:
            place(traced, str(node.target), _by_channel(_scale_shift(norm)))
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _scale_shift(norm: nn.BatchNorm2d) -> Folded:
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -scale * mean
    return scale, shift if norm.bias is None else shift + norm.bias


def _scale(conv: nn.Conv2d, folded: Folded) -> None:
    scale, shift = folded
    bias = shift if conv.bias is None else conv.bias.double() * scale + shift
    conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    conv.bias = nn.Parameter(bias.float())


def _by_channel(folded: Folded) -> nn.Conv2d:
    scale, shift = folded
    conv = nn.Conv2d(len(scale), len(scale), 1, groups=len(scale))
    conv.weight.copy_(scale[:, None, None, None])
    assert conv.bias is not None
    conv.bias.copy_(shift)
    return conv.eval()
