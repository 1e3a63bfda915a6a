"""Our exact McNemar test is SciPy's two-sided binomial test of the discordant pairs."""

from __future__ import annotations

import pytest

from tprune.base import mcnemar


@pytest.mark.parametrize(("mine", "theirs"), [(0, 1), (1, 8), (3, 3), (40, 17), (120, 260), (1000, 1001)])
def test_the_p_value_is_scipys(mine, theirs):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is no dependency; the test compares where it is installed")
    one = [True] * mine + [False] * theirs + [True] * 5
    other = [False] * mine + [True] * theirs + [True] * 5
    wanted = stats.binomtest(mine, mine + theirs).pvalue
    assert mcnemar.p_value(one, other) == pytest.approx(wanted, rel=1e-9)
