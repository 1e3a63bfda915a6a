"""`Evidence`: the quality documents, records, artefacts and simulations behind a report, parsed into typed values."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.accel.targets import Line, Target
from tprune.bench.measure import record
from tprune.bench.measure.record import Record
from tprune.bench.measure.tasks import Subject, read_subject
from tprune.bench.report.row import counted
from tprune.export.manifest import IMAGES

SIMULATION = "simulation"  # the kind of a simulation's report.json
NEEDED = ("model", "runtime", "precision", "split", "beams", "bleu", "chrf", "signature", "corpus")
READS = "a report reads quality.json, records.jsonl, folders of artefacts and a simulation's report.json"
NEEDED_SIMULATION = ("summary", "warnings", "findings", "inputs", "argv")


@dataclass(frozen=True)
class Model:
    """The facts of a model that a report shows."""

    id: str | None = None
    name: str = "None"
    criterion: str | None = None
    seed: int | None = None
    keep: float | None = None
    params: int | None = None
    macs: int | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Model:
        """Return the model that a record, a quality document or a manifest describes."""
        return cls(**{field.name: facts[field.name] for field in fields(cls) if field.name in facts})


@dataclass(frozen=True)
class Device:
    """The device that produced the outputs of a quality document."""

    serial: str | None
    model: str
    emulated: bool
    instruction_set: str | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Device:
        """Return the device that a record or a quality document names."""
        return cls(facts["serial"], facts["model"], facts["emulated"], facts.get("instruction_set"))

    @property
    def place(self) -> str:
        """The key that separates this device from every other."""
        return record.place_name(vars(self))


@dataclass(frozen=True)
class Quality:
    """One quality document; `device` is None where the host translated."""

    model: Model
    runtime: str
    precision: str
    split: str
    beams: int
    bleu: float
    chrf: float
    signature: str
    corpus: str
    device: Device | None
    artefact: str | None
    created: str | None
    sentences: int | None
    chrf_signature: str | None
    torch: str | None
    versus: str | None  # the name of the baseline that `p_value` compares with
    p_value: float | None
    hypotheses: tuple[str, ...]
    argv: tuple[str, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any], path: Path) -> Quality:
        """Return the quality in a JSON document; BadInput names what is missing or wrong."""
        if missing := [name for name in NEEDED if document.get(name) is None]:
            raise BadInput(f"quality {str(path)!r} lacks {', '.join(missing)}")
        device, baseline = document.get("device"), document.get("baseline") or {}
        if device is not None and not {"serial", "model", "emulated"} <= device.keys():
            raise BadInput(f"quality {str(path)!r} has a device without serial, model and emulated")
        facts: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        try:
            facts |= {name: tuple(facts[name] or ()) for name in ("hypotheses", "argv")}
            facts |= {name: float(facts[name]) for name in ("bleu", "chrf")}
            facts |= {"versus": baseline.get("name"), "p_value": baseline.get("p_value")}
            facts |= {"model": Model.of(facts["model"]), "torch": document.get("versions", {}).get("torch")}
            return cls(**facts | {"device": None if device is None else Device.of(device)})
        except (TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"quality {str(path)!r} is damaged: {error}") from None

    @property
    def key(self) -> tuple[str | None, str, int]:
        """What this is the quality of: model, precision and number of beams."""
        return (self.model.id, self.precision, self.beams)

    @property
    def place(self) -> str | None:
        """The device whose outputs were scored; None where the host translated."""
        return None if self.device is None else self.device.place

    @property
    def dense_fp32(self) -> bool:
        """Whether this is the quality of the dense model in fp32, the one that others are compared with."""
        return self.model.criterion == "dense" and self.precision == "fp32"


@dataclass(frozen=True)
class Simulation:
    """What a report takes from a simulation's report.json."""

    summary: tuple[Line, ...]
    warnings: tuple[str, ...]
    findings: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    argv: tuple[str, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any], path: Path) -> Simulation:
        """Return the simulation in a JSON document; BadInput names what is missing or wrong."""
        if missing := [name for name in NEEDED_SIMULATION if document.get(name) is None]:
            raise BadInput(f"simulation {str(path)!r} lacks {', '.join(missing)}")
        try:
            lines = [
                Line(one["network"], one["source"], one["quantity"], Target(**one["target"]), float(one["simulated"]))
                for one in document["summary"]
            ]
            inputs = tuple(document["inputs"].items())
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadInput(f"simulation {str(path)!r} has a damaged summary: {error}") from None
        warnings, findings, argv = (tuple(document[name]) for name in ("warnings", "findings", "argv"))
        return cls(tuple(lines), warnings, findings, inputs, argv)


