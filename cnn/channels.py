"""Groups of channels that must be cut together: the layers that write, pass on and read them.

    for space in spaces(module, (3, 32, 32)):
        print(space.size, [end.path for end in space.writers], [end.path for end in space.readers], space.fixed)

The network is traced symbolically (torch.fx) and run once on zeros for its shapes. An unsupported operator fixes the
channels that it touches, with a reason; it is never an error.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from tprune.base.errors import BadInput
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.rounding import EightBit

# Operators by the common name of module, function and method: `nn.ReLU6`, `functional.relu6`, `x.relu6_()` -> relu6.
POINTWISE = frozenset(
    "identity eightbit clone contiguous detach dropout dropout1d dropout2d dropout3d alphadropout featurealphadropout "
    "relu relu6 leakyrelu elu selu celu gelu silu mish hardswish hardtanh tanh tanhshrink hardshrink softshrink "
    "softsign sigmoid hardsigmoid logsigmoid softplus threshold clamp clip abs neg exp sqrt square pow "
    "add iadd sub isub rsub mul imul div truediv itruediv".split()
)
SUMS = frozenset({"add", "iadd", "sub", "isub", "mul", "imul"})
POOLS = frozenset({"maxpool2d", "avgpool2d", "adaptivemaxpool2d", "adaptiveavgpool2d", "interpolate", "upsample"})
IN_PLACE = frozenset({"iadd", "isub", "imul", "itruediv"})
REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})
RESHAPES = frozenset({"flatten", "view", "reshape", "squeeze", "unsqueeze"})
QUERIES = frozenset({"size", "dim", "getattr"})  # of a tensor's shape: they touch no channel
FORMS = (SvdConv2d, BasisConv2d)
LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, *FORMS)
BATCH = 2  # of the dry run: at 1, a reshape could confuse channels with the batch

Shapes = dict[fx.Node, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class End:
    """A layer that writes the channels of a value (its outputs) or reads them (its inputs).

    repeat: consecutive inputs per channel, which are the positions of a flattened feature map.
    """

    path: str
    value: int
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Link:
    """Channel c of one value becomes channel c of another through a batch norm or depthwise convolution at `path`, or
    (with an empty path) through a sum or an activation."""

    path: str
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Space:
    """Channels shared by several values: cutting one cuts it in all of them.

    `links` are in the order of the network. `constants`: values whose channels are non-zero where those of their source
    are zero (value -> reason). `fixed`: the reason why no channel can be cut; empty if channels can be cut.
    """

    size: int
    writers: tuple[End, ...]
    readers: tuple[End, ...]
    links: tuple[Link, ...]
    constants: dict[int, str]
    fixed: str

    @property
    def values(self) -> set[int]:
        """The values of the space."""
        ends = {end.value for end in (*self.writers, *self.readers)}
        return ends | {value for link in self.links for value in (link.source, link.target)}


def spaces(module: nn.Module, image: tuple[int, int, int]) -> tuple[Space, ...]:
    """Return all spaces of a network with input `image` (channels, height, width), in the order of the network.

    Raises BadInput when the network cannot be traced, naming the line, or does not accept the image.
    """
    with evaluating(module):
        graph = _trace(module)
        runner = _Shapes(module, graph)
        dry_run(module, image, runner.run, batch=BATCH)
        flow = _Flow(module, runner.seen, _tied(module) | _read_elsewhere(module, graph))
        for node in graph.nodes:
            flow.follow(node)
    return flow.spaces()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode without gradients for the block; restore the mode of every layer afterwards."""
    training = [one for one in module.modules() if one.training]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for one in training:
            one.training = True


def dry_run(module: nn.Module, image: tuple[int, int, int], run: Callable[[Tensor], object], *, batch: int = 1) -> None:
    """Call `run` on zeros (batch, *image) of the module's dtype and device; BadInput when it fails."""
    first = next(module.parameters(), torch.zeros(()))
    try:
        run(torch.zeros(batch, *image, dtype=first.dtype, device=first.device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        size = f"{' x '.join(map(str, image))} (channels, height, width)"
        reason = str(error).splitlines()[0]
        raise BadInput(f"{type(module).__name__} does not take an image of {size}: {reason}") from None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*FORMS, EightBit)) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs a graph and records the shape of every tensor result."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.extra_traceback = False
        self.seen: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n] = tuple(result.shape)
        return result


def _trace(module: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, NameError) as error:
        ours = (__file__, str(Path(torch.__file__).parent))
        frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
        where = f", at {frames[-1].line!r} (line {frames[-1].lineno} of {frames[-1].name})" if frames else ""
        reason = str(error).splitlines()[0]
        raise BadInput(f"{type(module).__name__} cannot be traced by torch.fx: {reason}{where}") from None


