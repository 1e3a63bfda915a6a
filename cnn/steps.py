"""The two steps of compression: train a network for a method, then cut, fine-tune and shrink it.

    train(network, images, Recipe(epochs=15), held=held, method=methods.Svd())
    compress(network, images, methods.Svd(), Compression(0.01, Recipe(epochs=15)), held=held)

Each step appends an entry to the network's history. Before any fine-tuning, the outputs of the masked and the shrunk
network are compared on real images: shrinking must not change the function.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tprune.base import stamp
from tprune.base.errors import BadInput, WorkFailed
from tprune.cnn import nets
from tprune.cnn.channels import evaluating
from tprune.cnn.count import count, totals
from tprune.cnn.images import Images
from tprune.cnn.methods import Method, Seconds
from tprune.cnn.network import Entry, Network
from tprune.cnn.score import evaluate
from tprune.cnn.settings import TRAIN, Compression, Recipe, recipe_of
from tprune.cnn.shrink import settle, shrink
from tprune.cnn.teacher import Teacher
from tprune.cnn.training import fit

TOLERANCE = 1e-4  # relative to the largest logit, between masked and shrunk network
PROBES = 64  # images of that comparison

Watch = Callable[[str, int, int, float], None]  # (phase, steps done, steps in all, loss)


def train(
    network: Network,
    images: Images,
    recipe: Recipe | None = None,
    *,
    held: Images,
    method: Method | None = None,
    teacher: Teacher | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
    **changes: Any,
) -> Entry:
    """Train the network in place, in the training form and with the penalty of `method` if given.

    Returns the new entry of its history. `held`: images used to report accuracy; `teacher`: network to distil from.
    Without a `recipe`, the network's usual one is used, with `changes` such as `epochs=15, lr=0.05`.
    """
    if recipe is None:
        row = nets.NETS.get(network.net)
        recipe = recipe_of(row, **{"epochs": TRAIN.epochs, **changes}) if row else Recipe(**changes)
    elif changes:
        raise BadInput(f"{', '.join(changes)}: give either a recipe or its settings")
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
    facts = Entry(
        verb="train",
        images=images.id,
        method=method and method.name,
        settings=method and asdict(method),  # type: ignore[call-overload]
        epochs=recipe.epochs,
        recipe=asdict(recipe),
        teacher=teacher and teacher.facts(),
        left_alone=left,
        losses=[round(loss, 4) for loss in fitted.losses],
        accuracy_held_out=evaluate(network, held).accuracy,
        seconds=round(fitted.seconds),
        argv=stamp.argv(),
    )
    network.history.append(facts)
    return facts


def compress(
    network: Network,
    images: Images,
    method: Method,
    settings: Compression,
    *,
    held: Images,
    seconds: Seconds | None = None,
    teacher: Teacher | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> Entry:
    """Compress the network in place and return the new entry of its history.

    `held`: images used to report accuracy; `teacher`: network to distil from in fine-tuning; `seconds`: latency of a
    layer on an input, by default measured here. Raises WorkFailed when shrinking changed the function.
    """
    network.check(images)
    network.check(held)
    settings.check(method.name, method.below)
    _try(network, images)
    began, left = time.monotonic(), method.convert(network.module)
    whole = totals(count(network.module, network.image))
    rounds: list[dict[str, float]] = []
    for number in range(settings.rounds):
        cut = {"difference": _cut(network, images, method, settings.level)}
        cut["accuracy_cut"] = evaluate(network, held).accuracy
        if settings.recipe:
            recipe, name = _share(settings.recipe, number, settings.rounds), f"round {number + 1}"
            home, show = run_dir and run_dir / f"round-{number}", watch and functools.partial(watch, name)
            fit(network, images, recipe, keep_zeros=True, teacher=teacher, run_dir=home, watch=show)
            cut["accuracy_held_out"] = evaluate(network, held).accuracy
        rounds.append(cut)
    counted = totals(count(network.module, network.image))  # before a basis is multiplied out again
    forms = {} if settings.keep_bases else method.finish(network.module, network.image, seconds)
    facts = Entry(
        verb="compress",
        images=images.id,
        method=method.name,
        settings=asdict(method),  # type: ignore[call-overload]
        level=settings.level,
        epochs=settings.recipe.epochs if settings.recipe else 0,
        recipe=settings.recipe and asdict(settings.recipe),
        teacher=teacher and teacher.facts(),
        rounds=rounds,
        left_alone=left,
        converted=whole,
        counts=counted,
        forms=forms,
        accuracy_held_out=rounds[-1].get("accuracy_held_out", rounds[-1]["accuracy_cut"]),
        seconds=round(time.monotonic() - began),
        argv=stamp.argv(),
    )
    network.history.append(facts)
    return facts


def _try(network: Network, images: Images) -> None:
    """Run the network on one image, to refuse a network or image that does not fit before anything is changed."""
    try:
        with evaluating(network.module):
            network.module(network.normalise(images.pixels[:1]))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if "view size is not compatible" in reason:
            reason = "it calls x.view on a map, but maps are channels last here; use x.flatten(1) instead"
        raise BadInput(f"{network.net} does not accept an image of {images.name}: {reason}") from None


def _cut(network: Network, images: Images, method: Method, level: float) -> float:
    """Cut and shrink; return `difference`."""
    method.cut(network.module, level, network.image)
    settle(network.module, network.image)
    masked = copy.deepcopy(network.module)
    shrink(network.module, network.image)
    return difference(network, masked, images)


@torch.inference_mode()
def difference(network: Network, masked: nn.Module, images: Images) -> float:
    """Return the largest difference of logits between the network and `masked`, relative to the largest logit.

    Raises WorkFailed when it is above `TOLERANCE`.
    """
    pixels = network.normalise(images.pixels[:PROBES])
    want, got = masked.eval()(pixels), network.module.eval()(pixels)
    found = float((want - got).abs().max() / want.abs().max().clamp(min=1e-12))
    if not found <= TOLERANCE:
        raise WorkFailed(f"shrinking changed the logits by {found:.2g} of the largest: a bug; nothing was written")
    return found


def _share(recipe: Recipe, number: int, rounds: int) -> Recipe:
    """Return the recipe of round `number` of `rounds`; the last round gets the remaining epochs."""
    each, rest = divmod(recipe.epochs, rounds)
    return replace(recipe, epochs=each + (rest if number == rounds - 1 else 0), seed=recipe.seed + number)
