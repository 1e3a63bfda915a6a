"""The sparsity of a network for the accelerator simulator: sizes of every layer, zeros of weights and of real inputs.

    found = measure(network, images)

Densities of activations are means over all images. Masks of activations are those of one image, the one whose densities
are closest to the means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tprune.base.errors import BadInput
from tprune.cnn import nets
from tprune.cnn.escalate import is_ternary
from tprune.cnn.forms import BasisConv2d, SvdConv2d, only
from tprune.cnn.images import Images
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit
from tprune.cnn.score import BATCH

Widths = tuple[int, int]  # input and output channels
KINDS = (nn.Conv2d, nn.Linear, SvdConv2d, BasisConv2d)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: `shape` has inputs, outputs, size, kernel, stride, padding and groups; pairs are (height, width).

    `weights` (outputs, inputs / groups, height, width) and `activations` (inputs, height, width) are masks of the
    non-zeros, the latter in one image; `density` is the mean over all images. `signs` (outputs, inputs / groups, bases)
    are those of the coefficients, or of a ternary 1 x 1 kernel; `dense`: the channels before any were cut.
    """

    name: str
    shape: dict[str, Any]
    weights: NDArray[np.bool_]
    activations: NDArray[np.bool_]
    density: float
    signs: NDArray[np.int8] | None = None
    dense: Widths | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A network's layers in execution order, its accuracy (0 to 1), and a note on both."""

    layers: tuple[Layer, ...]
    accuracy: float
    note: str


def measure(
    network: Network,
    images: Images,
    *,
    dense: nn.Module | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Measured:
    """Run the network on all images and return the sparsity of weights and inputs of each layer.

    The accuracy is the last one of the network's history, or else that on the images. `dense`: the network before any
    cut; built if the network is a named one. Raises BadInput for a layer that the simulator does not support (dilated,
    padded with anything but zeros, run twice, neither convolution nor linear layer).
    """
    network.check(images)
    paths = _paths(network.module)
    if dense is None and network.net in nets.NETS:
        dense = nets.named(network.net).build(len(network.classes))
    before = (
        {path: _widths(layer) for path, layer in dense.named_modules() if isinstance(layer, KINDS)} if dense else {}
    )
    densities, right = [], 0
    for pixels, labels in images.batches(BATCH):
        seen, logits = _look(network, pixels, paths)
        densities.append(torch.stack([where.flatten(1).double().mean(1) for where in seen.values()], 1))
        right += int((logits.argmax(1) == labels).sum())
        if watch:
            watch(sum(map(len, densities)), len(images))
    found = torch.cat(densities)  # (images, layers)
    mean = found.mean(0)
    typical = int((found - mean).square().sum(1).argmin())
    seen, _ = _look(network, images.pixels[typical : typical + 1], paths)
    layers = [_layer(paths[one], one, where[0], before) for one, where in seen.items()]
    told = tuple(replace(one, density=density) for one, density in zip(layers, mean.tolist(), strict=True))
    accuracy = network.history[-1].get("accuracy_held_out") if network.history else None
    scored = f"on these {len(images)}" if accuracy is None else "on held-out images, from its history"
    notes = [f"activations: means over {len(images)} images of {images.name}", f"accuracy {scored}"]
    note = "; ".join([*notes, *_notes(seen, paths, before)])
    return Measured(told, right / len(images) if accuracy is None else accuracy, note)


def _paths(module: nn.Module) -> dict[nn.Module, str]:
    """Return the layers with weights; a layer with input rounding has the path of the pair."""
    found: dict[nn.Module, str] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, KINDS):
            _check(path, layer)
            around = module.get_submodule(parent := path.rpartition(".")[0])
            rounded = isinstance(around, nn.Sequential) and isinstance(around[0], EightBit)
            found[layer] = parent if rounded else path
        elif any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False)):
            raise BadInput(f"layer {path!r} is {type(layer).__name__}; the simulator supports Conv2d and Linear")
    return found


