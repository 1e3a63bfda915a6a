"""Settings of the image verbs with their defaults and checks. Torch-free: the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tprune.base.errors import BadInput

if TYPE_CHECKING:
    from tprune.cnn.nets import Net

WEIGHT_DECAY = {"sgd": 5e-4, "adam": 0.0}  # the default of each optimiser
SCHEMES = ("channel", "spatial")  # of SVD training
BATCH = 128
HELD_OUT = 5000  # training images that are held out; every choice is made on them
TEACHER_WEIGHT, TEMPERATURE = 0.9, 4.0
PACE_ROUNDS = 30  # of `cnn pace`
SAMPLED = 64  # images that `cnn workload` runs a network on
PARITY_IMAGES, INT8_IMAGES = 100, 1000  # images of the checks of an export


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of a training run: everything that decides the result except network, data and penalty."""

    epochs: int
    lr: float = 0.1
    optimiser: str = "sgd"  # Nesterov, momentum 0.9
    weight_decay: float = WEIGHT_DECAY["sgd"]  # of weights only, not of batch norms and biases
    batch: int = BATCH  # images per step, over all processes
    warmup: float = 0.2  # share of the steps over which the rate rises to `lr`; then it falls linearly to 0
    smoothing: float = 0.0
    shift: int = 4  # images are shifted at random by up to this many pixels
    flip: bool = True  # images are mirrored at random
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} must be at least 1")
        if self.shift < 0:
            raise BadInput(f"shift {self.shift} must be at least 0")
        if self.optimiser not in WEIGHT_DECAY:
            raise BadInput(f"optimiser {self.optimiser!r} must be {' or '.join(WEIGHT_DECAY)}")
        if not 0 < self.lr <= 10:
            raise BadInput(f"lr {self.lr} must be above 0 and at most 10")
        if not 0 <= self.weight_decay < 1:
            raise BadInput(f"weight_decay {self.weight_decay} must be in [0, 1)")
        for name in ("warmup", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} must be in [0, 1)")

    def check(self, image: tuple[int, int, int]) -> None:
        """Raise BadInput for settings that do not fit images of (channels, height, width)."""
        if self.shift >= min(image[1:]):
            raise BadInput(f"shift {self.shift} would move a whole image away; 0 to {min(image[1:]) - 1} are legal")

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of 0-based `step` of `steps`."""
        rising = self.warmup * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * (steps - step) / max(steps - rising, 1.0)


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes to a network's usual recipe; None keeps the network's own value."""

    epochs: int
    lr: float | None = None
    optimiser: str | None = None
    weight_decay: float | None = None
    batch: int = BATCH
    smoothing: float = 0.0
    shift: int | None = None
    seed: int = 0

    def recipe(self, net: Net) -> Recipe:
        """Return the recipe of a network with these changes."""
        return recipe_of(net, **asdict(self))


TRAIN = Changes(epochs=30)
COMPRESS = Changes(epochs=15)
QUANTISE = Changes(epochs=10, lr=0.01)


def recipe_of(net: Net, epochs: int, **given: Any) -> Recipe:
    """Return the network's usual recipe with the given values; those that are None are ignored."""
    usual: dict[str, Any] = {name: getattr(net, name) for name in ("lr", "optimiser", "shift", "flip", "bf16")}
    chosen = usual | {name: value for name, value in given.items() if value is not None}
    chosen.setdefault("weight_decay", WEIGHT_DECAY.get(chosen["optimiser"], 0.0))
    recipe = Recipe(epochs, **chosen)
    recipe.check(net.image)
    return recipe


@dataclass(frozen=True, slots=True)
class Compression:
    """How far to cut and how to recover; the meaning of `level` depends on the method."""

    level: float
    recipe: Recipe | None  # fine-tuning, all rounds together; None: no fine-tuning
    rounds: int = 1  # number of times to cut and fine-tune
    keep_bases: bool = False  # PENNI: keep bases and coefficients instead of plain layers

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"rounds {self.rounds} must be at least 1")
        if self.recipe and self.recipe.epochs < self.rounds:
            raise BadInput(f"{self.recipe.epochs} epochs are too few for {self.rounds} rounds of at least one each")

    def check(self, method: str, below: float) -> None:
        """Raise BadInput for settings that the method, whose levels are in [0, below), does not support."""
        if not 0 <= self.level < below:
            raise BadInput(f"cut {self.level:g} must be in [0, {below:g}) for {method}")
        if self.rounds > 1 and method == "svd":
            raise BadInput(f"rounds {self.rounds}: svd cuts once, as its layers are plain afterwards; only 1 is legal")
        if self.keep_bases and method != "penni":
            raise BadInput(f"only penni has bases to keep; {method} has none")


def check_teaching(weight: float, temperature: float) -> None:
    """Raise BadInput unless both settings of distillation are legal."""
    if not 0 < weight <= 1:
        raise BadInput(f"weight {weight} of the teacher must be above 0 and at most 1")
    if not 0 < temperature <= 100:
        raise BadInput(f"temperature {temperature} must be above 0 and at most 100")
