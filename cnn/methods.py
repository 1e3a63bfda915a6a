"""The methods behind one interface: a training form and a penalty, a cut, and a plain network in the end.

A method is its settings, a frozen dataclass; `METHODS` is the table of them. What a network was trained with stands in
its history, so that `of(network)` gives the method back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from tprune.base.errors import BadInput
from tprune.cnn import deephoyer, penni, svd
from tprune.cnn.network import Network
from tprune.cnn.train import Frozen, Penalty

Image = tuple[int, int, int]  # channels, height, width
Seconds = Callable[[nn.Module, Tensor], float]  # how long a layer takes on an input


class Method(Protocol):
    """What a method does to a module, in place."""

    name: ClassVar[str]
    below: ClassVar[float]  # what a level must stay under

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Give the layers their training form; returns {path: why} of those left as they are."""

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return what pulls at the weights beside the loss."""

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Return which parameters rest in which epoch."""

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Take away what training made small."""

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Leave plain layers only; returns what was chosen and why."""


@dataclass(frozen=True, slots=True)
class DeepHoyer:
    """Sparsity of single weights (`structural=False`) or of whole filters and neurons. Level: see `deephoyer.cut`."""

    name: ClassVar[str] = "deephoyer"
    below: ClassVar[float] = 100
    penalised: str = "hoyer-square"
    strength: float = 1e-4
    structural: bool = False

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Leave every layer as it is."""
        return {}

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the named penalty over all weights."""
        return deephoyer.penalty(module, self.penalised, self.strength, image)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Let every parameter train."""
        return None

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Zero weights or whole filters below the level."""
        deephoyer.cut(module, level, structural=self.structural, image=image)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Leave the layers, which are plain already."""
        return {}


@dataclass(frozen=True, slots=True)
class Svd:
    """Low rank by sparse singular values. Level: the share of the squared singular values that a layer may lose."""

    name: ClassVar[str] = "svd"
    below: ClassVar[float] = 1
    penalised: str = "hoyer"
    strength: float = 0.03
    scheme: str = "channel"
    orthogonality: float = 1.0

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Factor every convolution at full rank; one that is factored already stays."""
        return svd.convert(module, self.scheme)

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the sparsity of the singular values and the orthogonality of the vectors."""
        return svd.penalty(module, self.penalised, self.strength, self.orthogonality)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Let every parameter train."""
        return None

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Remove ranks, then run each layer as two thin convolutions."""
        svd.cut(module, level)
        svd.thin(module, image)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Leave the layers, which the cut made plain."""
        return {}


@dataclass(frozen=True, slots=True)
class Penni:
    """Shared kernel basis with sparse coefficients. Level: the threshold in standard deviations of a layer."""

    name: ClassVar[str] = "penni"
    below: ClassVar[float] = 100
    strength: float = 1e-4
    bases: int = 5
    interval: int = 2
    centred: bool = False

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Give each convolution larger than 1 x 1 a basis; one that has it already stays."""
        return penni.convert(module, self.bases, centred=self.centred)

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the l1 norm of the coefficients and of 1 x 1 convolutions."""
        return penni.penalty(module, self.strength)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Let coefficients and bases rest by turns."""
        return penni.frozen(module, self.interval)

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Zero small coefficients; level 0: none."""
        if level:
            penni.cut(module, level)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Run each layer in the faster of its two forms."""
        return penni.execute(module, image, *([seconds] if seconds else []))


METHODS: dict[str, type[DeepHoyer] | type[Svd] | type[Penni]] = {
    method.name: method for method in (DeepHoyer, Svd, Penni)
}


def named(name: str, **settings: Any) -> Method:
    """Return a method with its settings; those left None keep their default. BadInput for what does not exist."""
    if name not in METHODS:
        raise BadInput(f"there is no method {name!r}; legal are {', '.join(METHODS)}")
    method = METHODS[name]
    given = {key: value for key, value in settings.items() if value is not None}
    legal = set(asdict(method()))
    if unknown := sorted(set(given) - legal):
        raise BadInput(f"{name} knows no {unknown[0].replace('_', '-')!r}; its settings are {', '.join(sorted(legal))}")
    return method(**given)


def of(network: Network) -> Method | None:
    """Return the method that the network was last trained with, or cut by; None for a dense one."""
    for step in reversed(network.history):
        if step.get("method"):
            return named(step["method"], **step["settings"])
    return None


def to_cut(network: Network, name: str, *, structural: bool = False) -> Method:
    """Return the method `name` to cut a network by, with the settings that the network was trained with for it.

    Without penalty where it was trained for another method or for none: nothing pulled at its weights.
    """
    trained = of(network)
    settings: dict[str, Any] = {"structural": True} if structural else {}
    if trained is not None and trained.name == name:
        return named(name, **{**asdict(trained), **settings})  # type: ignore[call-overload]
    no_penalty = {"penalised": "none", "strength": 0.0}
    legal = asdict(named(name))  # type: ignore[call-overload]
    return named(name, **{key: value for key, value in no_penalty.items() if key in legal}, **settings)
