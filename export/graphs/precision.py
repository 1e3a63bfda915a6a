"""`Precision`: which components of a translation model are stored and multiplied as 8-bit integers; torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tprune.base.errors import BadInput
from tprune.export import targets

COMPONENTS = ("encoder", "decoder", "output", "embedding")
"""Matrices of the encoder layers (and the cross keys and values), of the decoder layers, of the output projection, and
the tables that tokens are looked up in."""


@dataclass(frozen=True)
class Precision:
    """The components that are int8; everything else, and all that passes between operators, is fp32.

    `target_cpu`: for which processors, see `tprune.export.targets`.
    """

    int8: frozenset[str] = frozenset()
    target_cpu: str = targets.ALL

    def __post_init__(self) -> None:
        targets.named(self.target_cpu)
        if unknown := sorted(self.int8 - set(COMPONENTS)):
            raise BadInput(f"unknown component {', '.join(unknown)}; an export has {', '.join(COMPONENTS)}")

    @property
    def name(self) -> str:
        """int8 when any component is, else fp32."""
        return "int8" if self.int8 else "fp32"

    def only(self, component: str) -> Precision:
        """Return the precision for the same processors in which `component` alone is int8."""
        return replace(self, int8=frozenset({component}))

    def without(self, components: Iterable[str]) -> Precision:
        """Return this precision with `components` as fp32. Raises BadInput for one that there is not."""
        if unknown := sorted(set(components) - set(COMPONENTS)):
            raise BadInput(f"unknown component {', '.join(unknown)}; an export has {', '.join(COMPONENTS)}")
        return replace(self, int8=self.int8 - set(components))


FP32 = Precision()
INT8 = Precision(frozenset(COMPONENTS))
