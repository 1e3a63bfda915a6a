"""What a method costs in training: its step beside the dense network's, by turns, on the same images."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch

from tprune.cnn.images import Images
from tprune.cnn.methods import Method
from tprune.cnn.network import Network
from tprune.cnn.settings import Recipe
from tprune.cnn.training import Step

WARM_UP = 3  # rounds that are thrown away


@dataclass(frozen=True, slots=True)
class Pace:
    """Median seconds of a step, its ratio to the dense step's, and the quartiles of the ratio over the rounds."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


def pace(
    network: Network,
    images: Images,
    methods: Mapping[str, Method],
    recipe: Recipe,
    *,
    rounds: int,
    watch: Callable[[int, int], None] | None = None,
) -> list[Pace]:
    """Time one training step of the dense network and of each method, each on a copy of its own, `rounds` times.

    The order turns from round to round. A ratio is taken within a round, so that what else runs slows both; the first
    row is the dense network.
    """
    network.check(images)
    steps = {"dense": Step(copy.deepcopy(network), recipe)}
    for name, method in methods.items():
        one = copy.deepcopy(network)
        method.convert(one.module)
        steps[name] = Step(one, recipe, penalty=method.penalty(one.module, one.image))
    names = list(steps)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + rounds):
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))[: recipe.batch]
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = perf_counter()
            steps[name](images.pixels[chosen], images.labels[chosen])
            taken[name].append(perf_counter() - began)
        if watch:
            watch(number + 1, WARM_UP + rounds)
    return [_told(name, taken[name][WARM_UP:], taken["dense"][WARM_UP:]) for name in names]


def _told(name: str, seconds: list[float], dense: list[float]) -> Pace:
    ratios = [mine / theirs for mine, theirs in zip(seconds, dense, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Pace(name, statistics.median(seconds), middle, low, high)
