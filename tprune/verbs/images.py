"""The verbs `tprune cnn train`, `compress` and `quantise` as library functions.

Each takes one call object, which checks paths and settings when it is made, before torch is imported.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import heap, pixels, stamp
from tprune.base.errors import BadInput, Caution
from tprune.cnn import folder, methods, nets
from tprune.cnn.folder import Saved
from tprune.cnn.methods import Method
from tprune.cnn.settings import (
    COMPRESS,
    HELD_OUT,
    QUANTISE,
    TEACHER_WEIGHT,
    TEMPERATURE,
    TRAIN,
    Changes,
    Compression,
    Recipe,
    check_teaching,
)

if TYPE_CHECKING:
    from tprune.cnn.images import Images
    from tprune.cnn.network import Network
    from tprune.cnn.teacher import Teacher

Watch = Callable[[str, int, int, float], None]  # (phase, steps done, steps in all, loss)


@dataclass(frozen=True, slots=True)
class Source:
    """Training images: where they are, and how many are held out."""

    data: str
    split: str = "train"
    limit: int | None = None
    held_out: int = HELD_OUT

    def check(self) -> None:
        """Raise BadInput when there is no such data, without reading it."""
        pixels.check(self.data, split=self.split)

    def load(self) -> tuple[Images, Images]:
        """Return the images to train on, and those held out."""
        from tprune.cnn import images

        return images.load(self.data, split=self.split).first(self.limit).hold_out(self.held_out)


@dataclass(frozen=True, slots=True)
class Teaching:
    """Distillation from the network in `folder`."""

    folder: Path
    weight: float = TEACHER_WEIGHT
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        folder.read(self.folder)
        check_teaching(self.weight, self.temperature)

    def load(self) -> Teacher:
        """Return the teacher."""
        from tprune.cnn import network
        from tprune.cnn.teacher import Teacher

        return Teacher(network.load(self.folder), self.weight, self.temperature)


@dataclass(frozen=True)
class Made:
    """A network that a verb wrote to `out`; `entry` is the last one of its history."""

    out: Path
    network: Network = field(repr=False)
    entry: Mapping[str, Any]
    held_out: int  # images that the accuracy was measured on

    @property
    def answer(self) -> dict[str, Any]:
        """The fields of the JSON answer."""
        return {"out": str(self.out), "id": self.network.id, **self.entry}


@dataclass(frozen=True)
class Train:
    """One call of `cnn train`: a named network from scratch (`net`), or a trained one (`start`)."""

    out: Path
    source: Source
    changes: Changes = TRAIN
    net: str | None = None
    start: Path | None = None
    method: Method | None = None
    teaching: Teaching | None = None
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        stamp.check_vacant(self.out)
        if (self.net is None) == (self.start is None):
            raise BadInput("give either --net (a network from scratch) or --from (a trained one)")
        net = folder.read(self.start).net if self.start else str(self.net)
        object.__setattr__(self, "recipe", self.changes.recipe(nets.named(net)))


def train(call: Train, watch: Watch | None = None) -> Made:
    """Train a network and write it; a killed run continues when called again."""
    from tprune.cnn import network, steps

    heap.keep()
    teacher = call.teaching.load() if call.teaching else None
    known = network.load(call.start) if call.start else None
    rest, held = call.source.load()
    one = known or network.fresh(str(call.net), rest, seed=call.recipe.seed)
    warn_of_other_images(one, rest)
    inputs = {rest.name: rest.id} | ({str(call.start): one.id} if known else {})
    entry = steps.train(
        one, rest, call.recipe, held=held, method=call.method, teacher=teacher, run_dir=_run_dir(call.out), watch=watch
    )
    _save(one, call.out, inputs)
    return Made(call.out, one, entry, len(held))


@dataclass(frozen=True)
class Compress:
    """One call of `cnn compress`: the network in `start`, cut at one or more levels."""

    start: Path
    source: Source
    out: Path
    cut: str  # levels, separated by commas
    changes: Changes = COMPRESS
    method: str | None = None  # None: the method that the network was trained for
    structural: bool = False
    rounds: int = 1
    keep_bases: bool = False
    teaching: Teaching | None = None
    chosen: Method = field(init=False)
    homes: dict[Path, Compression] = field(init=False)  # folder of each network -> its settings
    done: dict[Path, Saved] = field(init=False)  # those that this very call wrote before it was killed

    def __post_init__(self) -> None:
        levels = _levels(self.cut)
        saved = folder.read(self.start)
        homes = [self.out if len(levels) == 1 else self.out / f"cut-{level:g}" for level in levels]
        done = _made_before(homes, saved) if len(homes) > 1 else {}
        for home in homes:
            if home not in done:
                stamp.check_vacant(home)
        chosen = _to_cut(saved, self.start, self.method, self.structural)
        recipe = self.changes.recipe(nets.named(saved.net)) if self.changes.epochs else None
        if self.teaching and recipe is None:
            raise BadInput("--teacher: nothing is taught in 0 epochs; give --epochs")
        settings = [Compression(level, recipe, self.rounds, self.keep_bases) for level in levels]
        for one in settings:
            one.check(chosen.name, chosen.below)
        object.__setattr__(self, "chosen", chosen)
        object.__setattr__(self, "homes", dict(zip(homes, settings, strict=True)))
        object.__setattr__(self, "done", done)


def compress(call: Compress, watch: Watch | None = None) -> list[Made]:
    """Compress a network at each level and write the results; levels that this call completed before are skipped."""
    from tprune.cnn import network, steps

    heap.keep()
    teacher = call.teaching.load() if call.teaching else None
    start = network.load(call.start)
    rest, held = call.source.load()
    for home, saved in call.done.items():
        if saved.history[-1]["images"] != rest.id:
            raise BadInput(
                f"{str(home)!r} was made of other images than {rest.name} has now; remove it, or name a new --out"
            )
    warn_of_other_images(start, rest)
    inputs, made = {rest.name: rest.id, str(call.start): start.id}, []
    for home, settings in call.homes.items():
        one = network.load(home if home in call.done else call.start)
        if home not in call.done:
            steps.compress(
                one, rest, call.chosen, settings, held=held, teacher=teacher, run_dir=_run_dir(home), watch=watch
            )
            _save(one, home, inputs)
        made.append(Made(home, one, one.history[-1], len(held)))
    return made


@dataclass(frozen=True)
class Quantise:
    """One call of `cnn quantise`."""

    start: Path
    source: Source
    out: Path
    changes: Changes = QUANTISE
    activations: bool = False
    recipe: Recipe | None = field(init=False)

    def __post_init__(self) -> None:
        stamp.check_vacant(self.out)
        net = nets.named(folder.read(self.start).net)
        object.__setattr__(self, "recipe", self.changes.recipe(net) if self.changes.epochs else None)


def quantise(call: Quantise, watch: Watch | None = None) -> Made:
    """Quantise a network in PENNI's form and write it."""
    from tprune.cnn import escalate, network

    heap.keep()
    one = network.load(call.start)
    rest, held = call.source.load()
    warn_of_other_images(one, rest)
    inputs = {rest.name: rest.id, str(call.start): one.id}
    entry = escalate.quantise(
        one, rest, call.recipe, held=held, activations=call.activations, run_dir=_run_dir(call.out),
        watch=watch and (lambda done, steps, loss: watch("fine-tune", done, steps, loss)),
    )  # fmt: skip
    _save(one, call.out, inputs)
    return Made(call.out, one, entry, len(held))


