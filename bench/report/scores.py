"""BLEU and its comparison for a row: from what the row's own device translated where that was scored, else the host's.

The accuracy of an image network is always that of the classes which the device itself gave while it was measured.
Scores are only ever compared on the same sentences or images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tprune.base import mcnemar
from tprune.bench.measure.record import Record, place_name
from tprune.bench.measure.timed import Timed
from tprune.bench.report.evidence import Evidence, Quality, place_of


def of_model(evidence: Evidence, model: str, precision: str, beams: int, timed: Record | None = None) -> Quality | None:
    """Return the quality that belongs to a model as it was measured, or to the untimed model.

    What the device itself said goes before what the host said, the artefact before the runtime, the newer before the
    older.
    """
    place, artefact = (None, None) if timed is None else (place_name(timed.device), timed.artefact)
    fitting = [
        quality
        for quality in evidence.qualities
        if (quality["model"]["id"], quality["precision"], quality["beams"]) == (model, precision, beams)
        and (place_of(quality) is None or (place_of(quality) == place and quality.get("artefact") == artefact))
    ]
    if timed is not None and timed.precision != "fp32":  # fp32 gives the same tokens in every runtime, int8 does not
        fitting = [quality for quality in fitting if quality["runtime"] == timed.runtime]

    def rank(quality: Quality) -> tuple[bool, bool, bool, str]:
        own, same = quality.get("artefact") == artefact, timed is not None and quality["runtime"] == timed.runtime
        return (place_of(quality) is not None, own, same, quality.get("created", ""))

    return max(fitting, key=rank, default=None)


def fields(evidence: Evidence, quality: Quality | None, beams: int) -> tuple[dict[str, Any], list[str]]:
    """Return the quality fields of a row, and why some are missing."""
    if quality is None:
        return {}, [f"no quality was measured with {beams} beam{'s' if beams > 1 else ''}, so BLEU is blank"]
    found = {name: quality[name] for name in ("bleu", "chrf", "signature")} | {"scored": quality.get("sentences")}
    if quality["model"].get("criterion") == "dense" and quality["precision"] == "fp32":
        return {**found, "bleu_loss_percent": 0.0}, []
    notes = []
    dense = _dense(evidence, quality)
    if len(dense) == 1 and dense[0]["bleu"] > 0:
        found["bleu_loss_percent"] = 100 * (1 - quality["bleu"] / dense[0]["bleu"])
    else:
        why = "no dense fp32 quality" if not dense else f"{len(dense)} dense models to compare with"
        notes.append(f"the BLEU change is blank: there is {why} (with {beams} beam{'s' if beams > 1 else ''})")
    baseline = quality.get("baseline")
    if baseline is None:
        notes.append("no p-value: its quality was measured without a baseline")
    else:
        found["p_value"] = baseline["p_value"]
        if dense and baseline["name"] != dense[0]["model"]["name"]:
            notes.append(f"its p-value is against {baseline['name']}, not against {dense[0]['model']['name']}")
    return found, notes


def of_images(one: Timed, session: Sequence[Timed]) -> tuple[dict[str, Any], list[str]]:
    """Return the quality fields of an image network's row, and why some are missing; `session` ran beside it."""
    first, right = one.first, one.right
    if not right:
        return {}, ["it classified no image to the end, so its accuracy is blank"]
    found = {"accuracy": (accuracy := sum(right) / len(right)), "scored": first.inputs}
    dense = {
        other.first.model["id"]: other.right
        for other in session
        if other.first.model.get("criterion") == "dense" and other.first.precision == "fp32"
        if other.right and other.first.inputs_id == first.inputs_id
    }
    if first.model.get("criterion") == "dense" and first.precision == "fp32":
        return {**found, "accuracy_loss": 0.0}, []
    if len(dense) != 1:
        why = "no dense fp32 network" if not dense else f"{len(dense)} dense networks"
        return found, [f"its loss of accuracy is blank: there is {why} in its records"]
    theirs = next(iter(dense.values()))
    loss = sum(theirs) / len(theirs) - accuracy
    return {**found, "accuracy_loss": loss, "p_value": mcnemar.p_value(right, theirs)}, []


def _dense(evidence: Evidence, quality: Quality) -> list[Quality]:
    """Return, for every dense model, its fp32 quality on the sentences of `quality`, from the same device if it can."""
    place = place_of(quality)
    found: dict[str, Quality] = {}
    for other in sorted(evidence.qualities, key=lambda other: (place_of(other) == place, other.get("created", ""))):
        same = (other["beams"], other["corpus"]) == (quality["beams"], quality["corpus"])
        dense = other["model"].get("criterion") == "dense" and other["precision"] == "fp32"
        if same and dense and place_of(other) in {None, place}:
            found[other["model"]["id"]] = other
    return list(found.values())
