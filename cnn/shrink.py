"""Structural removal of channels that the zeros of a masked network make superfluous; the outputs are unchanged.

    settle(module, image)            # masks a dead channel in every layer that touches it
    fit(..., keep_zeros=True)        # (fine-tuning)
    print(shrink(module, image))     # the same function with smaller layers

A channel is alive if it is both written (by a non-zero weight of any layer that writes it) and read, also through
batch norms, depthwise convolutions and residual sums. A channel of a sum of several layers is therefore removed only
if none of them writes it, or nothing reads it (PENNI's union rule, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tprune.cnn.channels import Space, spaces
from tprune.cnn.forms import BasisConv2d, SvdConv2d


@dataclass(frozen=True, slots=True)
class Cut:
    """A space before shrinking, and the channels that were kept."""

    space: Space
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The cuts of every space, in the order of the network."""

    cuts: tuple[Cut, ...]

    @property
    def before(self) -> int:
        """Channels of all spaces before shrinking."""
        return sum(cut.space.size for cut in self.cuts)

    @property
    def after(self) -> int:
        """Channels of all spaces after shrinking."""
        return sum(len(cut.kept) for cut in self.cuts)


def settle(module: nn.Module, image: tuple[int, int, int]) -> None:
    """Zero all weights, biases and batch norm entries of dead channels in place, until a fixed point.

    The result defines the function that `shrink` preserves: the constant of a dead channel (the bias of a layer or
    batch norm whose weights were cut) is dropped here. Every space keeps at least the channel of the largest norm.
    Raises BadInput as `tprune.cnn.channels.spaces` does.
    """
    _settled(module, image)


def shrink(module: nn.Module, image: tuple[int, int, int]) -> Shrunk:
    """Settle the network, then remove every dead channel, unused basis kernel and unused rank in place.

    Layers stay the same objects, but their parameters are replaced: optimisers must be recreated.
    """
    cuts = tuple(Cut(space, tuple(alive.nonzero().flatten().tolist())) for space, alive in _settled(module, image))
    keep_outputs: dict[str, Tensor] = {}
    keep_inputs: dict[str, Tensor] = {}
    for cut in cuts:
        if len(cut.kept) == cut.space.size:
            continue
        kept = torch.tensor(cut.kept)
        keep_outputs |= dict.fromkeys(_paths(cut.space), kept)
        for end in cut.space.readers:  # entries of channel c: c * repeat to c * repeat + repeat - 1
            keep_inputs[end.path] = (kept[:, None] * end.repeat + torch.arange(end.repeat)).flatten()
    for path, layer in module.named_modules():
        _slice(layer, keep_outputs.get(path), keep_inputs.get(path))
    return Shrunk(cuts)


@torch.no_grad()
def _settled(module: nn.Module, image: tuple[int, int, int]) -> list[tuple[Space, Tensor]]:
    """Settle the network; return every space with a mask of its live channels."""
    found = spaces(module, image)
    net = _Net(dict(module.named_modules()))
    alive = {number: torch.ones(space.size, dtype=torch.bool) for number, space in enumerate(found)}
    changed = True
    while changed:
        changed = False
        for number, space in enumerate(found):
            if space.fixed:
                continue
            live = net.alive(space) & alive[number]
            if not live.any():
                live[net.largest(space, alive[number])] = True
            if not torch.equal(live, alive[number]):
                alive[number], changed = live, True
                net.forget(space, ~live)
    for number, space in enumerate(found):
        if not alive[number].all():
            net.clear(space, ~alive[number])
    return [(space, alive[number]) for number, space in enumerate(found)]


@dataclass
class _Net:
    """The layers, and masks (outputs, inputs) of their non-zero weights."""

    layers: dict[str, nn.Module]
    used: dict[str, Tensor] = field(default_factory=dict)

    def uses(self, path: str) -> Tensor:
        """Return the mask (outputs, inputs) of a layer, or (channels) of a batch norm or depthwise convolution."""
        if path not in self.used:
            self.used[path] = _used(self.layers[path]).cpu().contiguous()
        return self.used[path]

    def reads(self, path: str, size: int) -> Tensor:
        """Return a reader's mask as (outputs, channels, entries per channel), a view."""
        uses = self.uses(path)
        return uses.view(len(uses), size, -1)

    def alive(self, space: Space) -> Tensor:
        """Return the mask of channels that are both written and read."""
        written = {number: torch.zeros(space.size, dtype=torch.bool) for number in space.values}
        for end in space.writers:
            written[end.value] |= self.uses(end.path).any(1)
        for value in space.constants:
            written[value][:] = True
        for link in space.links:
            written[link.target] |= written[link.source] & (self.uses(link.path) if link.path else True)
        read = [written[end.value] & self.reads(end.path, space.size).any(2).any(0) for end in space.readers]
        return torch.stack(read).any(0) if read else torch.zeros(space.size, dtype=torch.bool)

    def largest(self, space: Space, among: Tensor) -> int:
        """Return the channel with the largest norm over all weights that touch it."""
        owned = [one for path in _paths(space) for one in _out_tensors(self.layers[path])]
        owned += [_in_tensor(self.layers[end.path]).transpose(0, 1) for end in space.readers]
        total = sum(one.double().square().reshape(space.size, -1).sum(1).cpu() for one in owned)
        return int(torch.where(among, total, -1.0).argmax())

    def forget(self, space: Space, dead: Tensor) -> None:
        """Clear dead channels in the masks."""
        for path in _paths(space):
            self.uses(path)[dead] = False
        for end in space.readers:
            self.reads(end.path, space.size)[:, dead] = False

    def clear(self, space: Space, dead: Tensor) -> None:
        """Zero the weights of dead channels in the layers."""
        for path in _paths(space):
            for weight in _out_tensors(self.layers[path]):
                weight[dead.to(weight.device)] = 0
        for end in space.readers:
            weight = _in_tensor(self.layers[end.path])
            weight[:, dead.repeat_interleave(end.repeat).to(weight.device)] = 0


