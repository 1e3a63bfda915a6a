"""`Evidence`: every quality document, records file, artefact and simulation that a report is made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.measure import record
from tprune.bench.measure.record import Record
from tprune.bench.measure.tasks import Subject, read_subject
from tprune.bench.report import simulated
from tprune.export.manifest import IMAGES

Quality = dict[str, Any]  # a quality.json: stamp + scores + hypotheses
NEEDED = ("model", "runtime", "precision", "split", "beams", "bleu", "chrf", "signature", "corpus")


@dataclass(frozen=True)
class Evidence:
    """What was found; a session is one records file, whose blocks were interleaved with each other."""

    qualities: tuple[Quality, ...]
    sessions: tuple[tuple[Record, ...], ...]
    artefacts: tuple[Subject, ...]
    simulations: tuple[dict[str, Any], ...] = ()  # report.json of `tprune simulate`
    remarks: tuple[str, ...] = ()


def collect(runs: Sequence[Path | str], *, split: str | None = None) -> Evidence:
    """Read files, and folders recursively: of *.jsonl the records, of *.json the qualities, manifests and simulations.

    One split is kept, and one corpus for the host and for every device whose own tokens were scored, because BLEU of
    different sentences cannot be compared: `split`, or the records' split, or the only one. Raises BadInput when
    nothing is found, translation is mixed with images, and for a file that is not what its name says.
    """
    qualities: dict[str, Quality] = {}
    sessions: dict[tuple[Any, ...], tuple[Record, ...]] = {}
    artefacts: dict[str, Subject] = {}
    simulations: dict[str, dict[str, Any]] = {}
    for path, asked in _files(runs):
        if path.suffix == ".jsonl":
            found = tuple(record.newest(record.read(path)))
            sessions[tuple((item.nonce, item.key) for item in found)] = found  # a copy counts once
        elif (document := _document(path, asked)).get("kind") == "quality":
            qualities[json.dumps(document, sort_keys=True)] = _checked(document, path)
        elif document.get("kind") == "artefact":
            subject = read_subject(path.parent)
            artefacts[subject.id] = subject
        elif document.get("kind") == simulated.KIND:
            simulations[json.dumps(document, sort_keys=True)] = simulated.checked(document, path)
        elif asked:
            legal = "quality, artefact and simulation"
            raise BadInput(f"{str(path)!r} has kind {document.get('kind')!r}; a report reads {legal}")
    timed = tuple(found for found in sessions.values() if found)
    if not (qualities or timed or artefacts or simulations):
        where = ", ".join(repr(str(run)) for run in runs)
        raise BadInput(f"no quality document, records, manifest.json or simulation in {where}")
    _check_one_task(qualities.values(), timed, artefacts.values())
    kept, remarks = _one_corpus(tuple(qualities.values()), timed, split)
    return Evidence(kept, timed, tuple(artefacts.values()), tuple(simulations.values()), remarks)


def _check_one_task(
    qualities: Collection[Quality], sessions: Sequence[Sequence[Record]], artefacts: Iterable[Subject]
) -> None:
    """Raise BadInput when translation models and image networks would stand in one report."""
    told = [(item.task == IMAGES, str(item.model["name"])) for session in sessions for item in session]
    told += [(subject.task == IMAGES, str(subject.model["name"])) for subject in artefacts]
    told += [(False, str(quality["model"].get("name"))) for quality in qualities]
    images, rest = ({name for of_images, name in told if of_images is wanted} for wanted in (True, False))
    if images and rest:
        raise BadInput(
            f"{min(images)!r} is an image network, {min(rest)!r} a translation model: make a report of each kind"
        )


def place_of(quality: Quality) -> str | None:
    """Return the device whose own tokens were scored; None when the host translated for the score."""
    device = quality.get("device")
    return None if device is None else record.place_name(device)


def _files(runs: Sequence[Path | str]) -> Iterator[tuple[Path, bool]]:
    """Yield every file to read and whether the caller named it himself."""
    for run in map(Path, runs):
        if run.is_file():
            yield run, True
        elif run.is_dir():
            yield from ((path, False) for path in sorted(run.rglob("*.json")) if path.is_file())
            yield from ((path, False) for path in sorted(run.rglob("*.jsonl")) if path.is_file() and _has_records(path))
        else:
            raise BadInput(
                f"{str(run)!r} does not exist; name folders or files of `tprune evaluate`, `export`, `bench`"
            )


def _has_records(path: Path) -> bool:
    """Return whether the name says so or the first line does: sentences are kept in .jsonl files, too."""
    if path.name.startswith("records"):
        return True
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"schema", "artefact"} <= first.keys()  # of another version: `record` says so


def _document(path: Path, asked: bool) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path)!r} cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        if asked:
            raise BadInput(
                f"{str(path)!r} is no JSON object; a report reads quality.json, records.jsonl, manifest.json"
            )
        return {}
    return document


def _checked(document: Quality, path: Path) -> Quality:
    if missing := [name for name in NEEDED if document.get(name) is None]:
        raise BadInput(f"quality {str(path)!r} lacks {', '.join(missing)}")
    device = document.get("device")
    if device is not None and not {"serial", "model", "emulated"} <= device.keys():
        raise BadInput(f"quality {str(path)!r} has a device without serial, model and emulated")
    return document


def _one_corpus(
    qualities: tuple[Quality, ...], sessions: tuple[tuple[Record, ...], ...], split: str | None
) -> tuple[tuple[Quality, ...], tuple[str, ...]]:
    """Return the qualities that can be compared with each other, and a sentence about those that were left out."""
    splits = sorted({quality["split"] for quality in qualities})
    if split is None and len(splits) > 1:
        measured = {item.split for session in sessions for item in session} & set(splits)
        if len(measured) != 1:
            raise BadInput(f"quality of several splits ({', '.join(splits)}); choose one with --split")
        split = measured.pop()
    elif split is not None and qualities and split not in splits:
        raise BadInput(f"split {split!r}: there is quality of {', '.join(splits)} only")
    chosen = [quality for quality in qualities if split in {None, quality["split"]}]
    kept: list[Quality] = []
    for place in dict.fromkeys(map(place_of, chosen)):
        own = [quality for quality in chosen if place_of(quality) == place]
        usual = Counter(quality["corpus"] for quality in own).most_common(1)[0][0]
        kept += [quality for quality in own if quality["corpus"] == usual]
    remarks = []
    if len(chosen) < len(qualities):
        remarks.append(f"Quality of other splits than {split} was left out ({len(qualities) - len(chosen)} files).")
    if len(kept) < len(chosen):
        remarks.append(f"{len(chosen) - len(kept)} quality files score other sentences and were left out.")
    return tuple(kept), tuple(remarks)
