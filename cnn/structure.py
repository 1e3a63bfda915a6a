"""What a network's layers are, as plain data: written beside its weights, so that a shrunk network loads by itself.

`describe` gives one entry for every layer with weights; `rebuild` gives a freshly built network those layers. A layer
that became two is `PATH.0` and `PATH.1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cnn.forms import SCHEMES, BasisConv2d, SvdConv2d
from tprune.errors import BadInput

Layers = dict[str, dict[str, Any]]


def describe(module: nn.Module) -> Layers:
    """Return {path: {"kind": ..., sizes}} of every layer that has weights, in the order of the network.

    Raises BadInput for a layer with weights of its own that is none of the known kinds.
    """
    found: Layers = {}
    for path, layer in module.named_modules():
        kind = next((kind for kind, (form, _, _) in KINDS.items() if type(layer) is form), None)
        if kind:
            found[path] = {"kind": kind, **KINDS[kind][1](layer)}
        elif any(True for _ in layer.parameters(recurse=False)):
            raise BadInput(f"layer {path!r} is {type(layer).__name__}; known are {', '.join(KINDS)}")
    return found


def rebuild(module: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace in place every layer of `module` that is not as `layers` says.

    Raises BadInput when an entry is malformed, or names a place that the network does not have.
    """
    there = describe(module)
    for path, entry in layers.items():
        if there.get(path) != entry:
            place(module, path, _build(path, entry))


def place(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Put `layer` at `path`; a layer in the way of `PATH.0` becomes a sequence."""
    parent_path, _, name = path.rpartition(".")
    try:
        parent = module.get_submodule(parent_path)
        if name.isdigit() and not isinstance(parent, nn.Sequential):
            parent = nn.Sequential()
            place(module, parent_path, parent)
        elif not name.isdigit() and not hasattr(parent, name):
            raise AttributeError(path)
        parent.add_module(name, layer)
    except (AttributeError, RecursionError):
        raise BadInput(f"the network has no place {path!r} for a layer; is this the network that was saved?") from None


def _build(path: str, entry: Mapping[str, Any]) -> nn.Module:
    kind = entry.get("kind")
    if kind not in KINDS:
        raise BadInput(f"layer {path!r} is of kind {kind!r}; known are {', '.join(KINDS)}")
    try:
        return KINDS[kind][2](**{name: value for name, value in entry.items() if name != "kind"})
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise BadInput(f"layer {path!r} cannot be built from {dict(entry)}: {error}") from None


def _conv(layer: nn.Conv2d) -> dict[str, Any]:
    return {
        "inputs": layer.in_channels, "outputs": layer.out_channels, "kernel": list(layer.kernel_size),
        "stride": list(layer.stride), "padding": _padding(layer), "dilation": list(layer.dilation),
        "groups": layer.groups, "bias": layer.bias is not None,
    }  # fmt: skip


def _padding(layer: nn.Conv2d) -> list[int] | str:
    return layer.padding if isinstance(layer.padding, str) else list(layer.padding)


def _new_conv(*, inputs: int, outputs: int, kernel: list[int], padding: list[int] | str, **rest: Any) -> nn.Module:
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
    return nn.Conv2d(inputs, outputs, tuple(kernel), padding=padding if isinstance(padding, str) else tuple(padding), **sizes)  # type: ignore[arg-type]


def _linear(layer: nn.Linear) -> dict[str, Any]:
    return {"inputs": layer.in_features, "outputs": layer.out_features, "bias": layer.bias is not None}


def _new_linear(*, inputs: int, outputs: int, bias: bool) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=bias)


def _norm(layer: nn.BatchNorm2d) -> dict[str, Any]:
    return {"channels": layer.num_features, "eps": layer.eps, "momentum": layer.momentum}


def _new_norm(*, channels: int, eps: float, momentum: float) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=eps, momentum=momentum)


def _new_svd(*, inputs: int, outputs: int, kernel: list[int], rank: int, scheme: str, **rest: Any) -> nn.Module:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} must be {' or '.join(SCHEMES)}")
    return SvdConv2d(inputs, outputs, kernel, rank, scheme=scheme, **rest)


# kind -> (class, its description, how to build it again)
KINDS: dict[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]], Callable[..., nn.Module]]] = {
    "conv": (nn.Conv2d, _conv, _new_conv),
    "linear": (nn.Linear, _linear, _new_linear),
    "batch-norm": (nn.BatchNorm2d, _norm, _new_norm),
    "svd-conv": (SvdConv2d, SvdConv2d.about, _new_svd),
    "basis-conv": (BasisConv2d, BasisConv2d.about, BasisConv2d),
}
