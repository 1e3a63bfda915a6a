"""Distillation: its objective by hand, what a student learns, and what must not happen to the teacher."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tprune.cnn.training
from tests.support.tiny import Stop, a_network, check_same, some_images
from tprune.base.errors import BadInput
from tprune.cnn.network import Network
from tprune.cnn.score import evaluate
from tprune.cnn.settings import Recipe
from tprune.cnn.teacher import Teacher
from tprune.cnn.training import fit

RECIPE = Recipe(epochs=3, lr=0.05, batch=8, seed=3)


def learned() -> Network:
    """Return a network that gets every one of the images right."""
    network = a_network(seed=7)
    fit(network, some_images(), replace(RECIPE, epochs=20, shift=0, flip=False))
    assert evaluate(network, some_images()).accuracy == 1
    return network


def test_the_objective_is_the_papers():
    teacher = Teacher(a_network(), weight=0.75, temperature=2)
    logits, taught = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    one, two = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(1))  # the teacher's first class, the student's second
    divergence = one * math.log(one / (1 - two)) + (1 - one) * math.log((1 - one) / two)
    found = teacher.blend(torch.tensor(0.5), logits, taught)
    assert float(found) == pytest.approx(0.25 * 0.5 + 0.75 * 4 * divergence, rel=1e-6)


def test_a_student_that_agrees_is_left_with_the_labels_loss():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert float(Teacher(a_network(), weight=0.6).blend(torch.tensor(1.0), logits, logits)) == pytest.approx(0.4)


def test_a_student_learns_what_its_teacher_knows_though_the_labels_are_wrong():
    images, network = some_images(), a_network()
    wrong = replace(images, labels=(images.labels + 1) % 3)
    fit(network, wrong, replace(RECIPE, epochs=20, shift=0, flip=False), teacher=Teacher(learned(), weight=1.0))
    assert evaluate(network, images).accuracy > 0.9


def test_the_teacher_is_left_as_it_was():
    teacher = learned()
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    fit(a_network(), some_images(), RECIPE, teacher=Teacher(teacher))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.module.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_a_killed_run_goes_on_with_its_teacher_and_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAVE_EVERY", "FIRST_SAVE"):
        monkeypatch.setattr(tprune.cnn.training, name, -1.0)
    teacher, whole, one = Teacher(learned()), a_network(), a_network()
    fit(whole, some_images(), RECIPE, teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        fit(a_network(), some_images(), RECIPE, teacher=teacher, run_dir=tmp_path, watch=Stop(5))
    told = r"teacher is Teacher\([0-9a-f]+, weight=0.9, temperature=2.0\) and was Teacher\(.*temperature=4.0\)"
    with pytest.raises(BadInput, match=told):
        fit(a_network(), some_images(), RECIPE, teacher=replace(teacher, temperature=2.0), run_dir=tmp_path)
    with pytest.raises(BadInput, match=r"teacher is None and was Teacher\("):
        fit(a_network(), some_images(), RECIPE, run_dir=tmp_path)
    fit(one, some_images(), RECIPE, teacher=teacher, run_dir=tmp_path)
    check_same(one, whole)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weight": 0.0}, r"weight 0.0 of the teacher must be above 0 and at most 1"),
        ({"weight": 1.5}, r"weight 1.5 of the teacher must be above 0"),
        ({"weight": math.nan}, r"weight nan of the teacher must be above 0"),
        ({"temperature": 0.0}, r"temperature 0.0 must be above 0 and at most 100"),
        ({"temperature": math.inf}, r"temperature inf must be above 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Teacher(a_network(), **settings)


def test_a_network_is_not_its_own_teacher() -> None:
    one = a_network()
    with pytest.raises(BadInput, match="mine cannot be its own teacher while it trains; give a copy of it"):
        fit(one, some_images(), RECIPE, teacher=Teacher(one))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": (2, 6, 7)}, "the teacher, mine, takes images of 2 x 6 x 7; its student, mine, takes 2 x 6 x 6"),
        ({"classes": ("a", "b")}, "the teacher, mine, has the classes a, b; its student, mine, has a, b, c"),
    ],
)
def test_a_teacher_of_something_else(change: dict[str, tuple], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        fit(a_network(), some_images(), RECIPE, teacher=Teacher(replace(a_network(), **change)))