def _check(path: str, layer: nn.Module) -> None:
    if not isinstance(layer, nn.Conv2d):
        return
    if layer.dilation != (1, 1):
        raise BadInput(f"layer {path!r} has dilation {layer.dilation}; the simulator does not support it")
    if layer.padding_mode != "zeros":
        raise BadInput(f"layer {path!r} pads by {layer.padding_mode!r}; the simulator supports zeros only")
    if layer.padding == "same" and not all(side % 2 for side in layer.kernel_size):
        raise BadInput(f"layer {path!r} pads one side more than the other; the simulator does not support it")


@torch.inference_mode()
def _look(network: Network, pixels: Tensor, paths: dict[nn.Module, str]) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """Return the mask of the input's non-zeros of every layer, in execution order, and the logits."""
    seen: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        x = only(given, named)
        if layer in seen:
            raise BadInput(f"layer {paths[layer]!r} runs twice for one image; the simulator supports one run per layer")
        if isinstance(layer, nn.Linear) and x.ndim != 2:
            sizes = " x ".join(map(str, x.shape))
            raise BadInput(
                f"layer {paths[layer]!r} is applied to {sizes} values; the simulator supports one row per image"
            )
        seen[layer] = x != 0

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in paths]
    try:
        logits = network.module.eval()(network.normalise(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    return seen, logits


@torch.no_grad()
def _layer(name: str, layer: nn.Module, seen: Tensor, before: dict[str, Widths]) -> Layer:
    """Return one layer with the density of one image."""
    widths = _widths(layer)
    weights = layer.weight() if isinstance(layer, (SvdConv2d, BasisConv2d)) else layer.weight
    assert isinstance(weights, Tensor)
    if isinstance(layer, nn.Linear):
        weights, seen = weights[:, :, None, None], seen[:, None, None]
    size = (seen.shape[1], seen.shape[2])
    shape = {"inputs": widths[0], "outputs": widths[1], "size": size, **_geometry(layer)}
    was = before.get(name)
    mask = seen.numpy()
    return Layer(
        name, shape, (weights != 0).numpy(), mask, float(mask.mean()), _signs(layer), was if was != widths else None
    )


def _widths(layer: nn.Module) -> Widths:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    assert isinstance(layer, (SvdConv2d, BasisConv2d))
    return layer.inputs, layer.outputs


def _geometry(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        return {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1}
    if isinstance(layer, nn.Conv2d):
        named = {"valid": (0, 0), "same": tuple(side // 2 for side in layer.kernel_size)}
        padding = named[layer.padding] if isinstance(layer.padding, str) else layer.padding
        return {"kernel": layer.kernel_size, "stride": layer.stride, "padding": padding, "groups": layer.groups}
    assert isinstance(layer, (SvdConv2d, BasisConv2d))
    return {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding, "groups": 1}


def _signs(layer: nn.Module) -> NDArray[np.int8] | None:
    if isinstance(layer, BasisConv2d):
        return layer.coefficients.sign().to(torch.int8).numpy()
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.kernel_size == (1, 1) and is_ternary(layer.weight):
        return layer.weight.sign()[..., 0].to(torch.int8).numpy()  # one basis: the number 1
    return None


def _notes(seen: Iterable[nn.Module], paths: dict[nn.Module, str], before: dict[str, Widths]) -> list[str]:
    notes = []
    based = [layer for layer in seen if isinstance(layer, BasisConv2d)]
    if based:
        notes.append(
            "designs without bases run the kernels that basis and coefficients make, unless another network is given"
        )
    if real := sum(not is_ternary(layer.coefficients) for layer in based):
        notes.append(f"the coefficients of {real} layers are not ternary; ESCALATE is simulated as if they were")
    if split := sum(paths[layer] not in before for layer in seen) if before else 0:
        notes.append(f"{split} layers are not in the dense network; they count as dense at the size they have")
    return notes
