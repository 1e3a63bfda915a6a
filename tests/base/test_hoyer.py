"""The Hoyer measures on numbers that one can check by hand, their invariances, and gradients in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tprune.base.hoyer import add_hoyer_gradients, group_hoyer_square, group_lasso, hoyer, hoyer_square

vectors = st.lists(st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-2), min_size=1, max_size=12).filter(any)
sizes = st.lists(st.floats(0.1, 10), min_size=2, max_size=12)
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


@quick
@given(sizes, st.floats(0.01, 100), st.integers(0, 1))
def test_hoyer_measures_do_not_see_scale(values, scale, square) -> None:
    w = torch.tensor(values, dtype=torch.float64)
    measure = (hoyer, hoyer_square)[square]
    assert float(measure(scale * w)) == pytest.approx(float(measure(w)), rel=1e-6)


@quick
@given(sizes)
def test_descent_shrinks_below_s2_over_s1_and_grows_above(values) -> None:
    w = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(hoyer_square(w), w)
    threshold = sum(v * v for v in values) / sum(values)
    for value, one in zip(values, slope.tolist(), strict=True):
        if abs(value - threshold) > 1e-6:
            assert (one > 0) == (value < threshold)  # descent goes against it


@pytest.mark.parametrize("alive", [1, 3, 8])
def test_hoyer_square_of_equal_non_zeros_is_their_number(alive: int) -> None:
    w = torch.zeros(10, dtype=torch.float64)
    w[:alive] = -0.3
    assert float(hoyer_square(w)) == pytest.approx(alive)


@quick
@given(sizes)
def test_gradients_are_finite_differences(values) -> None:
    w = torch.tensor([*values, *[-v for v in values[:2]]], dtype=torch.float64)
    for measure in (hoyer, hoyer_square):
        assert torch.autograd.gradcheck(measure, w.clone().requires_grad_(), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_closed_form_is_what_autograd_finds(layout) -> None:
    shapes = ((6, 4, 3, 3), (5, 7), (4, 4, 1, 1), (3, 1, 5, 5))
    ours = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in shapes]
    ours = [(w.contiguous(memory_format=layout) if w.ndim == 4 else w).requires_grad_() for w in ours]
    theirs = [w.detach().clone().requires_grad_() for w in ours]
    for square in (False, True):
        for w in (*ours, *theirs):
            w.grad = torch.full_like(w, 0.5)  # it is added
        add_hoyer_gradients(ours, 3.0, square=square)
        (3 * torch.stack([(hoyer, hoyer_square)[square](w) for w in theirs]).sum()).backward()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.grad, other.grad)


def test_a_part_of_a_tensor_and_zeros_have_gradients_too() -> None:
    w = torch.randn(4, 6).requires_grad_()
    hoyer_square(w[:, ::2]).backward()
    assert w.grad[:, ::2].abs().min() > 0 and not w.grad[:, 1::2].any()
    dead = torch.zeros(3, requires_grad=True)
    hoyer_square(dead).backward()
    assert dead.grad.tolist() == [0, 0, 0]
    some = torch.tensor([0.0, 3.0, 4.0], requires_grad=True)
    hoyer_square(some).backward()
    assert some.grad[0] == 0  # what was cut stays where it is


@pytest.mark.parametrize("part", [(slice(None), slice(4)), (slice(None, None, 2),), (..., slice(1, 3), slice(1, 3))])
def test_the_closed_form_of_a_part_of_a_channels_last_tensor(part) -> None:
    whole = torch.randn(4, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    ours, theirs = whole[part].detach().requires_grad_(), whole[part].detach().requires_grad_()
    add_hoyer_gradients([ours], 1.0, square=True)
    hoyer_square(theirs).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_what_is_dead_stays_so_in_closed_form() -> None:
    dead, some = torch.zeros(3, requires_grad=True), torch.tensor([0.0, 3.0, 4.0], requires_grad=True)
    for square in (False, True):
        dead.grad = some.grad = None
        add_hoyer_gradients([dead, some], 1.0, square=square)
        assert dead.grad.tolist() == [0, 0, 0] and some.grad[0] == 0
