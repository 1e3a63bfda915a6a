"""Join quality and records by model id into the rows of a report, each with the reasons for what it lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench import stats
from bench.evidence import Evidence, Quality
from bench.record import MEMORY_BLOCK, Record

CRITERIA = ("dense", "shs", "group-lasso", "magnitude", "taylor", "random")  # the order in which a report lists them


@dataclass(frozen=True)
class Row:
    """One line of a report; None where nothing was measured. `bleu_loss_percent` is relative to the dense fp32 row."""

    name: str
    criterion: str | None = None
    seed: int | None = None
    keep: float | None = None
    beams: int | None = None
    runtime: str | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    bleu: float | None = None
    chrf: float | None = None
    signature: str | None = None
    bleu_loss_percent: float | None = None
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
    command: str | None = None


@dataclass(frozen=True)
class Joined:
    """A row, what lies behind its times (`details`, empty when untimed) and sentences about what it lacks."""

    row: Row
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Timed:
    """The records of one artefact in one session."""

    first: Record
    blocks: Mapping[int, Record]
    memory: Record | None
    failed: tuple[Record, ...]


def join(evidence: Evidence) -> list[Joined]:
    """Return one row per timed artefact, then one per quality and per artefact that was not timed; dense rows first."""
    joined: list[Joined] = []
    used: set[tuple[str, str, int]] = set()
    for session in evidence.sessions:
        timed = _by_artefact(session)
        for one in timed:
            quality = _quality_of(evidence, one.first.model["id"], one.first.precision, one.first.beams, one.first)
            used.add((one.first.model["id"], one.first.precision, one.first.beams))
            joined.append(_timed_row(evidence, one, timed, quality))
    joined += _untimed_rows(evidence, used)
    return sorted(joined, key=lambda item: _order(item.row))


def _order(row: Row) -> tuple[Any, ...]:
    known = CRITERIA.index(row.criterion) if row.criterion in CRITERIA else len(CRITERIA)
    place = (known, row.criterion or "", -(row.keep or 0), row.seed or 0)
    return (row.beams or 1, row.precision or "", row.threads or 0, *place, row.name)


def _by_artefact(session: Sequence[Record]) -> list[_Timed]:
    found = []
    for identity in dict.fromkeys(item.artefact for item in session):
        own = [item for item in session if item.artefact == identity]
        blocks = {item.block: item for item in own if item.valid and item.block != MEMORY_BLOCK}
        memory = next((item for item in own if item.valid and item.block == MEMORY_BLOCK), None)
        found.append(_Timed(own[0], blocks, memory, tuple(item for item in own if not item.valid)))
    return found


def _quality_of(
    evidence: Evidence, model: str, precision: str, beams: int, timed: Record | None = None
) -> Quality | None:
    """Return the newest quality of a model; that of the measured artefact or runtime goes before any other."""
    fitting = [
        quality
        for quality in evidence.qualities
        if (quality["model"]["id"], quality["precision"], quality["beams"]) == (model, precision, beams)
    ]
    if timed is not None and timed.precision != "fp32":  # fp32 gives the same tokens in every runtime, int8 does not
        fitting = [quality for quality in fitting if quality["runtime"] == timed.runtime]

    def rank(quality: Quality) -> tuple[bool, bool, str]:
        same = timed is not None and quality["runtime"] == timed.runtime
        return (timed is not None and quality.get("artefact") == timed.artefact, same, quality.get("created", ""))

    return max(fitting, key=rank, default=None)


def _scores(evidence: Evidence, quality: Quality | None, beams: int) -> tuple[dict[str, Any], list[str]]:
    """Return the quality fields of a row, and why some are missing."""
    if quality is None:
        return {}, [f"no quality was measured with {beams} beam{'s' if beams > 1 else ''}, so BLEU is blank"]
    fields = {name: quality[name] for name in ("bleu", "chrf", "signature")}
    if quality["model"].get("criterion") == "dense" and quality["precision"] == "fp32":
        return {**fields, "bleu_loss_percent": 0.0}, []
    notes = []
    dense = _dense_qualities(evidence, beams)
    if len(dense) == 1 and dense[0]["bleu"] > 0:
        fields["bleu_loss_percent"] = 100 * (1 - quality["bleu"] / dense[0]["bleu"])
    else:
        why = "no dense fp32 quality" if not dense else f"{len(dense)} dense models to compare with"
        notes.append(f"the BLEU change is blank: there is {why} (with {beams} beam{'s' if beams > 1 else ''})")
    baseline = quality.get("baseline")
    if baseline is None:
        notes.append("no p-value: its quality was measured without a baseline")
    else:
        fields["p_value"] = baseline["p_value"]
        if dense and baseline["name"] != dense[0]["model"]["name"]:
            notes.append(f"its p-value is against {baseline['name']}, not against {dense[0]['model']['name']}")
    return fields, notes


def _dense_qualities(evidence: Evidence, beams: int) -> list[Quality]:
    models = {
        quality["model"]["id"]
        for quality in evidence.qualities
        if quality["model"].get("criterion") == "dense" and quality["precision"] == "fp32" and quality["beams"] == beams
    }
    found = [_quality_of(evidence, model, "fp32", beams) for model in sorted(models)]
    return [quality for quality in found if quality is not None]


def _timed_row(evidence: Evidence, one: _Timed, session: Sequence[_Timed], quality: Quality | None) -> Joined:
    first = one.first
    scores, notes = _scores(evidence, quality, first.beams)
    for failed in one.failed:
        what = "its memory pass" if failed.block == MEMORY_BLOCK else f"block {failed.block}"
        notes.append(f"{what} is not used: {failed.verdict}{f' ({failed.error})' if failed.error else ''}")
    times: dict[str, Any] = {}
    if one.blocks:
        summary = stats.summarise(_samples(one, sorted(one.blocks)))
        times = {"median_ms": summary.median / 1e6, "p90_ms": summary.p90 / 1e6}
        gain, why = _speedup(one, session)
        times |= gain
        notes += why
    else:
        notes.append("no block was measured to its end, so its times are blank")
    if one.memory is not None and one.memory.memory is not None:
        times["peak_mib"] = one.memory.memory["peak_kib"] / 1024
    facts: dict[str, Any] = {
        "runtime": first.runtime,
        "precision": first.precision,
        "threads": first.threads,
        "beams": first.beams,
    }
    row = Row(
        **_model_fields(quality["model"] if quality else first.model),
        **facts,
        **scores,
        **times,
        device=str(first.device["model"]),
        bytes=first.bytes,
        command=shlex.join(first.argv),
    )
    return Joined(row, _details(one) if one.blocks else {}, tuple(notes))


def _speedup(one: _Timed, session: Sequence[_Timed]) -> tuple[dict[str, float], list[str]]:
    """Return the speed-up against the dense row of the same session, runtime, precision, device, threads and beams."""
    dense = [
        other
        for other in session
        if other.first.model.get("criterion") == "dense" and other.blocks and _setting(other) == _setting(one)
    ]
    if len(dense) != 1:
        why = "no dense artefact" if not dense else f"{len(dense)} dense artefacts"
        return {}, [f"no comparison of times: {why} of the same runtime, precision, device and threads in its records"]
    base = dense[0]
    shared = sorted(base.blocks.keys() & one.blocks.keys())
    if not shared:
        return {}, ["no comparison of times: it and the dense artefact have no block in common"]
    found = stats.speedup(_samples(base, shared), _samples(one, shared))
    apart = sum(base.blocks[block].nonce != one.blocks[block].nonce for block in shared)
    notes = [f"{apart} of {len(shared)} blocks ran in another session than the dense artefact's"] if apart else []
    return {"speedup": found.ratio, "speedup_low": found.low, "speedup_high": found.high}, notes


def _setting(timed: _Timed) -> tuple[Any, ...]:
    first = timed.first
    identity = first.settings.get("sentences_id")
    return (first.runtime, first.precision, first.device["model"], first.threads, first.beams, identity)


def _samples(timed: _Timed, blocks: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([timed.blocks[block].samples_ns for block in blocks], dtype=np.int64)  # (blocks, sentences)


def _details(one: _Timed) -> dict[str, Any]:
    """Return what lies behind a row's times: ms, percent, counts, and how calm the machine was."""
    records = [one.blocks[block] for block in sorted(one.blocks)]
    total = {name: sum(sum(getattr(item, name)) for item in records) for name in ("samples_ns", "run_ns", "step_ns")}
    steps = sum(sum(item.steps) for item in records)
    summary = stats.summarise(_samples(one, sorted(one.blocks)))
    shares = [share for item in records if (share := item.conditions["after"].get("cpu_share")) is not None]
    return {
        "load_ms": records[0].load_ns / 1e6 if records[0].load_ns else None,
        "first_ms": records[0].first_ns / 1e6 if records[0].first_ns else None,
        "encoder_ms": float(np.median([time for item in records for time in item.encoder_ns])) / 1e6,
        "step_ms": total["step_ns"] / max(1, steps) / 1e6,
        "p99_ms": summary.p99 / 1e6 if summary.p99 is not None else None,
        "tokens_per_s": steps / (total["samples_ns"] / 1e9),
        "overhead_percent": 100 * (1 - total["run_ns"] / total["samples_ns"]),
        "blocks": len(records),
        "sentences": len(records[0].samples_ns),
        "cpu_share": min(shares, default=None),
        "load_average": max(item.conditions["before"]["loadavg"][0] for item in records),
        "base_mib": one.memory.memory["base_kib"] / 1024 if one.memory and one.memory.memory else None,
    }