def _paths(space: Space) -> set[str]:
    """Return the paths of the layers whose outputs are the space's channels."""
    return {end.path for end in space.writers} | {link.path for link in space.links if link.path}


def _used(layer: nn.Module) -> Tensor:
    if isinstance(layer, SvdConv2d):
        second = (layer.second != 0).flatten(2).any(2) & (layer.scale != 0)
        return (second.float() @ (layer.first != 0).flatten(2).any(2).float()) > 0
    if isinstance(layer, BasisConv2d):
        return ((layer.coefficients != 0) & (layer.basis != 0).flatten(1).any(1)).any(2)
    if isinstance(layer, nn.BatchNorm2d):
        return torch.stack([one != 0 for one in _out_tensors(layer)]).any(0)
    if isinstance(layer, nn.Conv2d):
        used = (layer.weight != 0).flatten(2).any(2)
        return used[:, 0] if layer.groups > 1 else used
    assert isinstance(layer, nn.Linear)
    return layer.weight != 0


def _out_tensors(layer: nn.Module) -> list[Tensor]:
    """Return the tensors whose dimension 0 is the layer's outputs."""
    weight = {SvdConv2d: "second", BasisConv2d: "coefficients"}.get(type(layer), "weight")
    both = (getattr(layer, weight), getattr(layer, "bias", None))
    return [one for one in both if one is not None]


def _in_tensor(layer: nn.Module) -> Tensor:
    """Return the tensor whose dimension 1 is the layer's inputs."""
    weight = {SvdConv2d: "first", BasisConv2d: "coefficients"}.get(type(layer), "weight")
    tensor: Tensor = getattr(layer, weight)
    return tensor


def _slice(layer: nn.Module, outputs: Tensor | None, inputs: Tensor | None) -> None:
    """Keep the given outputs and inputs (indices; None: all) of a layer, and the used factors of a factored one."""
    if isinstance(layer, nn.BatchNorm2d):
        if outputs is not None:
            _take(layer, ("weight", "bias", "running_mean", "running_var"), 0, outputs)
            layer.num_features = len(outputs)
    elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
        if outputs is not None:  # a depthwise convolution
            _take(layer, ("weight", "bias"), 0, outputs)
            layer.groups = layer.in_channels = layer.out_channels = len(outputs)
    elif isinstance(layer, nn.Conv2d):
        _take(layer, ("weight", "bias"), 0, outputs)
        _take(layer, ("weight",), 1, inputs)
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.Linear):
        _take(layer, ("weight", "bias"), 0, outputs)
        _take(layer, ("weight",), 1, inputs)
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, SvdConv2d):
        _take(layer, ("second", "bias"), 0, outputs)
        _take(layer, ("first",), 1, inputs)
        used = (layer.first != 0).flatten(1).any(1) & (layer.scale != 0) & (layer.second != 0).any(3).any(2).any(0)
        ranks = _some(used)
        _take(layer, ("first", "scale"), 0, ranks)
        _take(layer, ("second",), 1, ranks)
        layer.outputs, layer.inputs, layer.rank = len(layer.second), layer.first.shape[1], len(ranks)
    elif isinstance(layer, BasisConv2d):
        _take(layer, ("coefficients", "bias"), 0, outputs)
        _take(layer, ("coefficients",), 1, inputs)
        bases = _some((layer.coefficients != 0).flatten(0, 1).any(0) & (layer.basis != 0).flatten(1).any(1))
        _take(layer, ("coefficients",), 2, bases)
        _take(layer, ("basis",), 0, bases)
        layer.outputs, layer.inputs, layer.bases = layer.coefficients.shape


def _some(used: Tensor) -> Tensor:
    """Return the indices of used entries, or the first if there are none: no layer may be empty."""
    found = used.nonzero().flatten()
    return found if len(found) else found.new_zeros(1)


def _take(layer: nn.Module, names: tuple[str, ...], dim: int, keep: Tensor | None) -> None:
    """Replace parameters and buffers by their slices `keep` along `dim`, preserving the memory format."""
    for name in names:
        tensor = getattr(layer, name)
        if tensor is None or keep is None or len(keep) == tensor.shape[dim]:
            continue
        slices = tensor.detach().index_select(dim, keep.to(tensor.device))
        if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            slices = slices.contiguous(memory_format=torch.channels_last)
        is_trained = isinstance(tensor, nn.Parameter)
        setattr(layer, name, nn.Parameter(slices, requires_grad=tensor.requires_grad) if is_trained else slices)
