"""The strength of the penalty, from the lines that must die and the steps that are left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tprune.marian.train import LOOK_EVERY
from tprune.pruning.pressure import DEAD, GAIN, SETTLE, Pressure, boundary, dead_share

WEIGHTS = [torch.tensor([0.3, 0.0, 1.5, 0.3]), torch.tensor([0.2, 0.3, 4.0, 2.0, 0.3, 1.0])]


def press(weights: list[Tensor], *, looked: bool = True) -> Any:
    return SimpleNamespace(costs=weights if looked else [], weights=lambda: weights)


def test_the_constants_are_those_of_the_design() -> None:
    assert (DEAD, GAIN, SETTLE, LOOK_EVERY) == (0.1, 1.2, 0.1, 5)


@pytest.mark.parametrize(
    ("step", "strength"),
    [
        (0, 1.2 * 0.3 / 90),
        (40, 1.2 * 0.3 / 50),
        (80, 1.2 * 0.3 / 10),
        (89, 1.2 * 0.3 / 5),  # never as if fewer steps were left than pass until the next look
        (99, 1.2 * 0.3 / 5),
    ],
)
def test_the_boundary_line_is_to_die_in_the_steps_that_are_left(step: int, strength: float) -> None:
    """Of 0 .2 .3 .3 .3 .3 1 1.5 2 4, half must go: the lines at the boundary weigh 0.3."""
    assert Pressure(press(WEIGHTS), keep=0.5, steps=100)(step, 7.0) == pytest.approx(strength)


def test_before_the_first_look_the_strength_stays() -> None:
    assert Pressure(press(WEIGHTS, looked=False), keep=0.5, steps=100)(5, 7.0) == 7.0


def test_once_the_lines_are_dead_nothing_presses() -> None:
    dead = [torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0.0, 0.0, 5.0])]
    assert Pressure(press(dead), keep=0.5, steps=100)(50, 7.0) == 0.0


def test_the_boundary_lies_within_the_lines_for_every_budget() -> None:
    assert boundary([torch.tensor([2.0, 2.0]), torch.tensor([2.0])], 1e-9) == 2.0
    assert boundary(WEIGHTS, 1e-9) == 4.0
    found = [boundary(WEIGHTS, keep / 20) for keep in range(1, 21)]
    assert found == sorted(found, reverse=True)  # keeping more never asks for more pressure
    assert found[-1] == 0.0


def test_the_boundary_is_over_all_sites_together() -> None:
    together = torch.cat(WEIGHTS)
    assert boundary(WEIGHTS, 0.6) == boundary([together], 0.6)


def test_the_share_of_dead_lines() -> None:
    assert dead_share([torch.tensor([0.0, 0.09]), torch.tensor([0.11, 5.0, 0.0])]) == pytest.approx(3 / 5)
    assert dead_share([torch.ones(4)]) == 0
