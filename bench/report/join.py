"""Join quality and records by model id into the rows of a report, each with the reasons for what it lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tprune.bench.measure import stats, timed
from tprune.bench.measure.record import MEMORY_BLOCK, Record, place_name
from tprune.bench.measure.timed import Timed
from tprune.bench.report import scores
from tprune.bench.report.evidence import Evidence, Quality, place_of
from tprune.bench.report.row import Joined, Row
from tprune.export.manifest import IMAGES

Used = set[tuple[str, str, int]]  # model, precision and beams of what stands in a row already


def join(evidence: Evidence) -> list[Joined]:
    """Return one row per timed artefact, then one per quality and per artefact that was not timed; dense rows first."""
    sessions = [timed.of_session(session) for session in evidence.sessions]
    hosts = [one for session in sessions for one in session if one.first.device["kind"] == "host"]
    references = {one.translation: one for one in reversed(hosts) if one.output_ids}
    names = device_names(evidence)
    joined: list[Joined] = []
    used: Used = set()
    for session in sessions:
        agreed = [_with_agreement(one, references) for one in session]
        for one in agreed:
            first = one.first
            if first.task == IMAGES:
                quality, scored = None, scores.of_images(one, agreed)
            else:
                quality = scores.of_model(evidence, first.model["id"], first.precision, first.beams, first)
                scored = _scored(evidence, one, quality)
            row = _timed_row(one, agreed, _model_fields(quality["model"] if quality else first.model), scored, names)
            joined.append(row)
            if row.functional is None:
                used.add((first.model["id"], first.precision, first.beams))
    joined += _untimed_rows(evidence, used, names)
    return sorted(joined, key=lambda item: item.row.order)


def _with_agreement(one: Timed, references: Mapping[tuple[Any, ...], Timed]) -> Timed:
    return Timed(one.first, one.blocks, one.memory, one.failed, timed.agreement(one, references))


def device_names(evidence: Evidence) -> dict[str, str]:
    """Return place -> what a report calls it: its model; where two are of one model, with serial or instruction set."""
    devices = {place_name(item.device): item.device for session in evidence.sessions for item in session}
    devices |= {place: quality["device"] for quality in evidence.qualities if (place := place_of(quality)) is not None}
    models = [device["model"] for device in devices.values()]
    return {
        place: _full_name(device) if models.count(device["model"]) > 1 else str(device["model"])
        for place, device in devices.items()
    }


def _full_name(device: Mapping[str, Any]) -> str:
    return f"{device['model']} {device['serial']}" if device["serial"] else place_name(device)


def _scored(evidence: Evidence, one: Timed, quality: Quality | None) -> tuple[dict[str, Any], list[str]]:
    """Return the quality fields of what was translated while it was timed, and what has to be said of them."""
    first = one.first
    translated_here = quality is None or place_of(quality) is not None or first.device["kind"] == "host"
    if not translated_here and (first.device["emulated"] or one.verdict == "WRONG_TOKENS"):
        return {}, ["its own tokens were not scored: `tprune evaluate RECORDS` does that"]
    found, notes = scores.fields(evidence, quality, first.beams)
    if not translated_here:
        notes.append("its BLEU is of the host's tokens; `tprune evaluate RECORDS` scores its own")
    return found, notes


def _timed_row(
    one: Timed,
    session: Sequence[Timed],
    model: Mapping[str, Any],
    scored: tuple[Mapping[str, Any], Sequence[str]],
    names: Mapping[str, str],
) -> Joined:
    first, verdict = one.first, one.verdict
    found, notes = scored[0], list(scored[1])
    notes += _trouble(one)
    facts: dict[str, Any] = {
        "runtime": first.runtime,
        "precision": first.precision,
        "threads": first.threads,
        "beams": None if first.task == IMAGES else first.beams,
        "device": names[place_name(first.device)],
        "instruction_set": first.device.get("instruction_set"),
        "mode": first.mode,
        "verdict": verdict,
        "bytes": first.bytes,
        "command": shlex.join(first.argv),
    }
    if first.device["emulated"]:
        return Joined(Row(**model, **facts, **found), {}, _functional(one), tuple(notes))
    times: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if one.blocks and verdict != "WRONG_TOKENS":
        times, more = _times(one, session)
        details = {**one.details(), "sweep": _sweep(one, session), "over_fp32": _over_fp32(one, session)}
        notes += more
    elif not one.blocks:
        notes.append("no block was measured to its end, so its times are blank")
    return Joined(Row(**model, **facts, **found, **times), details, None, tuple(notes))


def _trouble(one: Timed) -> list[str]:
    """Say why records of it are not used."""
    notes = []
    for failed in one.failed:
        what = "its memory pass" if failed.block == MEMORY_BLOCK else f"block {failed.block}"
        notes.append(f"{what} is not used: {failed.verdict}{_why(failed)}")
    if one.verdict == "WRONG_TOKENS" and one.identical is not None:
        same = "images have the host's class" if one.first.task == IMAGES else "sentences have the host's tokens"
        notes.append(f"WRONG_TOKENS: {one.identical} of {one.first.inputs} {same}, so its times are blank")
    return notes


def _why(failed: Record) -> str:
    why = failed.error or failed.conditions["after"].get("throttled")
    return f" ({why})" if why else ""


def _functional(one: Timed) -> dict[str, Any]:
    """Return what an emulated device proves: that all of it ran, and whether the tokens are the host's."""
    first = one.first
    told = {"sentences": first.inputs, "identical": one.identical, "abi": first.device["abi"]}
    return {"blocks": len(one.blocks), **told}


