"""Rows of a comparison: our artefacts and the rivals on the same sentences, from the records of one session.

`rows(records, scores=..., rooflines=...)`; records as `host.run` returns them, scores and rooflines by artefact id.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tprune.base import stamp
from tprune.bench.compare.rivals import RIVALS
from tprune.bench.compare.roofline import Roofline
from tprune.bench.measure import stats
from tprune.bench.measure.agreement import identical
from tprune.bench.measure.record import Record
from tprune.bench.measure.stats import Speedup
from tprune.bench.measure.timed import Timed, of_session

KIND = "compare"
TOKENS = "token ids in, token ids out; tokenising, opening the model and importing libraries are outside every time"


@dataclass(frozen=True)
class Bound:
    """The share of the memory roofline that the median decoder step reaches, and what it follows from."""

    share: float
    cached: float
    step_us: float
    step_bytes: int
    bandwidth: float
    cache_bytes: int | None


@dataclass(frozen=True)
class System:
    """One system of a comparison; the fields are those of a row of compare.json.

    `speedups` holds, by the name of each rival, the speed-up over the same sentences in the same blocks. `identical`
    is the share of sentences with the same token ids as the reference.
    """

    name: str
    runtime: str
    precision: str
    device: str
    instruction_set: str | None
    threads: int
    beams: int
    sentences: int
    blocks: int
    verdict: str
    bleu: float | None
    chrf: float | None
    signature: str | None
    p_value: float | None
    identical: float | None
    tokens: float
    median_ms: float
    median_low: float
    median_high: float
    p90_ms: float
    speedups: Mapping[str, Speedup | None]
    load_ms: float | None
    first_ms: float | None
    peak_mib: float | None
    base_mib: float | None
    bytes: int
    criterion: str | None
    keep: float | None
    seed: int | None
    params: int | None
    macs: int | None
    roofline: Bound | None
    others: float | None
    versions: Mapping[str, str]
    command: str


def translations(records: Sequence[Record]) -> dict[str, list[list[int]]]:
    """Return artefact id -> its outputs, of all artefacts that finished."""
    return {one.first.artefact: ids for one in of_session(records) if one.blocks and (ids := one.output_ids)}


def reference(records: Sequence[Record]) -> str | None:
    """Return the id of the system that quality is compared with: transformers, or else the first rival."""
    return next((one.first.artefact for one in _bases(of_session(records))), None)


def rows(
    records: Sequence[Record], *, scores: Mapping[str, Mapping[str, Any]], rooflines: Mapping[str, Roofline]
) -> list[System]:
    """Return one row for each system that finished: rivals first, in the order of `RIVALS`."""
    timed = [one for one in of_session(records) if one.blocks]
    bases = _bases(timed)
    ordered = [*bases, *(one for one in timed if one not in bases)]
    right = next((one.output_ids for one in bases), None)
    return [_row(one, bases, right, scores.get(one.first.artefact, {}), rooflines) for one in ordered]


def document(found: Sequence[System], *, inputs: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return compare.json: the rows under a stamp, with `facts` on how they were measured."""
    measured = {"tokens": TOKENS, **facts}
    return {**stamp.stamp(KIND, inputs), "measured": measured, "rows": [asdict(one) for one in found]}


def _bases(timed: Sequence[Timed]) -> list[Timed]:
    order = [rival.package for rival in RIVALS]
    found = [one for one in timed if one.blocks and one.first.runtime in order]
    return sorted(found, key=lambda one: (order.index(one.first.runtime), one.first.precision))


def _row(
    one: Timed,
    bases: Sequence[Timed],
    right: Sequence[Sequence[int]] | None,
    score: Mapping[str, Any],
    rooflines: Mapping[str, Roofline],
) -> System:
    first, details, output = one.first, one.details(), one.output_ids or []
    samples = one.samples(sorted(one.blocks))
    summary, middle = stats.summarise(samples), stats.median(samples)
    weight = one.memory.memory if one.memory else None
    facts: dict[str, Any] = {key: score.get(key) for key in ("bleu", "chrf", "signature", "p_value")}
    facts |= {key: getattr(first, key) for key in ("name", "runtime", "precision", "threads", "beams", "bytes")}
    facts |= {key: details[key] for key in ("load_ms", "first_ms", "base_mib", "others")}
    facts |= {key: first.model[key] for key in ("criterion", "keep", "seed", "params", "macs")}
    return System(
        **facts,
        device=first.device["model"],
        instruction_set=first.device.get("instruction_set"),
        sentences=len(output),
        blocks=len(one.blocks),
        verdict=one.verdict,
        identical=None if right is None else identical(output, right) / len(output),
        tokens=sum(map(len, output)) / len(output),
        median_ms=middle.value / 1e6,
        median_low=middle.low / 1e6,
        median_high=middle.high / 1e6,
        p90_ms=summary.p90 / 1e6,
        speedups={base.first.name: _speedup(base, one) for base in bases},
        peak_mib=weight["peak_kib"] / 1024 if weight else None,
        roofline=_roofline(one, rooflines.get(first.artefact)),
        versions={name: version for name, version in first.versions.items() if name == first.runtime},
        command=shlex.join(first.argv),
    )


def _speedup(base: Timed, one: Timed) -> Speedup | None:
    blocks = sorted(base.blocks.keys() & one.blocks.keys())
    return stats.speedup(base.means(blocks), one.means(blocks)) if blocks else None


def _roofline(one: Timed, bound: Roofline | None) -> Bound | None:
    if bound is None:
        return None
    records = [one.blocks[block] for block in sorted(one.blocks)]
    steps = [took / count for item in records for took, count in zip(item.step_ns, item.steps, strict=True)]
    step_ns = stats.summarise([round(step) for step in steps]).median
    share = bound.step_ns / step_ns
    return Bound(share, bound.cached, step_ns / 1e3, bound.step_bytes, bound.bandwidth, bound.cache_bytes)
