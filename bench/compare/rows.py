"""Rows of a comparison: our artefacts and the rivals on the same sentences, from the records of one session.

`rows(records, scores=..., rooflines=...)`; records as `host.run` returns them, scores and rooflines by artefact id.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tprune.base import stamp
from tprune.bench.compare.rivals import RIVALS
from tprune.bench.compare.roofline import Roofline
from tprune.bench.measure import stats
from tprune.bench.measure.agreement import identical
from tprune.bench.measure.record import Record
from tprune.bench.measure.timed import Timed, of_session

KIND = "compare"
TOKENS = "token ids in, token ids out; tokenising, opening the model and importing libraries are outside every time"


def translations(records: Sequence[Record]) -> dict[str, list[list[int]]]:
    """Return artefact id -> what it translated, of all that came to an end."""
    return {one.first.artefact: ids for one in of_session(records) if one.blocks and (ids := one.output_ids)}


def reference(records: Sequence[Record]) -> str | None:
    """Return the id of what all others are compared with in quality: transformers, or else the first rival there is."""
    return next((one.first.artefact for one in _bases(of_session(records))), None)


def rows(
    records: Sequence[Record], *, scores: Mapping[str, Mapping[str, Any]], rooflines: Mapping[str, Roofline]
) -> list[dict[str, Any]]:
    """Return one row for each system that came to an end: rivals first, in the order of `RIVALS`.

    `speedups` holds, by the name of each rival, how many times faster the row is over the same sentences in the same
    blocks, with the ends of the 95 % interval. `identical` is the share of sentences with the reference's very ids.
    """
    timed = [one for one in of_session(records) if one.blocks]
    bases = _bases(timed)
    ordered = [*bases, *(one for one in timed if one not in bases)]
    right = next((one.output_ids for one in bases), None)
    return [_row(one, bases, right, scores, rooflines) for one in ordered]


def document(
    found: Sequence[Mapping[str, Any]], *, inputs: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return compare.json: the rows under a stamp, with `facts` on how they were measured."""
    return {**stamp.stamp(KIND, inputs), "measured": {"tokens": TOKENS, **facts}, "rows": list(found)}


def _bases(timed: Sequence[Timed]) -> list[Timed]:
    order = [rival.package for rival in RIVALS]
    found = [one for one in timed if one.blocks and one.first.runtime in order]
    return sorted(found, key=lambda one: (order.index(one.first.runtime), one.first.precision))


def _row(
    one: Timed,
    bases: Sequence[Timed],
    right: Sequence[Sequence[int]] | None,
    scores: Mapping[str, Mapping[str, Any]],
    rooflines: Mapping[str, Roofline],
) -> dict[str, Any]:
    first, details, output = one.first, one.details(), one.output_ids or []
    samples = one.samples(sorted(one.blocks))
    summary, middle = stats.summarise(samples), stats.median(samples)
    weight = (one.memory.memory if one.memory else None) or {}
    score = scores.get(first.artefact, {})
    return {
        "name": first.name,
        "runtime": first.runtime,
        "precision": first.precision,
        "device": first.device["model"],
        "instruction_set": first.device.get("instruction_set"),
        "threads": first.threads,
        "beams": first.beams,
        "sentences": len(output),
        "blocks": len(one.blocks),
        "verdict": one.verdict,
        **{key: score.get(key) for key in ("bleu", "chrf", "signature", "p_value")},
        "identical": None if right is None else identical(output, right) / len(output),
        "tokens": sum(map(len, output)) / len(output),
        "median_ms": middle.value / 1e6,
        "median_low": middle.low / 1e6,
        "median_high": middle.high / 1e6,
        "p90_ms": summary.p90 / 1e6,
        "speedups": {base.first.name: _speedup(base, one) for base in bases},
        "load_ms": details["load_ms"],
        "first_ms": details["first_ms"],
        "peak_mib": weight["peak_kib"] / 1024 if weight else None,
        "base_mib": details["base_mib"],
        "bytes": first.bytes,
        "criterion": first.model["criterion"],
        "keep": first.model["keep"],
        "seed": first.model["seed"],
        "params": first.model["params"],
        "macs": first.model["macs"],
        "roofline": _roofline(one, rooflines.get(first.artefact)),
        "others": details["others"],
        "versions": {name: version for name, version in first.versions.items() if name == first.runtime},
        "command": shlex.join(first.argv),
    }


def _speedup(base: Timed, one: Timed) -> dict[str, float] | None:
    blocks = sorted(base.blocks.keys() & one.blocks.keys())
    if not blocks:
        return None
    found = stats.speedup(base.means(blocks), one.means(blocks))
    return {"ratio": found.ratio, "low": found.low, "high": found.high}


def _roofline(one: Timed, bound: Roofline | None) -> dict[str, Any] | None:
    """Return the share of the roofline that the median decoder step reaches, and what it follows from."""
    if bound is None:
        return None
    records = [one.blocks[block] for block in sorted(one.blocks)]
    steps = [took / count for item in records for took, count in zip(item.step_ns, item.steps, strict=True)]
    step_ns = stats.summarise([round(step) for step in steps]).median
    return {
        "share": bound.step_ns / step_ns,
        "cached": bound.cached,
        "step_us": step_ns / 1e3,
        "step_bytes": bound.step_bytes,
        "bandwidth": bound.bandwidth,
        "cache_bytes": bound.cache_bytes,
    }