def _times(one: Timed, session: Sequence[Timed]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a row that are times, and why some of them are missing."""
    summary = stats.summarise(one.samples(sorted(one.blocks)))
    gain, notes = _speedup(one, session)
    times: dict[str, Any] = {"median_ms": summary.median / 1e6, "p90_ms": summary.p90 / 1e6, **gain}
    if one.memory is not None and one.memory.memory is not None:
        times["peak_mib"] = one.memory.memory["peak_kib"] / 1024
    return times, notes


def _speedup(one: Timed, session: Sequence[Timed]) -> tuple[dict[str, float], list[str]]:
    """Return the speed-up against the dense row of the same session, device, runtime, precision, threads and mode."""
    dense = [
        other
        for other in session
        if other.first.model.get("criterion") == "dense"
        and other.blocks
        and other.setting == one.setting
        and other.verdict != "WRONG_TOKENS"
    ]
    if len(dense) != 1:
        why = "no dense artefact" if not dense else f"{len(dense)} dense artefacts"
        return {}, [f"no comparison of times: {why} of the same runtime, precision, device and threads in its records"]
    base = dense[0]
    shared = sorted(base.blocks.keys() & one.blocks.keys())
    if not shared:
        return {}, ["no comparison of times: it and the dense artefact have no block in common"]
    found = stats.speedup(base.means(shared), one.means(shared))
    apart = sum(base.blocks[block].session != one.blocks[block].session for block in shared)
    notes = [f"{apart} of {len(shared)} blocks ran in another session than the dense artefact's"] if apart else []
    return {"speedup": found.ratio, "speedup_low": found.low, "speedup_high": found.high}, notes


def _over_fp32(one: Timed, session: Sequence[Timed]) -> dict[str, Any] | None:
    """Return how much faster a row of another precision is than the dense fp32 one of its session and setting."""
    place = one.setting.index(one.first.precision)
    wanted = (*one.setting[:place], "fp32", *one.setting[place + 1 :])
    dense = [
        other
        for other in session
        if other.first.model.get("criterion") == "dense" and other.blocks and other.setting == wanted
        if other.verdict != "WRONG_TOKENS"
    ]
    if one.first.precision == "fp32" or len(dense) != 1:
        return None
    shared = sorted(dense[0].blocks.keys() & one.blocks.keys())
    return asdict(stats.speedup(dense[0].means(shared), one.means(shared))) if shared else None


def _sweep(one: Timed, session: Sequence[Timed]) -> dict[str, Any] | None:
    """Return how much faster an artefact is than with the fewest `threads` of its sweep; None where there is no sweep.

    Only blocks of one call are compared: they were interleaved.
    """
    same = [
        other
        for other in session
        if other.blocks
        and (other.first.artefact, other.conduct) == (one.first.artefact, one.conduct)
        and other.verdict != "WRONG_TOKENS"
    ]
    base = min(same, key=lambda other: other.first.threads)
    shared = [
        block
        for block in sorted(base.blocks.keys() & one.blocks.keys())
        if base.blocks[block].session == one.blocks[block].session
    ]
    if len(same) == 1 or not shared:
        return None
    return {"threads": base.first.threads, **asdict(stats.speedup(base.means(shared), one.means(shared)))}


def _untimed_rows(evidence: Evidence, used: Used, names: Mapping[str, str]) -> list[Joined]:
    """Return a row for every quality, and then for every artefact, that no record belongs to."""
    rows = []
    sizes = {(subject.model["id"], subject.precision): subject.bytes for subject in evidence.artefacts}
    told = {item.artefact for session in evidence.sessions for item in session}
    for quality in evidence.qualities:
        key = (quality["model"]["id"], quality["precision"], quality["beams"])
        place = place_of(quality)
        if key in used or (place is not None and quality["device"]["emulated"]):
            continue
        used.add(key)
        best = quality if place is not None else scores.of_model(evidence, *key) or quality
        found, notes = scores.fields(evidence, best, key[2])
        row = Row(
            **_model_fields(best["model"]),
            **found,
            beams=key[2],
            runtime=best["runtime"],
            precision=key[1],
            device=names[place] if place is not None else None,
            instruction_set=quality["device"].get("instruction_set") if place is not None else None,
            bytes=sizes.get(key[:2]),
            command=shlex.join(best.get("argv", [])) or None,
        )
        rows.append(Joined(row, notes=("it was not timed, so its times are blank", *notes)))
    known = {(model, precision) for model, precision, _ in used}
    for subject in evidence.artefacts:
        if subject.id not in told and (subject.model["id"], subject.precision) not in known:
            facts: dict[str, Any] = {"runtime": subject.runtime, "precision": subject.precision}
            facts["bytes"] = subject.bytes
            row = Row(**_model_fields(subject.model), **facts, command=shlex.join(subject.argv) or None)
            rows.append(Joined(row, notes=("it was exported, but neither its quality nor its time was measured",)))
    return rows


def _model_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model.get(name) for name in ("name", "criterion", "seed", "keep", "params", "macs")}