def warn_of_other_images(one: Network, rest: Images) -> None:
    """Warn when the network was trained on images other than `rest`, possibly on those now held out."""
    if any(step.get("images", rest.id) != rest.id for step in one.history):
        warnings.warn(
            f"The network was trained on other images than {rest.name}: its accuracy may be measured on images that it "
            "was trained on; give --data, --limit and --held-out as in its training",
            Caution,
            stacklevel=3,
        )


def is_main() -> bool:
    """Return whether this is the main process of those that train together."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available()).is_main_process


def _run_dir(out: Path) -> Path:
    return out.parent / f".{out.name}.run"


def _save(one: Network, out: Path, inputs: Mapping[str, str]) -> None:
    from tprune.cnn import network

    if is_main():
        network.save(one, out, inputs=inputs)
        shutil.rmtree(_run_dir(out), ignore_errors=True)


def _levels(cut: str) -> list[float]:
    try:
        levels = [float(level) for level in cut.split(",")]
    except ValueError:
        raise BadInput(f"--cut {cut!r} must be a number, or several separated by commas") from None
    names = [f"{level:g}" for level in levels]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"--cut {cut!r} names {twice} twice; every level makes one network")
    return levels


def _to_cut(saved: Saved, start: Path, method: str | None, structural: bool) -> Method:
    chosen = methods.to_cut(saved, method, structural=structural) if method else methods.of(saved)
    if chosen is None:
        raise BadInput(
            f"{str(start)!r} was trained for no method; say which with --method: {', '.join(methods.METHODS)}"
        )
    if structural and not getattr(chosen, "structural", False):
        raise BadInput(f"--structural: {str(start)!r} was not trained so; give --method deephoyer with it")
    return chosen


def _made_before(homes: list[Path], start: Saved) -> dict[Path, Saved]:
    """Return the networks that this very call wrote before it was killed, by folder."""
    asked = [word for word in stamp.argv() if word != "--dry-run"]
    made = {}
    for home in homes:
        with suppress(BadInput):
            saved = folder.read(home)
            *earlier, last = saved.history or [{}]
            if earlier == start.history and last.get("argv") == asked:
                made[home] = saved
    return made
