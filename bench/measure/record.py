"""`Record`: what one artefact did in one block on one device, and the file of records, one JSON object a line.

A line is written whole and synced, so a kill can only cut the last one; `read` drops such a line and `append` cuts it
off before it writes the next.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput, WorkFailed
from tprune.export.manifest import IMAGES, TRANSLATION

SCHEMA = 2
MEMORY_BLOCK = -1  # the block number of the memory pass, which is never timed
VERDICTS = ("VALID", "EMULATED", "THROTTLED", "MIGRATED", "INTERRUPTED", "WRONG_TOKENS")
MODES = ("warm", "cold", "spaced", "sustained")
LOOPS = ("runner", "python")
SERIES = ("samples_ns", "encoder_ns", "step_ns", "run_ns", "steps")
OF_A_SEARCH = ("encoder_ns", "step_ns", "steps")  # those of SERIES that images have not


@dataclass(frozen=True)
class Record:
    """One measured run of one artefact: one block of sentences, or (block -1) its memory pass.

    `samples_ns` is the time of a whole sentence, token ids in to token ids out; `run_ns` the part of it spent inside
    the engine's own calls; `encoder_ns` and `step_ns` split it by graph; `steps` counts decoder steps. All are lists
    with one entry a sentence and pass (only the mode `sustained` has several passes); `output_ids` has one a sentence.
    `memory` is in KiB: the peak of the process, what it held before the artefact was opened, and what it held at the
    end as anonymous and as file-backed pages. `device` has kind, serial, model, abi, emulated, soc, android and, in
    newer records, instruction_set (the word of `tprune.base.processor.best`; None where the device does not say).
    `session` is one call of the benchmark, `nonce` one process. `identical` counts the sentences with the same tokens
    as on the reference, None where there was none.

    Where `task` is images, a sentence is an image: its one output id is the class that the device gave it, `labels` are
    the right ones, and the series of a search are empty.

    Verdicts: VALID; EMULATED is complete but no phone, its times mean nothing; THROTTLED ran hot; MIGRATED ran on other
    CPUs than asked; WRONG_TOKENS gave other tokens than the reference or an earlier block; INTERRUPTED says why in
    `error` and has no numbers.
    """

    artefact: str
    model: Mapping[str, Any]
    name: str
    runtime: str
    precision: str
    bytes: int
    device: Mapping[str, Any]
    settings: Mapping[str, Any]
    session: str
    nonce: str
    block: int
    verdict: str
    mode: str
    loop: str
    threads: int
    affinity: Mapping[str, list[int] | None]
    beams: int
    split: str
    limit: int | None
    blocks: int
    conditions: Mapping[str, Any]
    threads_got: int | None = None
    load_ns: int | None = None
    first_ns: int | None = None
    samples_ns: list[int] = field(default_factory=list)
    encoder_ns: list[int] = field(default_factory=list)
    step_ns: list[int] = field(default_factory=list)
    run_ns: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    output_ids: list[list[int]] = field(default_factory=list)
    identical: int | None = None
    memory: Mapping[str, int] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    task: str = TRANSLATION
    labels: list[int] = field(default_factory=list)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself (ValueError)."""
        for name, value, legal in (
            ("verdict", self.verdict, VERDICTS),
            ("mode", self.mode, MODES),
            ("loop", self.loop, LOOPS),
            ("task", self.task, (TRANSLATION, IMAGES)),
        ):
            if value not in legal:
                raise ValueError(f"{name} {value!r}; legal are {', '.join(legal)}")
        if not isinstance(self.block, int) or self.block < MEMORY_BLOCK:
            raise ValueError(f"block {self.block!r}; legal are {MEMORY_BLOCK} (memory), 0, 1, …")
        if (self.verdict == "INTERRUPTED") != (self.error is not None):
            raise ValueError(f"verdict {self.verdict} with error {self.error!r}; an error goes with INTERRUPTED only")
        if self.verdict == "VALID" and self.device["emulated"]:
            raise ValueError("verdict VALID of an emulated device; its complete runs are EMULATED")
        none = OF_A_SEARCH if self.task == IMAGES else ()
        lengths = {name: len(getattr(self, name)) for name in SERIES}
        if len({lengths[name] for name in SERIES if name not in none}) != 1 or any(lengths[name] for name in none):
            raise ValueError(f"series of different lengths: {lengths}")
        if self.verdict != "INTERRUPTED":
            self._check_numbers()

    def __repr__(self) -> str:
        what = "memory pass" if self.block == MEMORY_BLOCK else f"block {self.block}"
        times = f", median {sorted(self.samples_ns)[len(self.samples_ns) // 2] / 1e6:.2f} ms" if self.samples_ns else ""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"Record({self.name!r} on {self.device['model']}, {threads}, {what}: {self.verdict}{times})"

    def _check_numbers(self) -> None:
        if self.block == MEMORY_BLOCK:
            if self.samples_ns or not self.memory or self.memory.get("peak_kib", 0) <= 0:
                raise ValueError("a memory pass has no samples and a peak_kib above 0")
        elif not self.samples_ns or min(self.samples_ns) <= 0:
            raise ValueError("a timed block has samples, all above 0 ns")
        elif not self.output_ids or len(self.samples_ns) % len(self.output_ids):
            raise ValueError(f"{len(self.samples_ns)} samples of {len(self.output_ids)} sentences")
        elif self.task == IMAGES and len(self.labels) != len(self.output_ids):
            raise ValueError(f"{len(self.labels)} labels of {len(self.output_ids)} images")

    @property
    def right(self) -> list[bool]:
        """Whether the device gave each image its own class; empty where nothing was classified."""
        asked = zip(self.output_ids, self.labels, strict=True) if self.labels else ()
        return [ids == [label] for ids, label in asked]

    @property
    def inputs(self) -> int:
        """How many sentences or images it was measured on."""
        return int(self.settings["images" if self.task == IMAGES else "sentences"])

    @property
    def inputs_id(self) -> str | None:
        """The id of the sentences or images it was measured on."""
        return self.settings.get("images_id" if self.task == IMAGES else "sentences_id")

    @property
    def valid(self) -> bool:
        """Whether its times may stand in a table of speed."""
        return self.verdict == "VALID"

    @property
    def complete(self) -> bool:
        """Whether it ran as asked to its end, so that it need not be measured again."""
        return self.verdict in {"VALID", "EMULATED"}

    @property
    def others(self) -> float | None:
        """How many CPUs other programs kept busy meanwhile; of a host without such a count, what its load leaves.

        A load average also holds what this benchmark did in the minute before, at most its threads.
        """
        counted, load = self.conditions["after"].get("others"), self.conditions["before"].get("loadavg")
        if counted is None and load and self.device["kind"] == "host":
            return max(0.0, float(load[0]) - self.threads)
        return None if counted is None else float(counted)

    @property
    def series(self) -> tuple[str, int, int, str]:
        """What its artefacts may be compared within: place, threads, beams and mode."""
        return (place_name(self.device), self.threads, self.beams, self.mode)

    @property
    def key(self) -> tuple[tuple[str, int, int, str], str, int]:
        """What this is the measurement of: a later record with the same key replaces it."""
        return (self.series, self.artefact, self.block)

    def to_line(self) -> str:
        """Return the record as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def place_name(device: Mapping[str, Any]) -> str:
    """Return what tells a device from every other: its serial; of a host its model and, where known, instruction set.

    Virtual machines of one model may have different instruction sets, and times of two are no speed-up.
    """
    if device["serial"]:
        return str(device["serial"])
    return ", ".join(filter(None, (str(device["model"]), device.get("instruction_set"))))


def from_json(document: object) -> Record:
    """Return the record that `document` (a parsed line) says; ValueError names the field that is wrong."""
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    if document.get("schema") != SCHEMA:
        raise ValueError(
            f"schema {document.get('schema')!r}; this version reads {SCHEMA}: measure again into a new file"
        )
    known = {item.name for item in fields(Record)}
    if unknown := sorted(set(document) - known):
        raise ValueError(f"unknown fields {', '.join(unknown)}")
    try:
        return Record(**document)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error).replace("Record.__init__() ", "")) from None


def read(path: Path | str) -> list[Record]:
    """Return the records of a file in the order they were written; a last line cut by a kill is left out.

    Raises BadInput with file and line for anything else that is not a record.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"records {str(path)!r}: {error.strerror or error}") from None
    records = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            records.append(from_json(json.loads(line.decode("utf-8"))))
        except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors too
            raise BadInput(f"records {str(path)!r} line {number}: {error}") from None
    return records


def append(path: Path | str, record: Record) -> None:
    """Add one line to `path` and sync it; a line that an earlier kill cut is removed first.

    Several threads and processes may append to one file. When the disk is full nothing of the line stays and WorkFailed
    says so.
    """
    path = Path(path)
    line = record.to_line().encode("utf-8")
    with path.open("ab", buffering=0) as file:  # unbuffered: nothing may be written after the file was cut back
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _whole_end(file.seek(0, os.SEEK_END), path)
        try:
            file.truncate(end)
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise WorkFailed(f"cannot write {str(path)!r}: {error.strerror}; free some space and run again") from None


def _whole_end(size: int, path: Path) -> int:
    """Return the offset after the last newline of `path`, `size` bytes long."""
    with path.open("rb") as file:
        file.seek(max(0, size - 1))
        return size if file.read(1) in {b"\n", b""} else path.read_bytes().rfind(b"\n") + 1


def newest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of every key, in the order of the first: one measured again replaces what it failed."""
    return list({record.key: record for record in records}.values())
