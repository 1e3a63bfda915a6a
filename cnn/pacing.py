"""Training cost of the methods: their steps and the dense network's, interleaved on the same images."""

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

WARM_UP = 3  # rounds that are discarded


@dataclass(frozen=True, slots=True)
class Pace:
    """Median seconds of a step, its ratio to the dense step, and the quartiles of the ratio over the rounds."""

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
    """Time a training step of the dense network and of each method `rounds` times, each on its own copy.

    The order rotates from round to round. Ratios are taken within a round, so that other load slows both. The first
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
    return [_summary(name, taken[name][WARM_UP:], taken["dense"][WARM_UP:]) for name in names]


def _summary(name: str, seconds: list[float], dense: list[float]) -> Pace:
    ratios = [mine / theirs for mine, theirs in zip(seconds, dense, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Pace(name, statistics.median(seconds), middle, low, high)
