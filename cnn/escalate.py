"""The algorithm of ESCALATE (Li et al., MICRO-54, 2021): ternary coefficients on an 8-bit basis, 8-bit activations.

    convert(module)                                # adds quantisers to the weights of a network in PENNI's form
    round_inputs(network, images)                  # optional: 8-bit activations
    fit(network, images, recipe, keep_zeros=True)
    harden(module)                                 # replaces weights by their quantised values: a plain network

`quantise` runs these steps and updates the network's history.

A layer's coefficients become -n, 0 and +p with two learned scales (Zhu et al., 2017, "Trained Ternary Quantization");
an entry is 0 up to 0.7 times the mean magnitude of its sign (Li and Liu, 2016, "Ternary Weight Networks"). 1 x 1
kernels are ternary, without a basis. The first layer, depthwise and fully connected layers have plain 8-bit weights
with a scale per output; the kernels of the first one are recomposed. The paper's own settings are not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.images import Images
from tprune.cnn.network import Entry, Network
from tprune.cnn.rounding import EightBit, rounded
from tprune.cnn.score import evaluate
from tprune.cnn.settings import Recipe
from tprune.cnn.structure import place
from tprune.cnn.training import fit

SHARE = 0.7  # threshold relative to the mean magnitude; smaller entries become 0
CALIBRATION = 10  # batches used to calibrate the ranges of activations
BATCH = 100  # images in each


class Levels(torch.autograd.Function):
    """Three levels: scale p above the positive threshold, -n below the negative one, 0 between them.

    Backward: straight-through for the values; the gradient of a scale is the signed sum over its entries, divided by
    the square root of their number to keep its steps small (Esser et al., 2020, "LSQ").
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, scales: Tensor) -> Tensor:
        """Return `values` rounded to three levels; `scales` are (p, n)."""
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
    """Return two masks: entries above `SHARE` of the mean positive entry, and the same for negative entries."""
    return tuple(  # type: ignore[return-value]
        (side > SHARE * side.sum() / side.count_nonzero().clamp(min=1)).to(values)
        for side in (values.clamp(min=0), (-values).clamp(min=0))
    )


class Ternary(nn.Module):
    """Quantiser of a layer's coefficients with two learned scales, initialised to the mean of their entries."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        usual = values.detach().abs().sum() / values.count_nonzero().clamp(min=1)
        means = [(values.detach().abs() * at).sum() / at.sum() if at.any() else usual for at in places(values.detach())]
        self.scales = nn.Parameter(torch.stack(means).to(values))

    def forward(self, values: Tensor) -> Tensor:
        """Return the values rounded to three levels."""
        return Levels.apply(values, self.scales.abs())


class Rounded(nn.Module):
    """Quantiser of an 8-bit basis (one scale) or of plain 8-bit weights (one scale per output)."""

    def __init__(self, *, by_output: bool) -> None:
        super().__init__()
        self.by_output = by_output

    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded values."""
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
) -> Entry:
    """Quantise a network in PENNI's form in place: ESCALATE's weights, and 8-bit `activations` on request; fine-tune.

    Zeros stay zeros. Returns the new entry of its history; `held`: images used to report accuracy. Raises BadInput for
    a network without a basis.
    """
    if not any(isinstance(layer, (SvdConv2d, BasisConv2d)) for layer in network.module.modules()):
        raise BadInput(
            f"{network.net} has no layer in PENNI's form; create one with `tprune cnn train --method penni`, then "
            "`compress --keep-bases`"
        )
    network.check(images)
    network.check(held)
    began, left = time.monotonic(), convert(network.module)
    if activations:
        round_inputs(network, images)
    before = evaluate(network, held).accuracy
    fitted = fit(network, images, recipe, keep_zeros=True, run_dir=run_dir, watch=watch) if recipe else None
    harden(network.module)
    facts = Entry(
        verb="quantise",
        images=images.id,
        activations=activations,
        epochs=recipe.epochs if recipe else 0,
        recipe=recipe and asdict(recipe),
        left_alone=left,
        losses=[round(loss, 4) for loss in fitted.losses] if fitted else [],
        accuracy_converted=before,
        accuracy_held_out=evaluate(network, held).accuracy,
        seconds=round(time.monotonic() - began),
        argv=stamp.argv(),
    )
    network.history.append(facts)
    return facts


def convert(module: nn.Module) -> dict[str, str]:
    """Add quantisers to the weights in place; return {path: why} of layers with more bits than ESCALATE specifies.

    The first layer is the first in the module's order. Raises BadInput for a network in SVD's form, with quantisers, or
    without weights.
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
    """Remove the quantisers in place; every weight keeps its quantised value."""
    for layer in list(module.modules()):
        for name in list(getattr(layer, "parametrizations", ())) if parametrize.is_parametrized(layer) else ():
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


@torch.no_grad()
def round_inputs(network: Network, images: Images) -> None:
    """Round the input of every layer to 8 bits in place; ranges are calibrated on the first images.

    A layer at PATH becomes PATH.0, the rounding, and PATH.1. Training continues to update the ranges. Existing
    roundings are recalibrated.
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
    """Return the plain convolution with the kernels composed from basis and coefficients."""
    bias = layer.bias is not None
    plain = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(layer.weight())
        if plain.bias is not None and layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain


def is_pointwise(layer: nn.Module) -> bool:
    """Return whether a layer is an ungrouped 1 x 1 convolution."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1


def is_ternary(values: Tensor) -> bool:
    """Return whether all positive entries are equal, and all negative ones."""
    return all(len(values[sign * values > 0].unique()) <= 1 for sign in (1, -1))
