"""`Row`: one line of a report, with what lies behind its times and with notes on what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tprune.bench.measure.stats import Speedup
from tprune.bench.report import metrics
from tprune.bench.report.metrics import Metric

CRITERIA = ("dense", "shs", "group-lasso", "magnitude", "taylor", "random")  # the order in which a report lists them
FILTERS = ("device", "runtime", "precision")  # what a page can be filtered by


def counted(number: int | None, noun: str) -> str:
    """Return a number with its noun: "1 thread", "2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Sweep(Speedup):
    """The speed-up over the same artefact with the fewest threads, which is `threads`."""

    threads: int


@dataclass(frozen=True)
class Endurance:
    """The median latency in the first and in the last minute (`end_s` seconds) of a sustained run."""

    minutes: float
    end_s: float
    first_ms: float
    last_ms: float
    ratio: float


@dataclass(frozen=True)
class Functional:
    """What a run on an emulated device proves; `identical` counts outputs that equal the host's."""

    blocks: int
    sentences: int
    identical: int | None
    abi: str


@dataclass(frozen=True)
class Details:
    """Where the time and the memory of a timed row went, and how busy the machine was. Fields of report.json."""

    load_ms: float | None
    first_ms: float | None
    encoder_ms: float | None
    step_ms: float | None
    p99_ms: float | None
    tokens: float | None
    tokens_per_s: float | None
    overhead_percent: float
    endurance: Endurance | None
    blocks: int
    sentences: int
    identical: int | None
    threads_got: int | None
    others: float | None
    cpu_share: float | None
    base_mib: float | None
    anon_mib: float | None
    file_mib: float | None
    sweep: Sweep | None
    over_fp32: Speedup | None
    median_low_ms: float
    median_high_ms: float


@dataclass(frozen=True)
class Row:
    """One line of a report; None where nothing was measured.

    The fields up to `command` are those of report.json and report.csv. `bleu_loss_percent` is relative to the dense
    fp32 row on the same sentences; `scored` is their number. Image networks have an `accuracy` (0 to 1) instead, and
    `accuracy_loss` is the dense row's accuracy minus their own. `verdict` is the worst verdict of the row's records;
    the numbers come from VALID records only. `details` is None for rows without times; `functional` is set for
    emulated devices only, whose rows have no times.
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
    label: str = ""
    details: Details | None = None
    functional: Functional | None = None
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key of a report: device, setting, dense first, criterion, kept share; untimed rows last."""
        known = CRITERIA.index(self.criterion) if self.criterion in CRITERIA else len(CRITERIA)
        where = (self.device is None, self.device or "", self.mode or "", self.runtime or "")
        how = (self.beams or 1, self.precision or "", self.threads or 0)
        return (*where, *how, known, self.criterion or "", -(self.keep or 0), self.seed or 0, self.name)

    @property
    def metric(self) -> Metric:
        """The measure of quality that this row is scored by."""
        return metrics.of([self])

    @property
    def dense(self) -> bool:
        """Whether this is the uncompressed model."""
        return self.criterion == "dense"

    @property
    def trusted(self) -> bool:
        """Whether no record behind this row failed."""
        return self.verdict in {None, "VALID", "EMULATED"}

    @property
    def look(self) -> str:
        """The style of the row in a table: "bad" for failed records, "dense" for the uncompressed model."""
        return "bad" if not self.trusted else "dense" if self.dense else ""

    @property
    def tags(self) -> dict[str, str]:
        """What a page filters tables and figures by."""
        return {name: str(value) for name in FILTERS if (value := getattr(self, name)) is not None}

    @property
    def gain(self) -> Speedup | None:
        """The speed-up over the dense model of the same setting, with its interval."""
        if self.speedup is None or self.speedup_low is None or self.speedup_high is None:
            return None
        return Speedup(self.speedup, self.speedup_low, self.speedup_high)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What two rows must share for their times to be comparable."""
        return (self.device, self.runtime, self.precision, self.threads, self.beams, self.mode)

    @property
    def search(self) -> str:
        """How outputs were produced: beam search, greedy search, or one image at a time; and the mode unless warm."""
        text = "one image at a time" if self.beams is None else "greedy"
        text = counted(self.beams, "beam") if self.beams not in {None, 1} else text
        return text if self.mode in {None, "warm"} else f"{text}, {self.mode}"

    def document(self) -> dict[str, Any]:
        """Return the fields of report.json."""
        return {name: getattr(self, name) for name in FIELDS}

    def functional_document(self) -> dict[str, Any]:
        """Return the fields of report.json for a row of an emulated device."""
        return {**self.document(), **(asdict(self.functional) if self.functional else {})}


FIELDS = tuple(item.name for item in fields(Row))[: list(Row.__dataclass_fields__).index("label")]


def labelled(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with a unique `label` each: the name, and as much of the setting as it takes."""
    rows = list(rows)
    labels = numbered([_label(row, [other for other in rows if other.name == row.name]) for row in rows])
    return [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]


def _label(row: Row, same: Sequence[Row]) -> str:
    parts = [row.name]
    for key, text in (
        ("device", row.device),
        ("precision", row.precision),
        ("beams", f"{row.beams} beams" if row.beams != 1 else "greedy"),
        ("threads", counted(row.threads, "thread")),
        ("mode", row.mode),
        ("runtime", row.runtime),
    ):
        own = getattr(row, key)
        if own is not None and len({getattr(other, key) for other in same} - {None}) > 1:
            parts.append(str(text))
            same = [other for other in same if getattr(other, key) == own]
    return ", ".join(parts)


def numbered(labels: Sequence[str]) -> list[str]:
    """Return the labels; those that occur more than once get #1, #2 and so on."""
    places = [labels[:place].count(label) + 1 for place, label in enumerate(labels)]
    return [f"{one} #{place}" if labels.count(one) > 1 else one for one, place in zip(labels, places, strict=True)]
