"""The algorithm of ESCALATE (Li et al., MICRO-54, 2021): ternary coefficients on an 8-bit basis, 8-bit activations.

    convert(module)                                # quantisers on the weights of a network in PENNI's form
    round_inputs(network, images)                  # where activations are to have 8 bits too
    fit(network, images, recipe, keep_zeros=True)
    harden(module)                                 # weights are what the quantisers made of them: a plain network

`quantise` does all this and writes the network's history.

A layer's coefficients become -n, 0 and +p with two learned scales (Zhu et al., 2017, "Trained Ternary Quantization");
an entry is 0 up to 0.7 times the mean magnitude of its sign (Li and Liu, 2016, "Ternary Weight Networks"). 1 x 1
kernels are ternary, with no basis. The first layer, depthwise and fully connected ones keep plain 8-bit weights, with a
scale for every output; the first one gets its whole kernels back. The paper's own settings are not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.cnn.evaluate import evaluate
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.images import Images
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit, rounded
from tprune.cnn.structure import place
from tprune.cnn.train import Recipe, fit

SHARE = 0.7  # of the mean magnitude: the threshold below which an entry becomes 0
CALIBRATION = 10  # batches that the ranges of activations are taken from
BATCH = 100  # images in each


class Levels(torch.autograd.Function):
    """Three levels: scale p above the positive threshold, -n below the negative one, 0 between them.

    Backward: the values' gradient is passed straight through; a scale gets the sum of its places' gradients (with its
    sign) over the root of their number, so that many places do not make it leap (Esser et al., 2020, "LSQ").
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, scales: Tensor) -> Tensor:
        """Return `values` on three levels; `scales` are (p, n)."""
        above, below = places(values)
        ctx.save_for_backward(above, below)
        return scales[0] * above - scales[1] * below

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of values and scales."""
        above, below = ctx.saved_tensors  # type: ignore[attr-defined]
        sums = torch.stack([(gradient * above).sum(), -(gradient * below).sum()])
        return gradient, sums / torch.stack([above.sum(), below.sum()]).clamp(min=1).sqrt()


def places(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1.0 where an entry is above `SHARE` of the mean positive one, and where it is so far below 0."""
    return tuple(  # type: ignore[return-value]
        (side > SHARE * side.sum() / side.count_nonzero().clamp(min=1)).to(values)
        for side in (values.clamp(min=0), (-values).clamp(min=0))
    )


class Ternary(nn.Module):
    """The quantiser of a layer's coefficients: its two scales are learned, and start at the mean of their places."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        usual = values.detach().abs().sum() / values.count_nonzero().clamp(min=1)
        means = [(values.detach().abs() * at).sum() / at.sum() if at.any() else usual for at in places(values.detach())]
        self.scales = nn.Parameter(torch.stack(means).to(values))

    def forward(self, values: Tensor) -> Tensor:
        """Return the values on their three levels."""
        return Levels.apply(values, self.scales.abs())


class Rounded(nn.Module):
    """The quantiser of an 8-bit basis (one scale), or of plain 8-bit weights (a scale for every output)."""

    def __init__(self, *, by_output: bool) -> None:
        super().__init__()
        self.by_output = by_output

    def forward(self, values: Tensor) -> Tensor:
        """Return the values on their grid."""
        return rounded(values, by_output=self.by_output)


def quantise(
    network: Network,
    images: Images,
    recipe: Recipe | None,
    *,
    held: Images,
    activations: bool = False,
    run_dir: Path | None = None,
    watch: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Give a network in PENNI's form ESCALATE's weights, and 8-bit `activations` if asked, in place; fine-tune; harden.

    Zeros stay zeros. Returns the entry of its history; `held` are the images on which accuracy is told. Raises BadInput
    for a network without a basis, which ESCALATE has nothing for.
    """
    if not any(isinstance(layer, (SvdConv2d, BasisConv2d)) for layer in network.module.modules()):
        raise BadInput(
            f"{network.net} has no layer in PENNI's form; `tprune cnn train --method penni`, then `compress "
            "--keep-bases` make one"
        )
    network.check(images)
    network.check(held)
    began, left = time.monotonic(), convert(network.module)
    if activations:
        round_inputs(network, images)
    before = evaluate(network, held).accuracy
    fitted = fit(network, images, recipe, keep_zeros=True, run_dir=run_dir, watch=watch) if recipe else None
    harden(network.module)
    facts = {
        "verb": "quantise",
        "images": images.id,
        "activations": activations,
        "epochs": recipe.epochs if recipe else 0,
        "recipe": recipe and asdict(recipe),
        "left_alone": left,
        "losses": [round(loss, 4) for loss in fitted.losses] if fitted else [],
        "accuracy_converted": before,
        "accuracy_held_out": evaluate(network, held).accuracy,
        "seconds": round(time.monotonic() - began),
        "argv": stamp.argv(),
    }
    network.history.append(facts)
    return facts


