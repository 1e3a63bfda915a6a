"""`Timed`: all records of one artefact in one series of one session: its times, its verdict and what lies behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tprune.bench.measure import stats
from tprune.bench.measure.agreement import agrees, identical
from tprune.bench.measure.record import MEMORY_BLOCK, VERDICTS, Record

Samples = np.ndarray[Any, np.dtype[np.int64]]
Times = np.ndarray[Any, np.dtype[np.float64]]
MINUTE = 60e9  # nanoseconds


@dataclass(frozen=True)
class Timed:
    """`blocks` are the complete timed records by their number; `failed` all others, of the memory pass too.

    `identical` counts the sentences with the tokens of the reference, None where there is no reference.
    """

    first: Record
    blocks: Mapping[int, Record]
    memory: Record | None
    failed: tuple[Record, ...]
    identical: int | None = None

    @property
    def verdict(self) -> str:
        """The worst verdict of its records, WRONG_TOKENS when the reference says otherwise."""
        if self.identical is not None and not agrees(self.identical, self.first.inputs, self.first.precision):
            return "WRONG_TOKENS"
        found = {item.verdict for item in (*self.failed, *self.blocks.values(), self.memory) if item is not None}
        return max(found, key=VERDICTS.index)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What two of them must share for their times to be compared; the device is part of it."""
        first = self.first
        return (*first.series, first.runtime, first.precision, first.loop, first.inputs_id)

    @property
    def conduct(self) -> tuple[Any, ...]:
        """What two of them must share for their numbers of threads to be compared."""
        first = self.first
        return (first.series[0], first.beams, first.mode, first.loop, first.inputs_id)

    @property
    def translation(self) -> tuple[Any, ...]:
        """What must be equal for two of them to have to give the same tokens."""
        first = self.first
        return (first.artefact, first.beams, first.settings.get("max_length"), first.inputs_id)

    @property
    def output_ids(self) -> list[list[int]] | None:
        """What it translated, from any of its runs that came to an end."""
        return next((item.output_ids for item in (*self.blocks.values(), *self.failed) if item.output_ids), None)

    @property
    def right(self) -> list[bool]:
        """Whether it gave each image its own class, from any of its runs that came to an end; else empty."""
        return next((item.right for item in (*self.blocks.values(), *self.failed) if item.right), [])

    def samples(self, blocks: Sequence[int]) -> Samples:
        """Return nanoseconds as (blocks, sentences and passes)."""
        return np.array([self.blocks[block].samples_ns for block in blocks], dtype=np.int64)

    def means(self, blocks: Sequence[int]) -> Times:
        """Return the mean nanoseconds of every sentence over the passes of a block, as (blocks, sentences)."""
        return np.array([_by_pass(self.blocks[block]).mean(axis=0) for block in blocks])

    def details(self) -> dict[str, Any]:
        """Return what lies behind the times: ms, percent, counts, and how calm the machine was."""
        records = [self.blocks[block] for block in sorted(self.blocks)]
        total = {
            name: sum(sum(getattr(item, name)) for item in records) for name in ("samples_ns", "run_ns", "step_ns")
        }
        steps = sum(sum(item.steps) for item in records)
        summary = stats.summarise(self.samples(sorted(self.blocks)))
        after = [item.conditions["after"] for item in records]
        weight = (self.memory.memory if self.memory else None) or {}
        return {
            "load_ms": _median(item.load_ns for item in records),
            "first_ms": _median(item.first_ns for item in records),
            "encoder_ms": _median(time for item in records for time in item.encoder_ns),
            "step_ms": total["step_ns"] / steps / 1e6 if steps else None,
            "p99_ms": summary.p99 / 1e6 if summary.p99 is not None else None,
            "tokens": steps / (len(records) * len(records[0].output_ids) * _passes(records[0])) if steps else None,
            "tokens_per_s": steps / (total["samples_ns"] / 1e9) if steps else None,
            "overhead_percent": 100 * (1 - total["run_ns"] / total["samples_ns"]),
            "endurance": _endurance(records[0]),
            "blocks": len(records),
            "sentences": len(records[0].output_ids),
            "identical": self.identical,
            "threads_got": max((item.threads_got for item in records if item.threads_got), default=None),
            "others": max((found for item in records if (found := item.others) is not None), default=None),
            "cpu_share": min((share for one in after if (share := one.get("cpu_share")) is not None), default=None),
            "base_mib": _mib(weight.get("base_kib")),
            "anon_mib": _mib(weight.get("anon_kib")),
            "file_mib": _mib(weight.get("file_kib")),
        }


def of_session(session: Sequence[Record]) -> list[Timed]:
    """Return the records of one file, sorted by what was measured how and where."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for item in session:
        groups.setdefault((item.series, item.artefact), []).append(item)
    found = []
    for own in groups.values():
        blocks = {item.block: item for item in own if item.complete and item.block != MEMORY_BLOCK}
        memory = next((item for item in own if item.complete and item.block == MEMORY_BLOCK), None)
        told = [item.identical for item in blocks.values() if item.identical is not None]
        failed = tuple(item for item in own if not item.complete)
        found.append(Timed(own[0], blocks, memory, failed, min(told, default=None)))
    return found


def agreement(one: Timed, references: Mapping[tuple[Any, ...], Timed]) -> int | None:
    """Return how many sentences `one` translated as the host did, by the records of both or by what it was told."""
    reference, output = references.get(one.translation), one.output_ids
    if reference is None or reference is one or output is None or reference.output_ids is None:
        return one.identical
    return identical(output, reference.output_ids)


def _passes(record: Record) -> int:
    return len(record.samples_ns) // len(record.output_ids)


def _by_pass(record: Record) -> Samples:
    return np.array(record.samples_ns, dtype=np.int64).reshape(-1, len(record.output_ids))


def _endurance(record: Record) -> dict[str, float] | None:
    """Return the median sentence (ms) of the first and of the last minute of a sustained run, in whole passes.

    Whole passes, because both ends must hold the same sentences: those that begin in the first minute, and as many at
    the end, but at most half of all. None when there was one pass only.
    """
    passes = _by_pass(record)
    lasted = passes.sum(axis=1).cumsum()  # ns until the end of every pass
    count = min(1 + int(np.searchsorted(lasted, MINUTE)), len(passes) // 2)
    if count == 0:
        return None
    first, last = (float(np.median(part)) / 1e6 for part in (passes[:count], passes[-count:]))
    told = {"minutes": float(lasted[-1]) / MINUTE, "end_s": float(lasted[count - 1]) / 1e9}
    return {**told, "first_ms": first, "last_ms": last, "ratio": last / first}


def _median(times_ns: Any) -> float | None:
    known = [time for time in times_ns if time]
    return float(np.median(known)) / 1e6 if known else None


def _mib(kib: int | None) -> float | None:
    return kib / 1024 if kib else None