def _tied(module: nn.Module) -> set[str]:
    """Return the layers that share a parameter with another layer: cutting one would change the other."""
    owners: dict[int, list[str]] = {}
    for path, layer in module.named_modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(path)
    return {path for paths in owners.values() if len(paths) > 1 for path in paths}


def _read_elsewhere(module: nn.Module, graph: fx.Graph) -> set[str]:
    """Return the layers whose weights the network's code accesses directly."""
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    return {path for path, layer in module.named_modules() if path in read and type(layer) in LAYERS}


@dataclass
class _Flow:
    """State of the traversal: a union-find of values, and the value that each node carries."""

    module: nn.Module
    shapes: Shapes
    tied: set[str]
    parents: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    writers: list[End] = field(default_factory=list)
    readers: list[End] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    constants: dict[int, str] = field(default_factory=dict)
    fixed: dict[int, str] = field(default_factory=dict)
    carried: dict[fx.Node, tuple[int, int]] = field(default_factory=dict)  # node -> value, entries per channel in dim 1
    called: dict[str, tuple[End, End]] = field(default_factory=dict)  # layer -> its ends in earlier calls
    failed: dict[str, str] = field(default_factory=dict)  # layer -> reason why a call is unsupported

    def spaces(self) -> tuple[Space, ...]:
        members: dict[int, set[int]] = {}
        for value in range(len(self.parents)):
            members.setdefault(self.root(value), set()).add(value)
        found = []
        for root, inside in members.items():
            writers, readers = ([end for end in ends if end.value in inside] for ends in (self.writers, self.readers))
            links = [link for link in self.links if link.source in inside]
            constants = {value: why for value, why in self.constants.items() if value in inside}
            reasons = [self.fixed[value] for value in sorted(inside & self.fixed.keys())]
            if writers or readers or links:
                reason = reasons[0] if reasons else ""
                found.append(Space(self.sizes[root], tuple(writers), tuple(readers), tuple(links), constants, reason))
        return tuple(found)

    def root(self, value: int) -> int:
        while self.parents[value] != value:
            value = self.parents[value]
        return value

    def unite(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parents[second] = first

    def new(self, size: int) -> int:
        self.parents.append(len(self.parents))
        self.sizes.append(size)
        return len(self.parents) - 1

    def after(self, node: fx.Node, sources: Sequence[int], path: str = "") -> int:
        """Let `node` carry a new value with the channels of `sources`."""
        _, repeat = self.carried[node.all_input_nodes[0]]
        target = self.new(self.sizes[sources[0]])
        for source in sources:
            self.unite(source, target)
            self.links.append(Link(path, source, target))
        self.carried[node] = (target, repeat)
        return target

    def follow(self, node: fx.Node) -> None:
        inputs = [self.carried[one] for one in node.all_input_nodes if one in self.carried]
        why = ""
        if node.op == "placeholder":
            why = "the network's input"
        elif node.op == "output":
            why = "the network's output"
        elif node.op == "call_module" and type(layer := self.module.get_submodule(str(node.target))) in LAYERS:
            why = self.layer(node, layer)
            if why:  # one unsupported call fixes the layer in all calls
                self.failed.setdefault(str(node.target), why)
                for end in self.called.get(str(node.target), ()):
                    self.fixed.setdefault(end.value, why)
        elif inputs:
            why = self.operation(node, _name(node, self.module))
            if not why and _is_in_place(node, self.module):  # readers of the input get the result
                self.carried[node.all_input_nodes[0]] = self.carried.get(node, self.carried[node.all_input_nodes[0]])
        for value, _ in inputs if why else ():
            self.fixed.setdefault(value, why)
        shape = self.shapes.get(node, ())
        if len(shape) > 1 and node not in self.carried and node.op != "output":
            value = self.new(shape[1])
            self.carried[node] = (value, 1)
            self.fixed[value] = why or f"comes from {node.name}"

    def layer(self, node: fx.Node, layer: nn.Module) -> str:
        """Record the effect of a layer on the channels; return a reason if it is unsupported."""
        path, source = str(node.target), node.all_input_nodes[0]
        shape, (value, repeat) = self.shapes[source], self.carried[source]
        if path in self.failed:
            return self.failed[path]
        if path in self.tied:
            return f"layer {path!r} shares its weights with another one, or with the network's own code"
        if isinstance(layer, nn.Linear):
            if len(shape) != 2:
                return f"layer {path!r} is applied to {len(shape)} dimensions"
        elif repeat > 1:  # flattened channels are no longer the same; the new ones are fixed
            self.fixed.setdefault(value, f"its maps are joined before layer {path!r}")
            value, repeat = self.carried[source] = self.new(shape[1]), 1
            self.fixed[value] = f"comes from {source.name}"
        if isinstance(layer, nn.BatchNorm2d) or _is_depthwise(layer):
            if isinstance(layer, nn.BatchNorm2d) and not layer.affine:
                return f"batch norm {path!r} has no weight and bias"
            ends = End(path, value), End(path, self.after(node, [value], path))
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
            return f"layer {path!r} is a grouped convolution"
        else:
            target = self.new(self.shapes[node][1])
            self.carried[node] = (target, 1)
            ends = End(path, value, repeat), End(path, target)
            self.readers.append(ends[0])
            self.writers.append(ends[1])
        before = self.called.setdefault(path, ends)
        if before[0].repeat != repeat:
            why = f"layer {path!r} is called on maps of different sizes"
            self.fixed.setdefault(ends[1].value, why)
            return why
        self.unite(before[0].value, ends[0].value)  # called twice: both calls must be cut alike
        self.unite(before[1].value, ends[1].value)
        return ""

    def operation(self, node: fx.Node, name: str) -> str:
        """Record the effect of an operator without weights; return a reason if it is unsupported."""
        sources = node.all_input_nodes
        tensors = [one for one in sources if one in self.shapes]
        shape, out = self.shapes[tensors[0]], self.shapes.get(node, ())
        if name in QUERIES and not out:
            return ""
        if any(one not in self.carried for one in tensors) or not out:
            return f"{name} ({node.name}) is not supported"
        value, repeat = self.carried[tensors[0]]
        same = len(shape) > 1 and out[:2] == shape[:2]
        pools = (name in POOLS and len(shape) == 4) or (name in REDUCTIONS and _is_over_space(node, shape))
        if name in POINTWISE and len(sources) == 1:
            self.carried[node] = (value, repeat)
            if not self.keeps_zero(node):
                self.constants[self.after(node, [value])] = f"{name} ({node.name}) of 0 is not 0"
        elif name in SUMS and len(tensors) == len(sources) == 2 and same and out[:2] == self.shapes[tensors[1]][:2]:
            values, repeats = zip(*(self.carried[one] for one in tensors), strict=True)
            if len(set(repeats)) > 1:
                return f"{name} ({node.name}) of differently flattened maps is not supported"
            self.after(node, values)
        elif pools and same:
            self.carried[node] = (value, repeat)
        elif name in RESHAPES and not _names_channels(node, name) and (entries := _flattened(shape, out)):
            self.carried[node] = (value, repeat * entries)
        else:
            return f"{name} ({node.name}) is not supported"
        return ""

    def keeps_zero(self, node: fx.Node) -> bool:
        """Return whether a pointwise operator maps 0 to 0, by running it."""
        zero = torch.zeros(self.shapes[node.all_input_nodes[0]])
        args = fx.map_arg(node.args, lambda _: zero.clone())
        kwargs = fx.map_arg(node.kwargs, lambda _: zero.clone())
        if node.op == "call_module":
            result = self.module.get_submodule(str(node.target))(*args, **kwargs)
        elif node.op == "call_method":
            result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        return bool((result == 0).all())


def _name(node: fx.Node, module: nn.Module) -> str:
    """Return an operator's name as in the tables above, qualified if it is not one of torch's."""
    if node.op == "call_module":
        name = type(module.get_submodule(str(node.target))).__name__
    elif node.op == "call_method":
        name = str(node.target)
    else:
        name = getattr(node.target, "__name__", str(node.target))
        home = (getattr(node.target, "__module__", None) or "torch").partition(".")[0]
        if home not in ("torch", "_operator", "builtins"):
            return f"{home}.{name}"
    return name.replace("_", "").lower()


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _is_over_space(node: fx.Node, shape: Sequence[int]) -> bool:
    """Return whether a reduction keeps batch and channels."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(dims, (list, tuple)) or not all(isinstance(dim, int) for dim in dims):
        return False
    return bool(dims) and all(dim % len(shape) > 1 for dim in dims if isinstance(dim, int))


def _names_channels(node: fx.Node, name: str) -> bool:
    """Return whether a reshape depends on the number of channels: `view(n, 256)`, or a `squeeze` of all ones."""
    args = node.args[1:]
    sizes = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    if name in ("view", "reshape"):
        return len(sizes) > 1 and isinstance(sizes[1], int) and sizes[1] != -1
    return name == "squeeze" and not (args or node.kwargs)


def _is_in_place(node: fx.Node, module: nn.Module) -> bool:
    """Return whether a node changes its first input: `x.add_(y)`, `x += y`, `relu(x, inplace=True)`."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    is_named_so = name.endswith("_") and not name.endswith("__")
    return is_named_so or name in IN_PLACE or node.kwargs.get("inplace") is True


def _flattened(before: Sequence[int], after: Sequence[int]) -> int:
    """Return the number of entries of dimension 1 after a reshape per entry before; 0 if it mixes them."""
    kept = len(after) > 1 and after[0] == before[0] and after[1] % before[1] == 0
    return after[1] // before[1] if kept else 0
