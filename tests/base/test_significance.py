"""P-values have one form everywhere."""

from __future__ import annotations

import pytest

from tprune.base.significance import p_cell, p_text


@pytest.mark.parametrize(
    ("value", "cell", "text"),
    [(1 / 1001, "< 0.001", "p < 0.001"), (0.001, "0.001", "p = 0.001"), (0.0959, "0.096", "p = 0.096")],
)
def test_p_values(value, cell, text):
    assert (p_cell(value), p_text(value)) == (cell, text)
