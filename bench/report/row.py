"""`Row`: one line of a report, and `Joined`: the row with what lies behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

CRITERIA = ("dense", "shs", "group-lasso", "magnitude", "taylor", "random")  # the order in which a report lists them


@dataclass(frozen=True)
class Row:
    """One line of a report; None where nothing was measured.

    `bleu_loss_percent` is relative to the dense fp32 row on the same sentences, of which `scored` is the number. Image
    networks have an `accuracy` (0 to 1) of `scored` images instead; `accuracy_loss` is the dense row's less their own.
    `verdict` is the worst of its records; its numbers are from the VALID ones alone.
    """

    name: str
    criterion: str | None = None
    seed: int | None = None
    keep: float | None = None
    beams: int | None = None
    runtime: str | None = None
    precision: str | None = None
    device: str | None = None
    instruction_set: str | None = None
    threads: int | None = None
    bleu: float | None = None
    chrf: float | None = None
    signature: str | None = None
    bleu_loss_percent: float | None = None
    accuracy: float | None = None
    accuracy_loss: float | None = None
    p_value: float | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    peak_mib: float | None = None
    mode: str | None = None
    verdict: str | None = None
    scored: int | None = None
    command: str | None = None

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands in a report: by device and setting, dense first, then by criterion and kept; untimed last."""
        known = CRITERIA.index(self.criterion) if self.criterion in CRITERIA else len(CRITERIA)
        where = (self.device is None, self.device or "", self.mode or "", self.runtime or "")
        how = (self.beams or 1, self.precision or "", self.threads or 0)
        return (*where, *how, known, self.criterion or "", -(self.keep or 0), self.seed or 0, self.name)


@dataclass(frozen=True)
class Joined:
    """A row, what lies behind its times (`details`, empty when untimed) and sentences about what it lacks.

    `functional`, of an emulated device only, says what was proven there; such a row stands in no table of speed.
    """

    row: Row
    details: Mapping[str, Any] = field(default_factory=dict)
    functional: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def row_documents(joined: Sequence[Joined]) -> list[dict[str, Any]]:
    """Return the rows as JSON-ready dicts, with exactly the fields of `Row`."""
    return [asdict(item.row) for item in joined]


def numbered(labels: Sequence[str]) -> list[str]:
    """Return the labels; one that stands more than once with #1, #2 and so on behind it."""
    places = [labels[:place].count(label) + 1 for place, label in enumerate(labels)]
    return [f"{one} #{place}" if labels.count(one) > 1 else one for one, place in zip(labels, places, strict=True)]
