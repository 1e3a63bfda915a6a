"""The layers of a network as plain data, saved beside its weights, so that a shrunk network can be rebuilt.

`describe` returns one entry for every layer with weights; `rebuild` puts those layers into a freshly built network. A
layer that became two is `PATH.0` and `PATH.1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tprune.base.errors import BadInput
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.rounding import EightBit
from tprune.cnn.settings import SCHEMES

Layers = dict[str, dict[str, Any]]


def describe(module: nn.Module) -> Layers:
    """Return {path: {"kind": ..., sizes}} of every layer with weights, in the order of the network.

    Raises BadInput for a layer with weights of an unknown kind.
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
    """Replace in place every layer of `module` that differs from `layers`.

    Raises BadInput when an entry is malformed, or when the network has other paths.
    """
    there = describe(module)
    first = {one: path for path, one in module.named_modules()}
    every = [(path, first[one]) for path, one in module.named_modules(remove_duplicate=False)]
    for path, entry in layers.items():
        if there.get(path) != entry:
            place(module, path, _build(path, entry).train(module.training))
    for alias, path in every:  # a layer with two names stays shared
        if alias != path:
            module.set_submodule(alias, module.get_submodule(path))
    if missing := [path for path in describe(module) if path not in layers]:
        raise BadInput(
            f"the network has a layer {missing[0]!r} that was not saved; is this the network that was saved?"
        )


def place(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Replace the layer at `path` by `layer`.

    Placing PATH.0 turns a layer at PATH into a sequence, to which PATH.1 is appended; each of the two may be a pair
    again. Raises BadInput when the network has no such path.
    """
    parent_path, _, name = path.rpartition(".")
    try:
        parent = module.get_submodule(parent_path)
    except AttributeError:
        parent = None
    if name == "0" and parent_path and (parent is None or isinstance(parent, LAYERS)):
        place(module, parent_path, nn.Sequential(layer))
    elif parent is not None and (name in dict(parent.named_children()) or (name == "1" and _is_single(parent))):
        parent.add_module(name, layer)
    else:
        raise BadInput(f"the network has no place {path!r} for a layer; is this the network that was saved?")


def _is_single(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and len(module) == 1


def _build(path: str, entry: Mapping[str, Any]) -> nn.Module:
    kind = entry.get("kind")
    if kind not in KINDS:
        raise BadInput(f"layer {path!r} is of kind {kind!r}; known are {', '.join(KINDS)}")
    try:
        return KINDS[kind][2](**{name: value for name, value in entry.items() if name != "kind"})
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"layer {path!r} cannot be built from {dict(entry)}: {reason}") from None


def _conv(layer: nn.Conv2d) -> dict[str, Any]:
    return {
        "inputs": layer.in_channels, "outputs": layer.out_channels, "kernel": list(layer.kernel_size),
        "stride": list(layer.stride), "padding": _padding(layer), "dilation": list(layer.dilation),
        "groups": layer.groups, "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }  # fmt: skip


def _padding(layer: nn.Conv2d) -> list[int] | str:
    return layer.padding if isinstance(layer.padding, str) else list(layer.padding)


def _new_conv(*, inputs: int, outputs: int, kernel: list[int], **rest: Any) -> nn.Module:
    settings: dict[str, Any] = {"kernel_size": kernel, **rest}
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return nn.Conv2d(inputs, outputs, **settings)


def _linear(layer: nn.Linear) -> dict[str, Any]:
    return {"inputs": layer.in_features, "outputs": layer.out_features, "bias": layer.bias is not None}


def _new_linear(*, inputs: int, outputs: int, bias: bool) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=bias)


def _norm(layer: nn.BatchNorm2d) -> dict[str, Any]:
    settings = {name: getattr(layer, name) for name in ("eps", "momentum", "affine", "track_running_stats")}
    return {"channels": layer.num_features, **settings, "bias": layer.bias is not None}


def _new_norm(*, channels: int, **settings: Any) -> nn.Module:
    return nn.BatchNorm2d(channels, **settings)


def _new_svd(*, inputs: int, outputs: int, kernel: list[int], rank: int, scheme: str, **rest: Any) -> nn.Module:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} must be {' or '.join(SCHEMES)}")
    return SvdConv2d(inputs, outputs, kernel, rank, scheme=scheme, **rest)


# kind -> (class, its description, its constructor from the description)
KINDS: dict[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]], Callable[..., nn.Module]]] = {
    "conv": (nn.Conv2d, _conv, _new_conv),
    "linear": (nn.Linear, _linear, _new_linear),
    "batch-norm": (nn.BatchNorm2d, _norm, _new_norm),
    "svd-conv": (SvdConv2d, SvdConv2d.about, _new_svd),
    "basis-conv": (BasisConv2d, BasisConv2d.about, BasisConv2d),
    "eight-bit": (EightBit, EightBit.about, EightBit),
}
LAYERS = tuple(form for form, _, _ in KINDS.values())