def convert(module: nn.Module) -> dict[str, str]:
    """Put quantisers on the weights in place; returns {path: why} of layers that keep more bits than ESCALATE wants.

    The first layer is the first one that the module lists. Raises BadInput for a network in SVD's form, one that has
    quantisers already, and one without weights.
    """
    layers = {
        path: layer for path, layer in module.named_modules() if isinstance(layer, (*PLAIN, SvdConv2d, BasisConv2d))
    }
    if not layers:
        raise BadInput("there is no convolution or linear layer to quantise")
    for path, layer in layers.items():
        if isinstance(layer, SvdConv2d):
            raise BadInput(f"layer {path!r} is in SVD's form; ESCALATE takes a network in PENNI's form")
        if parametrize.is_parametrized(layer):
            raise BadInput(f"layer {path!r} has quantisers already; harden the network first")
    first = next(iter(layers))
    if isinstance(based := layers[first], BasisConv2d):
        layers[first] = whole(based)
        place(module, first, layers[first])
    notes = {}
    for path, layer in layers.items():
        if isinstance(layer, BasisConv2d):
            parametrize.register_parametrization(layer, "coefficients", Ternary(layer.coefficients))
            parametrize.register_parametrization(layer, "basis", Rounded(by_output=False))
        elif path != first and is_pointwise(layer):
            assert isinstance(layer.weight, Tensor)
            parametrize.register_parametrization(layer, "weight", Ternary(layer.weight))
        else:
            parametrize.register_parametrization(layer, "weight", Rounded(by_output=True))
            if path != first and isinstance(layer, nn.Conv2d) and layer.groups == 1:
                notes[path] = "is not decomposed: its weights get 8 bits"
    return notes


PLAIN = (nn.Conv2d, nn.Linear)


def harden(module: nn.Module) -> None:
    """Take the quantisers off in place: every weight stays what its quantiser made of it."""
    for layer in list(module.modules()):
        for name in list(getattr(layer, "parametrizations", ())) if parametrize.is_parametrized(layer) else ():
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


@torch.no_grad()
def round_inputs(network: Network, images: Images) -> None:
    """Give every layer an 8-bit input in place, with the range that it takes on the first images.

    A layer at PATH becomes PATH.0, the rounding, and PATH.1. Training goes on with the ranges following; a network
    that has roundings gets new ranges.
    """
    module = network.module
    there = dict(module.named_modules())
    for path, layer in list(there.items()):
        around = there.get(path.rpartition(".")[0])
        if not isinstance(layer, (*PLAIN, BasisConv2d)):
            continue
        if not (isinstance(around, nn.Sequential) and isinstance(around[0], EightBit)):
            place(module, path, nn.Sequential(EightBit(), layer))
    module.eval()
    roundings = [one for one in module.modules() if isinstance(one, EightBit)]
    for one in roundings:
        one.train().range.zero_()
    for number, (pixels, _) in enumerate(images.batches(BATCH)):
        if number < CALIBRATION:
            module(network.normalise(pixels))
    module.eval()


def whole(layer: BasisConv2d) -> nn.Conv2d:
    """Return the plain convolution with the kernels that basis and coefficients make."""
    bias = layer.bias is not None
    plain = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(layer.weight())
        if plain.bias is not None and layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a 1 x 1 convolution over all its inputs."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1


def is_ternary(values: Tensor) -> bool:
    """Whether all positive entries are the same number, and all negative ones."""
    return all(len(values[sign * values > 0].unique()) <= 1 for sign in (1, -1))
