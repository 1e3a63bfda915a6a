"""How p-values are written."""

from __future__ import annotations


def p_cell(value: float) -> str:
    """Return a p-value for a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_text(value: float) -> str:
    """Return a p-value for a sentence: "p = 0.012" or "p < 0.001"."""
    return f"p {p_cell(value)}" if value < 0.001 else f"p = {p_cell(value)}"
