"""Target processors of int8 ONNX artefacts, on which their sums of 8-bit products are exact. Torch-free.

x86 processors with AVX2 or AVX-512 but without VNNI multiply by `vpmaddubsw`: two neighbouring products, activation
(0 to 255) times weight (-128 to 127), are added in 16 bits, and sums saturate at 32,767. An artefact for `all`
processors has weights whose pairs never saturate. See "Data type selection" in ONNX Runtime's page on quantisation.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tprune.base import processor
from tprune.base.errors import BadInput, Caution

PAIR = 128
"""Largest sum of two neighbouring weights of one sign that never saturates: 255 * 128 = 32,640."""
REDUCED = PAIR // 2
"""Largest weight of which any two never saturate."""


@dataclass(frozen=True)
class Target:
    """One target: the processors' name in messages, and whether all of them sum exactly."""

    label: str
    exact: bool


TARGETS = {
    "all": Target("every processor", exact=False),
    "vnni": Target("x86 processors with VNNI", exact=True),
    "arm": Target("ARM processors", exact=True),
}
ALL = "all"


def named(name: str) -> Target:
    """Return a target by name. Raises BadInput, which lists the legal names, for an unknown one."""
    if name not in TARGETS:
        raise BadInput(f"target CPU {name!r}: must be one of {', '.join(TARGETS)}")
    return TARGETS[name]


def of_document(document: Mapping[str, object]) -> str:
    """Return the target in a manifest; int8 ONNX artefacts from before this field have weights of a full 8 bits.

    In a translation model, only the encoder uses the operator that needs exact sums.
    """
    of_onnx = (document["runtime"], document["precision"]) == ("onnxruntime", "int8")
    components = document.get("int8", ("encoder",))
    full = of_onnx and isinstance(components, Collection) and "encoder" in components
    return str(document.get("target_cpu", "vnni" if full else ALL))


def check(name: str | None, *, to: str, precision: str) -> None:
    """Raise BadInput for a target of an export that does not depend on the processor, and as `check_gate` does."""
    if name is not None:
        if (to, precision) != ("onnx", "int8"):
            raise BadInput(f"target CPU {name!r}: {precision} for {to} is the same for every processor; leave it out")
        check_gate(name)


def check_gate(name: str, here: processor.Processor | None = None) -> None:
    """Raise BadInput unless this processor can measure the quality of an artefact for target `name`."""
    here = here or processor.here()
    if named(name).exact and not processor.has_exact_u8s8(here):
        raise BadInput(
            f"target CPU {name!r}: this processor ({_described(here)}) does not sum 8-bit products as "
            f"{TARGETS[name].label} do, so the quality measured here would not be theirs; leave it at {ALL!r}"
        )


def warn(what: str, name: str, here: processor.Processor | None = None) -> None:
    """Warn if the artefact `what`, exported for the target `name`, gives other results on this processor."""
    here = here or processor.here()
    if named(name).exact and not processor.has_exact_u8s8(here):
        warnings.warn(
            f"{what} was exported for {TARGETS[name].label}; this one ({_described(here)}) cuts sums of 8-bit products "
            "off at 16 bits, so its results differ and are worse: export it again for all processors",
            Caution,
            stacklevel=2,
        )


def _described(here: processor.Processor) -> str:
    word = processor.best(here)
    return "without VNNI as far as its system lists" if word == processor.UNKNOWN else f"{word}, no VNNI"
