"""Quantiles and the paired bootstrap, on literals that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tprune.bench.measure import stats


def test_summary_on_literals():
    found = stats.summarise([10, 20, 30, 40, 50])
    assert (found.count, found.mean, found.median, found.p90, found.p99) == (5, 30.0, 30.0, 46.0, None)


@pytest.mark.parametrize(("count", "expected"), [(99, None), (100, 99.01)])
def test_p99_needs_a_hundred_samples(count, expected):
    assert stats.summarise(range(1, count + 1)).p99 == pytest.approx(expected)


def test_summary_of_nothing():
    with pytest.raises(ValueError, match="there is no sample"):
        stats.summarise([])


def test_ratio_is_of_totals_not_a_mean_of_ratios():
    found = stats.speedup([[100, 300]], [[50, 200]])
    assert found.ratio == pytest.approx(400 / 250)


def test_a_constant_factor_has_no_uncertainty():
    base = np.random.default_rng(1).integers(10_000, 90_000, size=(3, 40))
    found = stats.speedup(base * 3, base)
    assert (found.ratio, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_a_slow_block_that_hits_both_sides_cancels():
    base = np.full((4, 30), 1000.0)
    base[2] *= 10
    found = stats.speedup(base, base / 2)
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_a_slow_block_that_hits_one_side_widens_the_interval():
    base, other = np.full((4, 30), 2000.0), np.full((4, 30), 1000.0)
    other[2] *= 2
    found = stats.speedup(base, other)
    assert found.ratio == pytest.approx(1.6)
    assert found.low < 1.4 < 1.9 < found.high


def test_interval_agrees_with_a_plain_loop():
    random = np.random.default_rng(5)
    base, other = random.uniform(900, 1100, (3, 50)), random.uniform(400, 600, (3, 50))
    loop = []
    for _ in range(3000):
        rows, columns = random.integers(0, 3, 3), random.integers(0, 50, 50)
        loop.append(base[np.ix_(rows, columns)].sum() / other[np.ix_(rows, columns)].sum())
    found = stats.speedup(base, other)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(loop, [0.025, 0.975])), abs=0.01)


def test_the_same_call_gives_the_same_interval():
    base = np.random.default_rng(2).uniform(1, 2, (2, 20))
    assert stats.speedup(base, base[:, ::-1]) == stats.speedup(base, base[:, ::-1])


@pytest.mark.parametrize(
    ("base", "other", "message"),
    [
        ([1, 2], [1, 2], r"shapes \(2,\) and \(2,\)"),
        ([[1, 2]], [[1]], r"shapes \(1, 2\) and \(1, 1\)"),
        ([[1, 0]], [[1, 1]], "above 0 ns"),
    ],
)
def test_speedup_refuses(base, other, message):
    with pytest.raises(ValueError, match=message):
        stats.speedup(base, other)


def test_the_median_lies_in_its_interval():
    times = np.random.default_rng(3).uniform(1000, 2000, (4, 50))
    found = stats.median(times)
    assert found.value == np.median(times)
    assert 1300 < found.low < found.value < found.high < 1700
    assert stats.median(np.full((2, 3), 7)) == stats.Median(7.0, 7.0, 7.0)


def test_a_median_refuses_what_is_not_blocks_of_sentences():
    with pytest.raises(ValueError, match=r"shape \(2,\); it must be \(blocks, sentences\)"):
        stats.median([1, 2])
