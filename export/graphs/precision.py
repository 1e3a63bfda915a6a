"""`Precision`: which components of a translation model are stored and multiplied as 8-bit integers; torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tprune.base.errors import BadInput
from tprune.export import targets

COMPONENTS = ("encoder", "decoder", "output", "embedding")
"""Matrices of the encoder layers (with the cross keys and values), of the decoder layers and of the output projection,
and the embedding tables."""

MAX_BLEU_DROP = 0.5
"""Default of the quality gate: largest BLEU loss of an int8 export, in per cent of the fp32 export's BLEU."""
PARITY = 50
"""Default number of sentences that an export is compared with PyTorch on."""


@dataclass(frozen=True)
class Precision:
    """The components that are int8; all others, and the values between operators, are fp32.

    `target_cpu` names the processors that the export is for, see `tprune.export.targets`.
    """

    int8: frozenset[str] = frozenset()
    target_cpu: str = targets.ALL

    def __post_init__(self) -> None:
        targets.named(self.target_cpu)
        if unknown := sorted(self.int8 - set(COMPONENTS)):
            raise BadInput(f"unknown component {', '.join(unknown)}; an export has {', '.join(COMPONENTS)}")

    @property
    def name(self) -> str:
        """int8 if any component is, else fp32."""
        return "int8" if self.int8 else "fp32"

    @property
    def components(self) -> tuple[str, ...]:
        """The int8 components in the order of `COMPONENTS`."""
        return tuple(name for name in COMPONENTS if name in self.int8)

    def only(self, component: str) -> Precision:
        """Return the precision, for the same processors, in which `component` alone is int8."""
        return replace(self, int8=frozenset({component}))

    def without(self, components: Iterable[str]) -> Precision:
        """Return this precision with `components` in fp32. Raises BadInput for an unknown one."""
        if unknown := sorted(set(components) - set(COMPONENTS)):
            raise BadInput(f"unknown component {', '.join(unknown)}; an export has {', '.join(COMPONENTS)}")
        return replace(self, int8=self.int8 - set(components))


FP32 = Precision()
INT8 = Precision(frozenset(COMPONENTS))


def named(precision: str | Precision) -> Precision:
    """Return the precision called "fp32" or "int8" (every component); a `Precision` is returned as it is."""
    if isinstance(precision, Precision):
        return precision
    if precision not in ("fp32", "int8"):
        raise BadInput(f"precision {precision!r}: must be fp32 or int8")
    return INT8 if precision == "int8" else FP32
