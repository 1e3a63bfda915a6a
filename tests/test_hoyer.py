"""The Hoyer measures on numbers that one can check by hand, and their invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tprune.hoyer import group_hoyer_square, group_lasso, hoyer, hoyer_square

vectors = st.lists(st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-2), min_size=1, max_size=12).filter(any)
quick = settings(max_examples=30, derandomize=True, database=None, deadline=None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 0.0, 0.0, 3.0], 2.0),
        ([-5.0, 5.0, 5.0], 3.0),
        ([0.0, 0.0, -0.2], 1.0),
        ([3.0, 4.0], 49 / 25),
        ([0.0, 0.0], 0.0),
    ],
)
def test_by_hand(values: list[float], expected: float) -> None:
    w = torch.tensor(values)
    assert float(hoyer_square(w)) == pytest.approx(expected, abs=1e-6)
    assert float(hoyer(w)) == pytest.approx(math.sqrt(expected), abs=1e-6)
    if any(values):
        assert float(group_hoyer_square(w.square())) == pytest.approx(expected, abs=1e-4)


def test_group_lasso_by_hand() -> None:
    assert float(group_lasso(torch.tensor([9.0, 16.0, 0.0]))) == pytest.approx(7.0, abs=1e-5)


@quick
@given(st.integers(1, 9), st.integers(0, 9), st.floats(0.05, 20))
def test_it_counts_equal_non_zeros(alive: int, dead: int, size: float) -> None:
    w = torch.tensor([size, -size][:1] * alive + [0.0] * dead, dtype=torch.float64)
    assert float(hoyer_square(w)) == pytest.approx(alive)
    assert float(group_hoyer_square(w.square())) == pytest.approx(alive, rel=1e-3)


@quick
@given(vectors, st.floats(0.1, 100))
def test_scale_invariance_and_bounds(values: list[float], scale: float) -> None:
    w = torch.tensor(values, dtype=torch.float64)
    for measure, top in ((hoyer, len(values) ** 0.5), (hoyer_square, len(values))):
        value = float(measure(w))
        assert float(measure(scale * w)) == pytest.approx(value, rel=1e-4)
        assert 1 - 1e-4 <= value <= top * (1 + 1e-9)
    assert float(group_hoyer_square(scale**2 * w.square())) == pytest.approx(
        float(group_hoyer_square(w.square())), rel=1e-2
    )


def test_gradients_shrink_the_small_and_grow_the_large() -> None:
    norms = torch.tensor([0.1, 1.0, 2.0], requires_grad=True)
    group_hoyer_square(norms.square()).backward()
    assert norms.grad is not None
    assert norms.grad[0] > 0 > norms.grad[2]  # descent goes against it
    ratio = norms.detach().sum() / norms.detach().square().sum()
    torch.testing.assert_close(norms.grad, 2 * ratio * (1 - norms.detach() * ratio), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("measure", [group_hoyer_square, group_lasso])
@pytest.mark.parametrize("values", [[0.0, 0.0], [0.0, 3.0]])
def test_a_dead_line_gets_no_gradient(measure, values: list[float]) -> None:
    w = torch.tensor(values, requires_grad=True)
    measure(w.square()).backward()
    assert w.grad is not None and w.grad.isfinite().all()
    assert w.grad[0] == 0
