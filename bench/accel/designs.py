"""The table of simulated designs, and designs whose constants a TOML file overrides.

To add a design, write one module with a `Hardware` constant and add one row here. This module does not import the
models (and NumPy), so that the command line can list the names. A TOML file:

    design = "escalate"        # the design it starts from, one of DESIGNS
    name = "escalate-16"       # optional: its name in tables

    [constants]
    blocks = 16

Python 3.11 and later read it with `tomllib`, 3.10 with the equivalent package `tomli`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.accel.hardware import Constant, Hardware

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Place:
    """Where a design is defined, and whether it is simulated by default."""

    module: str
    constant: str
    usual: bool = False


DESIGNS: dict[str, Place] = {
    "escalate": Place("tprune.bench.accel.escalate", "ESCALATE", usual=True),
    "eyeriss": Place("tprune.bench.accel.eyeriss", "EYERISS", usual=True),
    "eyeriss-168": Place("tprune.bench.accel.eyeriss", "EYERISS_168", usual=True),
    "eyeriss-chip": Place("tprune.bench.accel.eyeriss", "EYERISS_CHIP"),
    "scnn": Place("tprune.bench.accel.scnn", "SCNN", usual=True),
    "sparten": Place("tprune.bench.accel.sparten", "SPARTEN", usual=True),
    "sparten-plain": Place("tprune.bench.accel.sparten", "SPARTEN_PLAIN"),
}


def usual() -> tuple[str, ...]:
    """Return the names of the designs that are simulated by default."""
    return tuple(name for name, place in DESIGNS.items() if place.usual)


def design(name: str) -> Hardware:
    """Return a design by name; BadInput lists the names."""
    if name not in DESIGNS:
        raise BadInput(f"design {name!r} is not known; legal are {', '.join(DESIGNS)}")
    found: Hardware = getattr(import_module(DESIGNS[name].module), DESIGNS[name].constant)
    return found


def from_toml(path: Path | str) -> Hardware:
    """Return a design with constants overridden by a TOML file."""
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"hardware {str(path)!r} cannot be read: {error}") from None
    if unknown := sorted(set(document) - {"design", "name", "constants"}):
        raise BadInput(f"{path.name}: unknown field {unknown[0]!r}; legal are design, name and the table constants")
    for field in ("design", "constants"):
        if field not in document:
            raise BadInput(f"{path.name}: the field {field!r} is missing; legal are design, name and [constants]")
    base = design(str(document["design"]))
    given = document["constants"]
    if not isinstance(given, dict):
        raise BadInput(f"{path.name}: constants must be a table")
    if unknown := sorted(set(given) - set(base.constants)):
        raise BadInput(
            f"{path.name}: {base.name} has no constant {unknown[0]!r}; legal are {', '.join(base.constants)}"
        )
    values = {field: _value(path, field, value, base.constants[field]) for field, value in given.items()}
    return replace(base.having(path.name, **values), name=str(document.get("name", path.stem)), colour="")


def _value(path: Path, field: str, value: Any, usual: Constant) -> float:
    whole = float(usual.value).is_integer() and field not in ("clock_mhz", "dram_gb_s")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and not float(value).is_integer()):
        kind = "a whole number" if whole else "a number"
        raise BadInput(f"{path.name}: constants.{field} is {value!r}; it must be {kind}, such as {usual.value:g}")
    return float(value)
