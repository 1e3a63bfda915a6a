"""The designs as data: every constant with where it comes from and how sure that is.

Confidence: "seen" in a published text or code, "inferred" from such a fact, "recalled" (not verified: never to be
quoted as a paper's number), "chosen" by us because nothing is documented (those are what the sweep varies).
A TOML file may override constants:

    design = "escalate"        # which of DESIGNS it starts from
    name = "escalate-16"       # optional: what tables call it

    [constants]
    blocks = 16

`tomllib` reads it from Python 3.11 on; on 3.10 its twin `tomli`, which pip installs there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SEEN, INFERRED, RECALLED, CHOSEN = "seen", "inferred", "recalled", "chosen"

COMPARED = ("escalate", "eyeriss", "eyeriss-168", "scnn", "sparten")  # the designs that are simulated by default


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, its source in a few words, and its confidence."""

    value: float
    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """A design: `model` says which dataflow counts for it, `constants` its sizes by name."""

    name: str
    model: str
    constants: Mapping[str, Constant]

    def __post_init__(self) -> None:
        for field, constant in self.constants.items():
            if field in SWITCHES:
                if constant.value not in (0, 1):
                    raise BadInput(f"Hardware.{field} of {self.name!r} is {constant.value:g}; it must be 0 or 1")
            elif not constant.value > 0:
                raise BadInput(f"Hardware.{field} of {self.name!r} is {constant.value:g}; it must be above 0")

    def number(self, field: str) -> float:
        """Return a constant as it is."""
        return self.constants[field].value

    def count(self, field: str) -> int:
        """Return a constant that counts things."""
        return int(self.constants[field].value)

    def having(self, source: str, **values: float) -> Hardware:
        """Return the design with other values, all of which come from `source`."""
        changed = {field: Constant(value, source, "given") for field, value in values.items()}
        return replace(self, constants={**self.constants, **changed})

    @property
    def multipliers(self) -> int:
        """Multipliers on the chip."""
        factors = {
            "eyeriss": ("rows", "columns"),
            "scnn": ("pe_rows", "pe_columns", "weight_lanes", "activation_lanes"),
            "sparten": ("clusters", "units"),
            "escalate": ("blocks", "slices", "multipliers"),
        }[self.model]
        product = 1
        for field in factors:
            product *= self.count(field)
        return product

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes that the DRAM gives or takes in one clock cycle."""
        return self.number("dram_gb_s") * 1e3 / self.number("clock_mhz")


SWITCHES = {"balanced", "queued", "skip_zero_activations"}
EQUAL = {  # what all designs scaled to equal resources share
    "clock_mhz": Constant(800, "SparTen's 45 nm clock (third-party copy of its Table 4), taken for all", SEEN),
    "bits": Constant(8, "same precision for all designs", CHOSEN),
    "buffer_bytes": Constant(512 * 1024, "same shared buffer for all designs", CHOSEN),
    "dram_gb_s": Constant(12.8, "64-bit DDR3-1600, same for all designs", CHOSEN),
}
EYERISS_CHIP = Hardware(
    "eyeriss-chip",
    "eyeriss",
    {
        "clock_mhz": Constant(200, "core clock of Eyeriss' published measurements (nn_dataflow tests)", SEEN),
        "bits": Constant(16, "16-bit fixed point (Sparseloop's Eyeriss configuration)", SEEN),
        "buffer_bytes": Constant(108 * 1024, "108 kB global buffer (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "dram_gb_s": Constant(0.72, "64-bit link at its 90 MHz; the width is our assumption", INFERRED),
        "rows": Constant(12, "12 x 14 PEs (JSSC'17 abstract: 168)", SEEN),
        "columns": Constant(14, "12 x 14 PEs (JSSC'17 abstract: 168)", SEEN),
        "ifmap_words": Constant(12, "per-PE scratch pad for inputs (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "filter_words": Constant(225, "per-PE scratch pad for weights (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "psum_words": Constant(24, "per-PE scratch pad for partial sums (nn_dataflow test_eyeriss_isscc16)", SEEN),
        "run_bits": Constant(5, "bits of a zero run in its run-length code", RECALLED),
    },
)
EYERISS_168 = replace(
    EYERISS_CHIP,
    name="eyeriss-168",  # the chip's array and buffer at everybody's clock, precision and DRAM
    constants={**EYERISS_CHIP.constants, **{name: EQUAL[name] for name in ("clock_mhz", "bits", "dram_gb_s")}},
)
EYERISS = Hardware(
    "eyeriss",
    "eyeriss",
    {
        **EYERISS_CHIP.constants,
        **EQUAL,
        "rows": Constant(32, "scaled to 1,024 PEs, square", CHOSEN),
        "columns": Constant(32, "scaled to 1,024 PEs, square", CHOSEN),
    },
)
SCNN = Hardware(
    "scnn",
    "scnn",
    {
        **EQUAL,
        "pe_rows": Constant(8, "8 x 8 PEs (DNNsim's defaults and code)", SEEN),
        "pe_columns": Constant(8, "8 x 8 PEs (DNNsim's defaults and code)", SEEN),
        "weight_lanes": Constant(4, "F = 4 weights a step (DNNsim)", SEEN),
        "activation_lanes": Constant(4, "I = 4 activations a step (DNNsim)", SEEN),
        "banks": Constant(32, "2 x F x I accumulator banks (DNNsim)", SEEN),
        "queued": Constant(
            0, "1: products queue before the banks; 0: a step waits for its busiest bank (DNNsim)", SEEN
        ),
        "accumulators": Constant(6144, "accumulator entries a PE (DNNsim's default; another example: 1,024)", SEEN),
        "index_bits": Constant(4, "bits of a zero run per non-zero", RECALLED),
        "fifo_bytes": Constant(512, "weight FIFO of a PE, about 500 B", RECALLED),
        "psum_bytes": Constant(3, "24-bit partial sums", RECALLED),
    },
)
SPARTEN = Hardware(
    "sparten",
    "sparten",
    {
        **EQUAL,
        "clusters": Constant(32, "32 clusters make 1,024 units", RECALLED),
        "units": Constant(32, "32 compute units a cluster (third-party code of SparTen)", SEEN),
        "chunk": Constant(128, "positions of a chunk (third-party code of SparTen)", SEEN),
        "balanced": Constant(1, "greedy balancing per chunk (GB-H), 0 is none (abstract names it)", SEEN),
        "local_bytes": Constant(128, "a unit's buffer for values of one chunk (simulator behind BBS)", SEEN),
        "psum_bytes": Constant(3, "24-bit partial sums", CHOSEN),
    },
)
ESCALATE = Hardware(
    "escalate",
    "escalate",
    {
        **EQUAL,
        "blocks": Constant(32, "near 1,024 multipliers with 6 slices of 5", CHOSEN),
        "slices": Constant(6, "M slices of a block, one a basis kernel (recalled), M = 6", RECALLED),
        "multipliers": Constant(5, "multipliers of a slice: 32 x 6 x 5 = 960", CHOSEN),
        "adders": Constant(4, "adders of a slice in stage 1; nothing is documented", CHOSEN),
        "word": Constant(64, "channels of a coefficient mask word, looked at in one cycle", CHOSEN),
        "skip_zero_activations": Constant(1, "stage 1 skips zero activations too ('dilution-concentration')", RECALLED),
        "line_bytes": Constant(1536, "line buffer of a slice: R rows of 16-bit intermediate values", CHOSEN),
        "psum_bytes": Constant(3, "24-bit partial sums", CHOSEN),
    },
)
DESIGNS = {
    design.name: design
    for design in (
        ESCALATE,
        EYERISS,
        EYERISS_168,
        EYERISS_CHIP,
        SCNN,
        SPARTEN,
        replace(SPARTEN.having("SparTen without balancing", balanced=0), name="sparten-plain"),
    )
}


def design(name: str) -> Hardware:
    """Return a design by name; BadInput lists the names."""
    if name not in DESIGNS:
        raise BadInput(f"design {name!r} is not known; legal are {', '.join(DESIGNS)}")
    return DESIGNS[name]


def from_toml(path: Path | str) -> Hardware:
    """Return a design of DESIGNS with the constants of a TOML file instead of its own."""
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
    return replace(base.having(path.name, **values), name=str(document.get("name", path.stem)))


def _value(path: Path, field: str, value: Any, usual: Constant) -> float:
    whole = float(usual.value).is_integer() and field not in ("clock_mhz", "dram_gb_s")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and not float(value).is_integer()):
        kind = "a whole number" if whole else "a number"
        raise BadInput(f"{path.name}: constants.{field} is {value!r}; it must be {kind}, such as {usual.value:g}")
    return float(value)
