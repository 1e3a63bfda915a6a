"""`Timed`: all records of one artefact in one series of one file: its times, its verdict and its details."""

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
    """`blocks` are the complete timed records by number; `failed` all incomplete ones, the memory pass included.

    `identical` counts the sentences with the tokens of the reference; None without a reference.
    """

    first: Record
    blocks: Mapping[int, Record]
    memory: Record | None
    failed: tuple[Record, ...]
    identical: int | None = None

    @property
    def verdict(self) -> str:
        """The worst verdict of its records; WRONG_TOKENS when too few outputs agree with the reference."""
        if self.identical is not None and not agrees(self.identical, self.first.inputs, self.first.precision):
            return "WRONG_TOKENS"
        found = {item.verdict for item in (*self.failed, *self.blocks.values(), self.memory) if item is not None}
        return max(found, key=VERDICTS.index)

    @property
    def setting(self) -> tuple[Any, ...]:
        """The key within which times compare: device, threads, mode, runtime, precision, loop and inputs."""
        first = self.first
        return (*first.series, first.runtime, first.precision, first.loop, first.inputs_id)

    @property
    def conduct(self) -> tuple[Any, ...]:
        """The key within which numbers of threads compare."""
        first = self.first
        return (first.series[0], first.beams, first.mode, first.loop, first.inputs_id)

    @property
    def translation(self) -> tuple[Any, ...]:
        """The key within which outputs must be equal."""
        first = self.first
        return (first.artefact, first.beams, first.settings.get("max_length"), first.inputs_id)

    @property
    def output_ids(self) -> list[list[int]] | None:
        """Its outputs, from any finished run."""
        return next((item.output_ids for item in (*self.blocks.values(), *self.failed) if item.output_ids), None)

    @property
    def right(self) -> list[bool]:
        """Whether each image got its own class, from any finished run; else empty."""
        return next((item.right for item in (*self.blocks.values(), *self.failed) if item.right), [])

    def samples(self, blocks: Sequence[int]) -> Samples:
        """Return nanoseconds, shape (blocks, passes x sentences)."""
        return np.array([self.blocks[block].samples_ns for block in blocks], dtype=np.int64)

    def means(self, blocks: Sequence[int]) -> Times:
        """Return the mean nanoseconds of every sentence over the passes of a block, shape (blocks, sentences)."""
        return np.array([_by_pass(self.blocks[block]).mean(axis=0) for block in blocks])

    def details(self) -> dict[str, Any]:
        """Return what explains the times: parts in ms, shares in percent, counts, memory, load of the machine."""
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


def of_session(records: Sequence[Record]) -> list[Timed]:
    """Group the records of one file by series and artefact."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for item in records:
        groups.setdefault((item.series, item.artefact), []).append(item)
    found = []
    for own in groups.values():
        blocks = {item.block: item for item in own if item.complete and item.block != MEMORY_BLOCK}
        memory = next((item for item in own if item.complete and item.block == MEMORY_BLOCK), None)
        same = [item.identical for item in blocks.values() if item.identical is not None]
        failed = tuple(item for item in own if not item.complete)
        found.append(Timed(own[0], blocks, memory, failed, min(same, default=None)))
    return found


def agreement(one: Timed, references: Mapping[tuple[Any, ...], Timed]) -> int | None:
    """Return how many outputs of `one` equal the host's, from both records or as counted when it was measured."""
    reference, output = references.get(one.translation), one.output_ids
    if reference is None or reference is one or output is None or reference.output_ids is None:
        return one.identical
    return identical(output, reference.output_ids)


def _passes(record: Record) -> int:
    return len(record.samples_ns) // len(record.output_ids)


def _by_pass(record: Record) -> Samples:
    return np.array(record.samples_ns, dtype=np.int64).reshape(-1, len(record.output_ids))


def _endurance(record: Record) -> dict[str, float] | None:
    """Compare the first and the last minute of a sustained run, in whole passes; None when there is only one pass.

    Both parts must contain the same sentences: the passes that begin in the first minute, and as many at the end, but
    at most half of all.
    """
    passes = _by_pass(record)
    ends = passes.sum(axis=1).cumsum()  # ns until the end of every pass
    count = min(1 + int(np.searchsorted(ends, MINUTE)), len(passes) // 2)
    if count == 0:
        return None
    first, last = (float(np.median(part)) / 1e6 for part in (passes[:count], passes[-count:]))
    length = {"minutes": float(ends[-1]) / MINUTE, "end_s": float(ends[count - 1]) / 1e9}
    return {**length, "first_ms": first, "last_ms": last, "ratio": last / first}


def _median(times_ns: Any) -> float | None:
    known = [time for time in times_ns if time]
    return float(np.median(known)) / 1e6 if known else None


def _mib(kib: int | None) -> float | None:
    return kib / 1024 if kib else None
