"""One step of the decoupled penalty against its formula, written out in numpy on the weights of one site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.marians import stock
from tprune.base.hoyer import group_hoyer_square, group_lasso
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.penalty import Decoupled
from tprune.pruning.sites import line_norms, site_parameters

FORMULAS = {"shs": group_hoyer_square, "group-lasso": group_lasso}
Array = npt.NDArray[np.float64]
UNIT = 0.7


@pytest.fixture
def model(tiny_config) -> PrunedMarianMTModel:
    return PrunedMarianMTModel.from_stock(stock(tiny_config()))


def pressing(model: PrunedMarianMTModel, formula: str, factors: dict[str, float] | None = None) -> Decoupled:
    """Return a press that has looked: every line of every site has a cost of its own, from 0.5 to 2."""
    press = Decoupled(model, FORMULAS[formula], factors)
    press.costs = [torch.linspace(0.5, 2.0, site.lines) for site, _ in press.places]
    press.memory["unit"] = UNIT
    return press


@dataclass(frozen=True)
class Lines:
    """One site in numpy: all that a line owns, side by side (lines, elements), and its cost d."""

    owned: Array
    cost: Array

    @classmethod
    def of(cls, press: Decoupled, place: int) -> Lines:
        site, members = press.places[place]
        parts = [
            parameter.detach().double().numpy().reshape(site.lines, -1)
            if dim == 0
            else parameter.detach().double().numpy().T
            for parameter, dim in members
        ]
        return cls(np.concatenate(parts, axis=1), press.costs[place].double().numpy())

    @property
    def weight(self) -> Array:
        """m = ||w|| d / unit."""
        return np.sqrt((self.owned**2).sum(1)) * self.cost / UNIT

    def after(self, step: Array) -> Array:
        """w <- w max(0, m - step) / m, and no line may grow."""
        ratio = np.minimum(np.maximum(0.0, self.weight - step) / self.weight, 1.0)
        return self.owned * ratio[:, None]


@pytest.mark.parametrize("place", range(6))
def test_group_lasso_is_soft_thresholding_of_the_lines(model, place: int) -> None:
    press = pressing(model, "group-lasso")
    before = Lines.of(press, place)
    strength = float(np.median(before.weight))
    press(strength)
    np.testing.assert_allclose(Lines.of(press, place).owned, before.after(np.full(1, strength)), atol=1e-5)
    dead = before.weight < strength
    assert dead.any() and not dead.all()
    assert not Lines.of(press, place).owned[dead].any()  # exactly zero, biases included


@pytest.mark.parametrize("place", range(6))
def test_shs_shrinks_the_weak_and_leaves_the_strong_alone(model, place: int) -> None:
    press = pressing(model, "shs")
    before = Lines.of(press, place)
    m = before.weight
    s, q = m.sum(), (m**2).sum()
    slope = 2 * s / q * (1 - m * s / q)
    strength = 0.05 * float(m.mean())
    press(strength)
    after = Lines.of(press, place)
    np.testing.assert_allclose(after.owned, before.after(strength * slope), atol=1e-5)
    strong = m > q / s
    assert strong.any() and not strong.all()
    assert np.array_equal(after.owned[strong], before.owned[strong])  # bit for bit: the formula would let them grow
    assert (after.weight[~strong] < m[~strong]).all()
    lost = (m - after.weight)[~strong]
    weakest = np.argsort(m[~strong])
    assert (np.diff(lost[weakest]) <= 1e-6).all()  # the weaker a line, the faster it goes


def test_a_factor_multiplies_the_strength_of_its_site_alone(model) -> None:
    site = pressing(model, "group-lasso").places[1][0]
    other = PrunedMarianMTModel(model.config)
    other.load_state_dict(model.state_dict())
    plain, steered = pressing(model, "group-lasso"), pressing(other, "group-lasso", {site.name: 2.0})
    strength = 0.1 * float(Lines.of(plain, 1).weight.min())
    before = Lines.of(plain, 1)
    plain(strength)
    steered(strength)
    np.testing.assert_allclose(before.weight - Lines.of(plain, 1).weight, strength, rtol=1e-3)
    np.testing.assert_allclose(before.weight - Lines.of(steered, 1).weight, 2 * strength, rtol=1e-3)
    for place in (0, 2, 3, 4, 5):
        assert np.array_equal(Lines.of(plain, place).owned, Lines.of(steered, place).owned)


@pytest.mark.parametrize("formula", sorted(FORMULAS))
def test_without_strength_or_a_look_nothing_happens(model, formula: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pressing(model, formula)(0.0)
    Decoupled(model, FORMULAS[formula])(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("formula", sorted(FORMULAS))
def test_a_dead_line_stays_dead(model, formula: str) -> None:
    press = pressing(model, formula)
    with torch.no_grad():
        for parameter, dim in press.places[0][1]:
            parameter.index_fill_(dim, torch.tensor([3]), 0.0)
    press(0.01)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert not Lines.of(press, 0).owned[3].any()
    assert press.scores()[press.places[0][0].name][3] == 0


@pytest.fixture
def adam(model) -> torch.optim.Optimizer:
    """Adam after one step of gradients that differ from line to line."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    generator = torch.Generator().manual_seed(5)
    for parameter in optimiser.param_groups[0]["params"]:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * torch.rand(1, generator=generator)
    optimiser.step()
    return optimiser


