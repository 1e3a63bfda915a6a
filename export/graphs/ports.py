"""`Port`: a tensor that crosses a graph's border, as the modules that are exported describe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """One tensor that crosses a graph's border: its name, numpy dtype and shape (a string is a dynamic size)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


Borders = tuple[Sequence[Port], Sequence[Port]]  # the inputs and outputs of a graph, in call order
