"""The cost of a method's training step: what is timed, in which order, and against what."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.support.command import tprune
from tprune.cnn import methods, pacing
from tprune.cnn.images import Images
from tprune.cnn.network import Network, fresh
from tprune.cnn.settings import Recipe


@pytest.fixture
def images() -> Images:
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 1, 28, 28), generator=chance, dtype=torch.uint8)
    return Images(pixels, torch.arange(20) % 10, tuple("0123456789"), "noise")


@pytest.fixture
def network(images: Images) -> Network:
    return fresh("lenet-5", images)


def test_ratios_are_taken_within_a_round_and_the_order_turns(monkeypatch, network: Network, images: Images):
    order: list[str] = []
    cost = {"dense": 2.0, "svd": 3.0}
    clock = itertools.count()

    class Step:
        def __init__(self, network: Network, recipe: Recipe, penalty=None) -> None:
            self.name = "svd" if penalty else "dense"

        def __call__(self, pixels, labels) -> float:
            order.append(self.name)
            return 0.0

    def now() -> float:
        tick = next(clock)  # asked before and after every step; the machine slows down from round to round
        slow = 1 + tick // 4
        return slow * cost[order[-1]] if tick % 2 else 0.0

    monkeypatch.setattr(pacing, "Step", Step)
    monkeypatch.setattr(pacing, "perf_counter", now)
    dense, svd = pacing.pace(network, images, {"svd": methods.Svd()}, Recipe(1, batch=5), rounds=4)
    assert order[:4] == ["dense", "svd", "svd", "dense"] and len(order) == 2 * (4 + pacing.WARM_UP)
    assert (dense.ratio, svd.ratio, svd.low, svd.high) == (1.0, 1.5, 1.5, 1.5)


def test_the_network_itself_is_not_trained(network: Network, images: Images):
    before = network.id
    rows = pacing.pace(network, images, {"penni": methods.Penni()}, Recipe(1, lr=0.1, batch=5), rounds=1)
    assert network.id == before and [row.name for row in rows] == ["dense", "penni"]


def test_the_verb_times_what_the_network_can_be_trained_for(tmp_path):
    from tests.support import pictures

    data = pictures.write(tmp_path / "bars", train=20, test=10)
    told = tprune("cnn", "pace", "--net", "lenet-300-100", "--data", data, "--rounds", 1, "--batch", 10, "--json").json
    assert [row["name"] for row in told["rows"]] == ["dense", "deephoyer", "deephoyer structural"]
