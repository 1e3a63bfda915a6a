"""Join records, quality and artefacts by model id into the rows of a report, each with notes on what is missing.

BLEU is that of the outputs of the row's own device where those were scored, otherwise the host's. The accuracy of an
image network is always that of the classes that the device itself gave. Scores are compared on the same inputs only.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tprune.base import mcnemar
from tprune.bench.measure import stats, timed
from tprune.bench.measure.record import MEMORY_BLOCK, Record, place_name
from tprune.bench.measure.stats import Speedup
from tprune.bench.measure.timed import Timed
from tprune.bench.report.evidence import Device, Evidence, Model, Quality
from tprune.bench.report.row import Details, Endurance, Functional, Row, Sweep, counted, labelled
from tprune.export.manifest import IMAGES

Used = set[tuple[str | None, str, int]]  # model, precision and beams of the rows so far


def join(evidence: Evidence) -> list[Row]:
    """Return one row per timed artefact, then one per quality and per artefact that was not timed; dense rows first."""
    sessions = [timed.of_session(session) for session in evidence.sessions]
    hosts = [one for session in sessions for one in session if one.first.device["kind"] == "host"]
    references = {one.translation: one for one in reversed(hosts) if one.output_ids}
    names = device_names(evidence)
    rows: list[Row] = []
    used: Used = set()
    for session in sessions:
        checked = [replace(one, identical=timed.agreement(one, references)) for one in session]
        for one in checked:
            rows.append(_timed_row(evidence, one, checked, names[place_name(one.first.device)]))
            if rows[-1].functional is None:
                used.add((one.first.model["id"], one.first.precision, one.first.beams))
    rows += _untimed_rows(evidence, used, names)
    return labelled(sorted(rows, key=lambda row: row.order))


def device_names(evidence: Evidence) -> dict[str, str]:
    """Return place -> display name: the model, with serial or instruction set where two devices are of one model."""
    devices = {device.place: device for item in evidence.records if (device := Device.of(item.device))}
    devices |= {quality.device.place: quality.device for quality in evidence.qualities if quality.device is not None}
    models = [device.model for device in devices.values()]

    def full(device: Device) -> str:
        return f"{device.model} {device.serial}" if device.serial else device.place

    return {
        place: full(device) if models.count(device.model) > 1 else device.model for place, device in devices.items()
    }


def best_quality(
    evidence: Evidence, key: tuple[str | None, str, int], measured: Record | None = None
) -> Quality | None:
    """Return the quality of a model (id, precision, beams) as it was measured, or of the untimed model.

    Preferred are the device's own outputs over the host's, then the same artefact, the same runtime, the newest.
    """
    place, artefact = (None, None) if measured is None else (place_name(measured.device), measured.artefact)
    fitting = [
        quality
        for quality in evidence.qualities
        if quality.key == key and (quality.place is None or (quality.place, quality.artefact) == (place, artefact))
    ]
    if measured is not None and measured.precision != "fp32":  # int8 outputs differ between runtimes, fp32 ones do not
        fitting = [quality for quality in fitting if quality.runtime == measured.runtime]

    def rank(quality: Quality) -> tuple[bool, bool, bool, str]:
        same = measured is not None and quality.runtime == measured.runtime
        return (quality.place is not None, quality.artefact == artefact, same, quality.created or "")

    return max(fitting, key=rank, default=None)


def dense_qualities(evidence: Evidence, quality: Quality) -> list[Quality]:
    """Return the fp32 quality of each dense model on the same sentences, from the same device where possible."""
    found: dict[str | None, Quality] = {}
    for other in sorted(evidence.qualities, key=lambda other: (other.place == quality.place, other.created or "")):
        same = (other.beams, other.corpus) == (quality.beams, quality.corpus)
        if same and other.dense_fp32 and other.place in {None, quality.place}:
            found[other.model.id] = other
    return list(found.values())


def _row(model: Model, **facts: Any) -> Row:
    own = asdict(model)
    del own["id"]
    return Row(**own, **facts)


def _noted(row: Row, *notes: str, **changes: Any) -> Row:
    return replace(row, notes=(*row.notes, *notes), **changes)


def _timed_row(evidence: Evidence, one: Timed, session: Sequence[Timed], device: str) -> Row:
    """Return the row of an artefact that was timed; `session` are the artefacts that ran interleaved with it."""
    first = one.first
    images = first.task == IMAGES
    key = (first.model["id"], first.precision, first.beams)
    quality = None if images else best_quality(evidence, key, first)
    row = _row(
        quality.model if quality else Model.of(first.model),
        runtime=first.runtime,
        precision=first.precision,
        threads=first.threads,
        beams=None if images else first.beams,
        device=device,
        instruction_set=first.device.get("instruction_set"),
        mode=first.mode,
        verdict=one.verdict,
        bytes=first.bytes,
        command=shlex.join(first.argv),
    )
    row = _with_accuracy(row, one, session) if images else _with_own_bleu(row, evidence, one, quality)
    row = _noted(row, *_failures(one))
    if first.device["emulated"]:
        proven = Functional(len(one.blocks), first.inputs, one.identical, first.device["abi"])
        return replace(row, functional=proven)
    if not one.blocks:
        return _noted(row, "no block was measured to its end, so its times are blank")
    return row if one.verdict == "WRONG_TOKENS" else _with_times(row, one, session)


def _with_own_bleu(row: Row, evidence: Evidence, one: Timed, quality: Quality | None) -> Row:
    """Return the row with its BLEU, unless only the host's outputs were scored and the device's may differ."""
    first = one.first
    own = quality is None or quality.place is not None or first.device["kind"] == "host"
    if not own and (first.device["emulated"] or one.verdict == "WRONG_TOKENS"):
        return _noted(row, "its own tokens were not scored: `tprune evaluate RECORDS` does that")
    row = _with_bleu(row, evidence, quality, first.beams)
    return row if own else _noted(row, "its BLEU is of the host's tokens; `tprune evaluate RECORDS` scores its own")


def _with_bleu(row: Row, evidence: Evidence, quality: Quality | None, beams: int) -> Row:
    if quality is None:
        return _noted(row, f"no quality was measured with {counted(beams, 'beam')}, so BLEU is blank")
    row = replace(
        row, bleu=quality.bleu, chrf=quality.chrf, signature=quality.signature, scored=quality.sentences
    )  # fmt: skip
    if quality.dense_fp32:
        return replace(row, bleu_loss_percent=0.0)
    dense = dense_qualities(evidence, quality)
    if len(dense) == 1 and dense[0].bleu > 0:
        row = replace(row, bleu_loss_percent=100 * (1 - quality.bleu / dense[0].bleu))
    else:
        why = "no dense fp32 quality" if not dense else f"{len(dense)} dense models to compare with"
        row = _noted(row, f"the BLEU change is blank: there is {why} (with {counted(beams, 'beam')})")
    if quality.versus is None:
        return _noted(row, "no p-value: its quality was measured without a baseline")
    row = replace(row, p_value=quality.p_value)
    if dense and quality.versus != dense[0].model.name:
        return _noted(row, f"its p-value is against {quality.versus}, not against {dense[0].model.name}")
    return row


def _with_accuracy(row: Row, one: Timed, session: Sequence[Timed]) -> Row:
    first, right = one.first, one.right
    if not right:
        return _noted(row, "it classified no image to the end, so its accuracy is blank")
    accuracy = sum(right) / len(right)
    row = replace(row, accuracy=accuracy, scored=first.inputs)
    if row.dense and row.precision == "fp32":
        return replace(row, accuracy_loss=0.0)
    dense = {
        other.first.model["id"]: other.right
        for other in session
        if other.first.model.get("criterion") == "dense" and other.first.precision == "fp32"
        if other.right and other.first.inputs_id == first.inputs_id
    }
    if len(dense) != 1:
        why = "no dense fp32 network" if not dense else f"{len(dense)} dense networks"
        return _noted(row, f"its loss of accuracy is blank: there is {why} in its records")
    theirs = next(iter(dense.values()))
    loss = sum(theirs) / len(theirs) - accuracy
    return replace(row, accuracy_loss=loss, p_value=mcnemar.p_value(right, theirs))


def _failures(one: Timed) -> list[str]:
    """Return notes on the records that are not used."""
    notes = []
    for failed in one.failed:
        what = "its memory pass" if failed.block == MEMORY_BLOCK else f"block {failed.block}"
        why = failed.error or failed.conditions["after"].get("throttled")
        notes.append(f"{what} is not used: {failed.verdict}{f' ({why})' if why else ''}")
    if one.verdict == "WRONG_TOKENS" and one.identical is not None:
        same = "images have the host's class" if one.first.task == IMAGES else "sentences have the host's tokens"
        notes.append(f"WRONG_TOKENS: {one.identical} of {one.first.inputs} {same}, so its times are blank")
    return notes


def _with_times(row: Row, one: Timed, session: Sequence[Timed]) -> Row:
    """Return the row with its times, memory, speed-up and details."""
    samples = one.samples(sorted(one.blocks))
    summary, middle = stats.summarise(samples), stats.median(samples)
    weight = one.memory.memory if one.memory else None
    row = replace(
        row,
        median_ms=summary.median / 1e6,
        p90_ms=summary.p90 / 1e6,
        peak_mib=weight["peak_kib"] / 1024 if weight else None,
    )
    facts: dict[str, Any] = {**one.details()}
    ends = facts.pop("endurance")
    details = Details(
        **facts,
        endurance=Endurance(**ends) if ends else None,
        sweep=_sweep(one, session),
        over_fp32=_over_fp32(one, session),
        median_low_ms=middle.low / 1e6,
        median_high_ms=middle.high / 1e6,
    )
    row = replace(row, details=details)
    dense = _dense(session, one.setting)
    if len(dense) != 1:
        why = "no dense artefact" if not dense else f"{len(dense)} dense artefacts"
        return _noted(
            row, f"no comparison of times: {why} of the same runtime, precision, device and threads in its records"
        )
    gain = _speedup(dense[0], one)
    if gain is None:
        return _noted(row, "no comparison of times: it and the dense artefact have no block in common")
    shared = dense[0].blocks.keys() & one.blocks.keys()
    apart = sum(dense[0].blocks[block].session != one.blocks[block].session for block in shared)
    note = f"{apart} of {len(shared)} blocks ran in another session than the dense artefact's"
    return _noted(
        row, *([note] if apart else []), speedup=gain.ratio, speedup_low=gain.low, speedup_high=gain.high
    )  # fmt: skip


def _dense(session: Sequence[Timed], setting: tuple[Any, ...]) -> list[Timed]:
    return [
        other
        for other in session
        if other.first.model.get("criterion") == "dense" and other.blocks and other.setting == setting
        if other.verdict != "WRONG_TOKENS"
    ]


def _speedup(base: Timed, one: Timed, *, same_call: bool = False) -> Speedup | None:
    """Return the speed-up over `base` in the blocks that both have; with `same_call` only blocks of one call count."""
    shared = [
        block
        for block in sorted(base.blocks.keys() & one.blocks.keys())
        if not same_call or base.blocks[block].session == one.blocks[block].session
    ]
    return stats.speedup(base.means(shared), one.means(shared)) if shared else None


def _over_fp32(one: Timed, session: Sequence[Timed]) -> Speedup | None:
    """Return the speed-up of a row of another precision over the dense fp32 one of its session and setting."""
    place = one.setting.index(one.first.precision)
    dense = _dense(session, (*one.setting[:place], "fp32", *one.setting[place + 1 :]))
    return _speedup(dense[0], one) if one.first.precision != "fp32" and len(dense) == 1 else None


def _sweep(one: Timed, session: Sequence[Timed]) -> Sweep | None:
    """Return the speed-up over the fewest threads of an artefact's sweep; None where there was no sweep."""
    same = [
        other
        for other in session
        if other.blocks
        and (other.first.artefact, other.conduct) == (one.first.artefact, one.conduct)
        and other.verdict != "WRONG_TOKENS"
    ]
    base = min(same, key=lambda other: other.first.threads)
    gain = _speedup(base, one, same_call=True) if len(same) > 1 else None
    return None if gain is None else Sweep(**asdict(gain), threads=base.first.threads)