@dataclass(frozen=True)
class Evidence:
    """Everything behind a report. A session is one records file, whose blocks were interleaved with each other."""

    qualities: tuple[Quality, ...]
    sessions: tuple[tuple[Record, ...], ...]
    artefacts: tuple[Subject, ...]
    simulations: tuple[Simulation, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """All records of all sessions."""
        return [item for session in self.sessions for item in session]


def collect(runs: Sequence[str | os.PathLike[str]], *, split: str | None = None) -> Evidence:
    """Read files, and folders recursively: records from *.jsonl; qualities, manifests and simulations from *.json.

    BLEU of different sentences cannot be compared, so one split and one corpus are kept (one corpus for the host and
    one for each device whose own outputs were scored): `split`, or the split of the records, or the only one. Raises
    BadInput when nothing is there, when translation is mixed with images, and for a damaged file.
    """
    qualities: dict[Quality, None] = {}
    sessions: dict[tuple[Any, ...], tuple[Record, ...]] = {}
    artefacts: dict[str, Subject] = {}
    simulations: dict[Simulation, None] = {}
    remarks = []
    for path, named in _files(runs):
        if path.suffix == ".jsonl":
            records = tuple(record.newest(record.read(path)))
            sessions[tuple((item.nonce, item.key) for item in records)] = records  # a copy counts once
            if not records:
                remarks.append(f"{str(path)!r} has no complete record and was left out: give `tprune bench` again.")
        elif (kind := (document := _document(path, named)).get("kind")) == "quality":
            qualities[Quality.parse(document, path)] = None
        elif kind == "artefact":
            subject = read_subject(path.parent)
            artefacts[subject.id] = subject
        elif kind == SIMULATION:
            simulations[Simulation.parse(document, path)] = None
        elif named:
            raise BadInput(f"{str(path)!r} has kind {kind!r}; {READS}")
    timed = tuple(records for records in sessions.values() if records)
    if not (qualities or timed or artefacts or simulations):
        where = ", ".join(repr(str(run)) for run in runs)
        raise BadInput(
            f"no quality document, records, manifest.json or simulation in {where}; `tprune evaluate --out`, `bench`, "
            "`export` and `simulate` write them"
        )
    _check_one_task(qualities, timed, artefacts.values())
    kept, left_out = _one_corpus(tuple(qualities), timed, split)
    return Evidence(kept, timed, tuple(artefacts.values()), tuple(simulations), (*remarks, *left_out))


def _check_one_task(
    qualities: Iterable[Quality], sessions: Iterable[Sequence[Record]], artefacts: Iterable[Subject]
) -> None:
    """Raise BadInput when a report would mix translation models and image networks."""
    names = [(item.task == IMAGES, str(item.model["name"])) for session in sessions for item in session]
    names += [(subject.task == IMAGES, str(subject.model["name"])) for subject in artefacts]
    names += [(False, str(quality.model.name)) for quality in qualities]
    images, rest = ({name for of_images, name in names if of_images is wanted} for wanted in (True, False))
    if images and rest:
        raise BadInput(
            f"{min(images)!r} is an image network, {min(rest)!r} a translation model: make a report of each kind"
        )


def _files(runs: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[Path, bool]]:
    """Yield every file to read and whether the caller named it."""
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
    """Return whether the name or the first line says so: sentences are kept in .jsonl files, too."""
    if path.name.startswith("records"):
        return True
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"schema", "artefact"} <= first.keys()  # `record` checks the version


def _document(path: Path, named: bool) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"{str(path)!r} cannot be read as JSON; {READS}") from None
    if not isinstance(document, dict):
        if named:
            raise BadInput(f"{str(path)!r} is no JSON object; {READS}")
        return {}
    return document


def _one_corpus(
    qualities: Collection[Quality], sessions: Iterable[Sequence[Record]], split: str | None
) -> tuple[tuple[Quality, ...], tuple[str, ...]]:
    """Return the qualities that can be compared with each other, and sentences about those that were left out."""
    splits = sorted({quality.split for quality in qualities})
    if split is None and len(splits) > 1:
        measured = {item.split for session in sessions for item in session} & set(splits)
        if len(measured) != 1:
            raise BadInput(f"quality of several splits ({', '.join(splits)}); choose one with --split")
        split = measured.pop()
    elif split is not None and qualities and split not in splits:
        raise BadInput(f"split {split!r}: there is quality of {', '.join(splits)} only")
    chosen = [quality for quality in qualities if split in {None, quality.split}]
    kept: list[Quality] = []
    for place in dict.fromkeys(quality.place for quality in chosen):
        own = [quality for quality in chosen if quality.place == place]
        usual = Counter(quality.corpus for quality in own).most_common(1)[0][0]
        kept += [quality for quality in own if quality.corpus == usual]
    remarks = []
    if len(chosen) < len(qualities):
        files = counted(len(qualities) - len(chosen), "file")
        remarks.append(f"Quality of other splits than {split} was left out ({files}).")
    if len(kept) < len(chosen):
        files = counted(len(chosen) - len(kept), "file")
        remarks.append(f"Quality of other sentences than most files score was left out ({files}).")
    return tuple(kept), tuple(remarks)