def _untimed_rows(evidence: Evidence, used: set[tuple[str, str, int]]) -> list[Joined]:
    """Return a row for every quality, and then for every artefact, that no record belongs to."""
    rows = []
    sizes = {(subject.model["id"], subject.precision): subject.bytes for subject in evidence.artefacts}
    timed = {item.artefact for session in evidence.sessions for item in session}
    for quality in evidence.qualities:
        key = (quality["model"]["id"], quality["precision"], quality["beams"])
        if key in used:
            continue
        used.add(key)
        best = _quality_of(evidence, *key) or quality
        scores, notes = _scores(evidence, best, key[2])
        row = Row(
            **_model_fields(best["model"]),
            **scores,
            beams=key[2],
            runtime=best["runtime"],
            precision=key[1],
            bytes=sizes.get(key[:2]),
            command=shlex.join(best.get("argv", [])) or None,
        )
        rows.append(Joined(row, {}, ("it was not timed, so its times are blank", *notes)))
    known = {(model, precision) for model, precision, _ in used}
    for subject in evidence.artefacts:
        if subject.id not in timed and (subject.model["id"], subject.precision) not in known:
            facts: dict[str, Any] = {"runtime": subject.runtime, "precision": subject.precision}
            facts["bytes"] = subject.bytes
            row = Row(**_model_fields(subject.model), **facts, command=shlex.join(subject.argv) or None)
            rows.append(Joined(row, {}, ("it was exported, but neither its quality nor its time was measured",)))
    return rows


def _model_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model.get(name) for name in ("name", "criterion", "seed", "keep", "params", "macs")}


def row_documents(joined: Sequence[Joined]) -> list[dict[str, Any]]:
    """Return the rows as JSON-ready dicts, with exactly the fields of `Row`."""
    return [asdict(item.row) for item in joined]
