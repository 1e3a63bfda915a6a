"""Measure artefacts side by side, on this host or on phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import stamp
from tprune.base.errors import BadInput, only_for
from tprune.bench.measure.settings import Settings, parse_cpus, parse_threads, sweep
from tprune.verbs.inputs import Text, Watch, silent

if TYPE_CHECKING:
    from tprune.bench.measure.record import Record
    from tprune.bench.measure.tasks import Task

HOST = "host"


@dataclass(frozen=True)
class Place:
    """Where to measure: `on` host, adb or adb:SERIAL[,SERIAL...], pinned to `cpus`. The other fields are for phones."""

    on: str = HOST
    cpus: str | None = None
    adb: str | None = None
    keep_awake: bool = False
    fixed_performance: bool = False

    @property
    def warmup_ms(self) -> int:
        """Milliseconds of warm-up by default."""
        if self.on == HOST:
            return Settings.warmup_ms
        from tprune.bench.phone.station import WARMUP_MS

        return WARMUP_MS

    @property
    def phone_cpus(self) -> str | tuple[int, ...]:
        """The CPUs of a phone to pin to: big (default), all, or a list."""
        pinned = self.cpus or "big"
        return pinned if pinned in {"big", "all"} else parse_cpus(pinned)

    def serials(self, *, clean: bool = False) -> tuple[str, ...]:
        """Return the phones that are named; () for the only phone, and for this host.

        Raises BadInput for a place that does not exist, and for flags of phones on this host.
        """
        if self.on == HOST:
            phones = {"--adb": self.adb, "--keep-awake": self.keep_awake}
            phones |= {"--fixed-performance": self.fixed_performance, "--clean": clean}
            only_for("--on adb", {flag: value or None for flag, value in phones.items()})
            return ()
        from tprune.bench.phone import fleet

        return fleet.serials(self.on)


@dataclass(frozen=True)
class Benchmark:
    """What was measured, or would be; `facts` describe the inputs, as records do. `new`: records of this very call."""

    task: Task[Any]
    count: int
    facts: dict[str, Any]
    settings: Settings
    records: Sequence[Record]
    remarks: Sequence[str]
    new: int


def bench(
    artefacts: Sequence[Path],
    text: Text | None,
    out: Path,
    settings: Settings,
    *,
    place: Place = Place(),
    threads: str = "1",
    dry_run: bool = False,
    watch: Watch = silent,
) -> Benchmark:
    """Measure `artefacts` with `threads` (a number, or several such as "1,2,4") and write records to `out`.

    The inputs are `text`, whose `data` names images if the artefacts classify those. A dry run only checks the call.
    """
    from tprune.bench.api import run
    from tprune.bench.measure.tasks import CLASSIFICATION, common_task, read_subject
    from tprune.bench.phone import fleet
    from tprune.bench.phone.station import PhoneOptions

    numbers = parse_threads(threads)
    stamp.check_file("--out", out)
    place.serials()  # refuses a wrong place
    phone = None
    if place.on != HOST:
        phone = PhoneOptions(place.phone_cpus, place.keep_awake, place.fixed_performance)
    elif place.cpus is not None:
        settings = replace(settings, cpus=parse_cpus(place.cpus))
    if not artefacts or text is None:
        lacks = "--data is missing" if artefacts else "no artefact is named"
        raise BadInput(f"nothing to measure, {lacks}: tprune bench ARTEFACT... --data DATA")
    task = common_task([read_subject(folder) for folder in artefacts])
    given = _images(text) if task is CLASSIFICATION else _sentences(artefacts[0], text)
    options: Any = {"on": place.on, "phone": phone, "adb": place.adb, "watch": watch}
    before = _lines(out)
    records = [] if dry_run else run(artefacts, given, out=out, settings=sweep(settings, numbers), **options)
    remarks = list(fleet.remarks(records))
    if any(record.loop == "python" for record in records):
        remarks.insert(0, "measured by a loop in Python: no C++ compiler to build the runner, see tprune doctor")
    return Benchmark(task, len(given), task.facts(given), settings, records, remarks, _lines(out) - before)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def clean(place: Place) -> list[str]:
    """Remove what benchmarks left on the phones of `place`, and return their serials."""
    serials = place.serials(clean=True)
    from tprune.bench.phone import fleet

    return fleet.clean(serials, place.adb)


def _images(text: Text) -> Any:
    from tprune.base import pixels

    return pixels.load(text.data, split=text.split, limit=text.limit)


def _sentences(folder: Path, text: Text) -> Any:
    from tprune.bench.measure import tokens

    corpus = text.load()
    encode = tokens.read(folder).encode
    return [encode(sentence) for sentence in corpus.source]