def expected_costs(press: Decoupled, adam: torch.optim.Optimizer) -> list[Array]:
    """d_g = root mean square of Adam's second moment over line g, relative to that over all lines."""
    found = []
    for site, members in press.places:
        moments = [adam.state[parameter]["exp_avg_sq"].double().numpy() for parameter, _ in members]
        rows = [
            moment.reshape(site.lines, -1) if dim == 0 else moment.T
            for moment, (_, dim) in zip(moments, members, strict=True)
        ]
        found.append(np.sqrt(np.concatenate(rows, axis=1).mean(1)))
    return [cost / np.sqrt((np.concatenate(found) ** 2).mean()) for cost in found]


def test_a_look_reads_the_costs_and_the_unit(model, adam) -> None:
    press = Decoupled(model, FORMULAS["shs"])
    press.look(torch.optim.AdamW(model.parameters()))  # no step taken yet: there is nothing to see
    assert (press.costs, press.memory) == ([], {})
    press.look(adam)
    costs = expected_costs(press, adam)
    for found, wanted in zip(press.costs, costs, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    prices = np.concatenate(
        [line_norms(model, site).numpy() * cost for (site, _), cost in zip(press.places, costs, strict=True)]
    )
    lower_median = np.sort(prices)[(len(prices) - 1) // 2]  # torch takes the lower of the two in the middle
    assert press.memory == {"unit": pytest.approx(lower_median, rel=1e-4)}
    assert float(torch.cat(press.weights()).median()) == pytest.approx(1, rel=1e-5)
    assert list(press.scores()) == [site.name for site, _ in press.places]


def test_the_unit_is_that_of_the_first_look_and_survives_a_resume(model, adam) -> None:
    press = Decoupled(model, FORMULAS["shs"])
    press.look(adam)
    unit = press.memory["unit"]
    shrink(model, press, 0.5)
    press.look(adam)
    assert press.memory["unit"] == unit
    resumed = Decoupled(model, FORMULAS["shs"])
    resumed.memory.update(press.memory)  # what tprune.marian.train does with the state
    resumed.look(adam)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed.weights(), press.weights(), strict=True))
    fresh = Decoupled(model, FORMULAS["shs"])
    fresh.look(adam)
    assert fresh.memory["unit"] == pytest.approx(unit / 2, rel=1e-5)


def test_louder_gradients_everywhere_change_nothing(model, adam) -> None:
    quiet, loud = Decoupled(model, FORMULAS["shs"]), Decoupled(model, FORMULAS["shs"])
    quiet.look(adam)
    each_state(adam, lambda state: state["exp_avg_sq"].mul_(100))
    loud.look(adam)
    for ours, theirs in zip(quiet.weights(), loud.weights(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_weight_that_no_gradient_reached_costs_nothing(model, adam) -> None:
    press = Decoupled(model, FORMULAS["shs"])
    site, members = press.places[0]
    for parameter, _ in members:
        del adam.state[parameter]
    press.look(adam)
    assert not press.scores()[site.name].any()
    press(0.1)
    assert all(torch.isfinite(parameter).all() for parameter, _ in site_parameters(model, site))


def shrink(model: PrunedMarianMTModel, press: Decoupled, by: float) -> None:
    with torch.no_grad():
        for _, members in press.places:
            for parameter, _ in members:
                parameter.mul_(by)


def each_state(optimiser: torch.optim.Optimizer, change: Callable[[dict[str, Any]], object]) -> None:
    for state in optimiser.state.values():
        change(state)
