"""Latency of each model per image or sentence, from records of one place and one runtime."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.bench.measure import record


@dataclass(frozen=True, slots=True)
class Timing:
    """Median latency of one image or sentence in ms, and peak memory of the process in MiB where measured."""

    median_ms: float
    peak_mib: float | None


def by_model(paths: Iterable[Path]) -> dict[str, Timing]:
    """Return the timing of every model, by id, from the newest VALID records of each block.

    Raise BadInput when the records are of several places, runtimes or numbers of threads, which do not compare, and for
    int8, whose accuracy is not the model's own.
    """
    records = [one for one in record.newest(one for path in paths for one in record.read(path)) if one.valid]
    if any(one.precision != "fp32" for one in records):
        raise BadInput("the records hold int8 times; accuracy in int8 is not the network's own: see `tprune report`")
    kinds = sorted({f"{one.runtime} {one.precision}, {one.threads} threads, {one.series[0]}" for one in records})
    if len(kinds) > 1:
        raise BadInput(f"records of {' and of '.join(kinds)} do not compare; give records of one")
    samples: dict[str, list[int]] = {}
    peaks: dict[str, int] = {}
    for one in records:
        name = str(one.model["id"])
        if one.block == record.MEMORY_BLOCK and one.memory:
            peaks[name] = one.memory["peak_kib"]
        samples.setdefault(name, []).extend(one.samples_ns)
    return {
        name: Timing(statistics.median(taken) / 1e6, peaks[name] / 1024 if name in peaks else None)
        for name, taken in samples.items()
        if taken
    }
