"""The two steps of a compressed network's life: train it for a method, then cut, fine-tune and shrink it.

    train(network, images, Recipe(epochs=15), held=held, method=methods.Svd())
    compress(network, images, methods.Svd(), Settings(0.01, Recipe(epochs=15)), held=held)

Each step adds an entry to the network's history. The masked network and the shrunk one are compared on real images
before any fine-tuning: shrinking must not change what the network computes.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tprune.base import stamp
from tprune.base.errors import BadInput, WorkFailed
from tprune.cnn.channels import evaluating
from tprune.cnn.count import count, totals
from tprune.cnn.evaluate import evaluate
from tprune.cnn.images import Images
from tprune.cnn.methods import Method, Seconds
from tprune.cnn.network import Network
from tprune.cnn.shrink import settle, shrink
from tprune.cnn.teacher import Teacher
from tprune.cnn.train import Recipe, fit

TOLERANCE = 1e-4  # of the largest logit: masked against shrunk
PROBES = 64  # images that both see

Watch = Callable[[str, int, int, float], None]  # (what, done, of how many, loss)


@dataclass(frozen=True, slots=True)
class Settings:
    """How far to cut and how to recover: `level` means what the method says it means."""

    level: float
    recipe: Recipe | None  # of the fine-tuning, all rounds together; None: none
    rounds: int = 1  # cut and fine-tune, again and again
    keep_bases: bool = False  # PENNI: leave bases and coefficients instead of plain layers

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"rounds {self.rounds} must be at least 1")
        if self.recipe and self.recipe.epochs < self.rounds:
            raise BadInput(f"{self.recipe.epochs} epochs are too few for {self.rounds} rounds of at least one each")

    def check(self, method: Method) -> None:
        """Raise BadInput for what the method cannot do."""
        if not 0 <= self.level < method.below:
            raise BadInput(f"cut {self.level:g} must lie in [0, {method.below:g}) for {method.name}")
        if self.rounds > 1 and method.name == "svd":
            raise BadInput(f"rounds {self.rounds}: svd cuts once, as its layers are plain afterwards; only 1 is legal")
        if self.keep_bases and method.name != "penni":
            raise BadInput(f"only penni has bases to keep; {method.name} has none")


def train(
    network: Network,
    images: Images,
    recipe: Recipe,
    *,
    held: Images,
    method: Method | None = None,
    teacher: Teacher | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train the network in place, in the training form and under the penalty of `method` if there is one.

    Returns the entry of its history. `held` are the images on which accuracy is told; `teacher` is distilled from.
    """
    network.check(images)
    network.check(held)
    _try(network, images)
    left = method.convert(network.module) if method else {}
    fitted = fit(
        network,
        images,
        recipe,
        penalty=method.penalty(network.module, network.image) if method else None,
        frozen=method.frozen(network.module) if method else None,
        teacher=teacher,
        run_dir=run_dir,
        watch=watch and functools.partial(watch, "train"),
    )
    facts = {
        "verb": "train",
        "images": images.id,
        "method": method and method.name,
        "settings": method and asdict(method),  # type: ignore[call-overload]
        "epochs": recipe.epochs,
        "recipe": asdict(recipe),
        "teacher": teacher and teacher.facts(),
        "left_alone": left,
        "losses": [round(loss, 4) for loss in fitted.losses],
        "accuracy_held_out": evaluate(network, held).accuracy,
        "seconds": round(fitted.seconds),
        "argv": stamp.argv(),
    }
    network.history.append(facts)
    return facts


def compress(
    network: Network,
    images: Images,
    method: Method,
    settings: Settings,
    *,
    held: Images,
    seconds: Seconds | None = None,
    teacher: Teacher | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Compress the network in place and return what was done, the entry of its history.

    `held` are the images on which accuracy is told; `teacher` is distilled from in the fine-tuning. Raises WorkFailed
    when shrinking changed the function.
    """
    network.check(images)
    network.check(held)
    settings.check(method)
    _try(network, images)
    began, left = time.monotonic(), method.convert(network.module)
    whole = totals(count(network.module, network.image))
    rounds: list[dict[str, float]] = []
    for number in range(settings.rounds):
        told = {"difference": _cut(network, images, method, settings.level)}
        told["accuracy_cut"] = evaluate(network, held).accuracy
        if settings.recipe:
            fit(
                network,
                images,
                _share(settings.recipe, number, settings.rounds),
                keep_zeros=True,
                teacher=teacher,
                run_dir=run_dir and run_dir / f"round-{number}",
                watch=watch and functools.partial(watch, f"round {number + 1}"),
            )
            told["accuracy_held_out"] = evaluate(network, held).accuracy
        rounds.append(told)
    counted = totals(count(network.module, network.image))  # before a basis is multiplied out again
    forms = {} if settings.keep_bases else method.finish(network.module, network.image, seconds)
    facts = {
        "verb": "compress",
        "images": images.id,
        "method": method.name,
        "settings": asdict(method),  # type: ignore[call-overload]
        "level": settings.level,
        "epochs": settings.recipe.epochs if settings.recipe else 0,
        "recipe": settings.recipe and asdict(settings.recipe),
        "teacher": teacher and teacher.facts(),
        "rounds": rounds,
        "left_alone": left,
        "converted": whole,
        "counts": counted,
        "forms": forms,
        "accuracy_held_out": rounds[-1].get("accuracy_held_out", rounds[-1]["accuracy_cut"]),
        "seconds": round(time.monotonic() - began),
        "argv": stamp.argv(),
    }
    network.history.append(facts)
    return facts


def _try(network: Network, images: Images) -> None:
    """Run the network on one image, so that what it cannot take is told before anything is done to it."""
    try:
        with evaluating(network.module):
            network.module(network.normalise(images.pixels[:1]))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if "view size is not compatible" in reason:
            reason = "it calls x.view on a map, but maps lie channels last here; x.flatten(1) does the same on any map"
        raise BadInput(f"{network.net} does not take an image of {images.name}: {reason}") from None


def _cut(network: Network, images: Images, method: Method, level: float) -> float:
    """Cut and shrink; return by how much shrinking changed the logits, in shares of the largest."""
    method.cut(network.module, level, network.image)
    settle(network.module, network.image)
    masked = copy.deepcopy(network.module)
    shrink(network.module, network.image)
    return difference(network, masked, images)


@torch.inference_mode()
def difference(network: Network, masked: nn.Module, images: Images) -> float:
    """Return the largest difference of logits between the network and `masked`, in shares of the largest logit.

    Raises WorkFailed when it is above `TOLERANCE`.
    """
    pixels = network.normalise(images.pixels[:PROBES])
    want, got = masked.eval()(pixels), network.module.eval()(pixels)
    found = float((want - got).abs().max() / want.abs().max().clamp(min=1e-12))
    if not found <= TOLERANCE:
        raise WorkFailed(f"shrinking changed the logits by {found:.2g} of the largest: a bug; nothing is written")
    return found


def _share(recipe: Recipe, number: int, rounds: int) -> Recipe:
    """Return the part of the recipe that round `number` of `rounds` gets; the last one gets what is left over."""
    each, rest = divmod(recipe.epochs, rounds)
    return replace(recipe, epochs=each + (rest if number == rounds - 1 else 0), seed=recipe.seed + number)
