"""`Port`: an input or output of an exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: name, numpy dtype and shape (a string is a dynamic size)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


Borders = tuple[Sequence[Port], Sequence[Port]]  # the inputs and outputs of a graph, in call order
