"""The compression methods behind one interface: a training form and a penalty, a cut, and a plain network at the end.

A method is a frozen dataclass of its settings; `METHODS` is the table. A network's history holds the method it was
trained with; `of(network)` reads it. Torch-free: each step imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tprune.base.errors import BadInput
from tprune.cnn.settings import SCHEMES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tprune.cnn.training import Frozen, Penalty

Image = tuple[int, int, int]  # channels, height, width
Seconds = Callable[["nn.Module", "Tensor"], float]  # latency of a layer on an input


class Recorded(Protocol):
    """Anything with a history: a network in memory, or the contents of its folder."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The steps, oldest first."""


class Method(Protocol):
    """The steps of a method; each changes a module in place."""

    name: ClassVar[str]
    below: ClassVar[float]  # upper bound (exclusive) of a level

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Convert the layers to their training form; return {path: why} of those left unchanged."""

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the regularisation term of the loss."""

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Return which parameters are frozen in which epoch."""

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Remove what training made small."""

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Convert to plain layers; return what was chosen and why."""


@dataclass(frozen=True, slots=True)
class DeepHoyer:
    """Sparsity of single weights (`structural=False`) or of whole filters and neurons. Level: see `deephoyer.cut`."""

    name: ClassVar[str] = "deephoyer"
    below: ClassVar[float] = 100
    penalised: str = "hoyer-square"
    strength: float = 1e-4
    structural: bool = False

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Convert nothing: plain layers are trained."""
        return {}

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the named penalty over all weights."""
        from tprune.cnn import deephoyer

        return deephoyer.penalty(module, self.penalised, self.strength, image)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Freeze nothing."""
        return None

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Zero weights or whole filters below the level."""
        from tprune.cnn import deephoyer

        deephoyer.cut(module, level, structural=self.structural, image=image)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Change nothing: the layers are plain already."""
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

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise BadInput(f"scheme {self.scheme!r} must be {' or '.join(SCHEMES)}")

    def convert(self, module: nn.Module) -> dict[str, str]:
        """Factor every convolution at full rank; skip those that are factored already."""
        from tprune.cnn import svd

        return svd.convert(module, self.scheme)

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the sparsity of the singular values and the orthogonality of the vectors."""
        from tprune.cnn import svd

        return svd.penalty(module, self.penalised, self.strength, self.orthogonality)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Freeze nothing."""
        return None

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Remove ranks, then replace each layer by two thin convolutions."""
        from tprune.cnn import svd

        svd.cut(module, level)
        svd.thin(module, image)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Change nothing: the cut left plain layers."""
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
        """Decompose each convolution larger than 1 x 1; skip those that are decomposed already."""
        from tprune.cnn import penni

        return penni.convert(module, self.bases, centred=self.centred)

    def penalty(self, module: nn.Module, image: Image) -> Penalty | None:
        """Return the l1 norm of the coefficients and of 1 x 1 convolutions."""
        from tprune.cnn import penni

        return penni.penalty(module, self.strength)

    def frozen(self, module: nn.Module) -> Frozen | None:
        """Freeze coefficients and bases in turn."""
        from tprune.cnn import penni

        return penni.frozen(module, self.interval)

    def cut(self, module: nn.Module, level: float, image: Image) -> None:
        """Zero small coefficients; level 0: none."""
        from tprune.cnn import penni

        if level:
            penni.cut(module, level)

    def finish(self, module: nn.Module, image: Image, seconds: Seconds | None) -> dict[str, Any]:
        """Replace each layer by the faster of its two plain forms."""
        from tprune.cnn import penni

        return penni.execute(module, image, *([seconds] if seconds else []))


METHODS: dict[str, type[DeepHoyer] | type[Svd] | type[Penni]] = {
    method.name: method for method in (DeepHoyer, Svd, Penni)
}


def named(name: str, **settings: Any) -> Method:
    """Return a method with its settings; None keeps the default. BadInput for an unknown method or setting."""
    if name not in METHODS:
        raise BadInput(f"there is no method {name!r}; legal are {', '.join(METHODS)}")
    method = METHODS[name]
    given = {key: value for key, value in settings.items() if value is not None}
    legal = set(asdict(method()))
    if unknown := sorted(set(given) - legal):
        raise BadInput(f"{name} has no setting {unknown[0].replace('_', '-')!r}; legal are {', '.join(sorted(legal))}")
    return method(**given)


def of(network: Recorded) -> Method | None:
    """Return the method that the network was last trained or cut with; None for a dense network."""
    for step in reversed(network.history):
        if step.get("method"):
            return named(step["method"], **step["settings"])
    return None


def to_cut(network: Recorded, name: str, *, structural: bool = False) -> Method:
    """Return the method `name` for cutting a network, with the settings that the network was trained with.

    If it was trained with another method or with none, the method has no penalty.
    """
    trained = of(network)
    settings: dict[str, Any] = {"structural": True} if structural else {}
    if trained is not None and trained.name == name:
        return named(name, **{**asdict(trained), **settings})  # type: ignore[call-overload]
    no_penalty = {"penalised": "none", "strength": 0.0}
    legal = asdict(named(name))  # type: ignore[call-overload]
    return named(name, **{key: value for key, value in no_penalty.items() if key in legal}, **settings)