def _untimed_rows(evidence: Evidence, used: Used, names: Mapping[str, str]) -> list[Row]:
    """Return a row for every quality, and then for every artefact, that no record belongs to."""
    rows = []
    sizes = {(subject.model["id"], subject.precision): subject.bytes for subject in evidence.artefacts}
    measured = {item.artefact for item in evidence.records}
    for quality in evidence.qualities:
        device = quality.device
        if quality.key in used or (device is not None and device.emulated):
            continue
        used.add(quality.key)
        best = quality if device is not None else best_quality(evidence, quality.key) or quality
        row = _row(
            best.model,
            beams=quality.beams,
            runtime=best.runtime,
            precision=quality.precision,
            device=names[device.place] if device is not None else None,
            instruction_set=device.instruction_set if device is not None else None,
            bytes=sizes.get((str(quality.model.id), quality.precision)),
            command=shlex.join(best.argv) or None,
            notes=("it was not timed, so its times are blank",),
        )
        rows.append(_with_bleu(row, evidence, best, quality.beams))
    known = {(model, precision) for model, precision, _ in used}
    for subject in evidence.artefacts:
        if subject.id not in measured and (subject.model["id"], subject.precision) not in known:
            row = _row(
                Model.of(subject.model),
                runtime=subject.runtime,
                precision=subject.precision,
                bytes=subject.bytes,
                command=shlex.join(subject.argv) or None,
                notes=("it was exported, but neither its quality nor its time was measured",),
            )
            rows.append(row)
    return rows
