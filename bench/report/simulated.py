"""What simulations found, as a section of a report: the paper's targets beside our simulated numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.accel.targets import Line, Target

KIND = "simulation"
HEADING = "Target, simulated, ratio"
HEADINGS = ("network", "quantity", "target (the paper's)", "target is", "simulated (ours)", "simulated / target")
TEXTS = 2  # columns before the numbers
UNDER = (
    "A compression target is the paper's best of any network on images of this size. eyeriss has 1,024 multipliers "
    "and the others' buffer, eyeriss-168 the published chip's array and buffer; both run at the others' clock, "
    "precision and DRAM. Several designs or networks: geometric mean."
)
NEEDED = ("summary", "warnings", "findings", "inputs", "argv")


def checked(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the report.json of a simulation; BadInput when it lacks what is joined."""
    if missing := [name for name in NEEDED if document.get(name) is None]:
        raise BadInput(f"simulation {str(path)!r} lacks {', '.join(missing)}")
    try:
        lines(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"simulation {str(path)!r}: its summary is not as it was written: {error}") from None
    return document


def lines(document: Mapping[str, Any]) -> list[Line]:
    """Return the summary of a simulation's report.json."""
    return [
        Line(one["network"], one["source"], one["quantity"], Target(**one["target"]), float(one["simulated"]))
        for one in document["summary"]
    ]


def cells(summary: Sequence[Line]) -> list[list[str]]:
    """Return the rows of the table under `HEADINGS`; what stands on invented densities is marked SYNTHETIC."""
    return [
        [marked(line.network, line.source), line.quantity, f"{line.target.value:g}x", line.target.standing]
        + [f"{line.simulated:.2f}x", f"{line.ratio:.2f}"]
        for line in summary
    ]


def marked(network: str, source: str) -> str:
    """Return a network's name as every table tells it."""
    return f"{network} (SYNTHETIC)" if source == "synthetic" else network
