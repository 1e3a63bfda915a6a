"""`Record`: one measured block of one artefact on one device, and the file of records, one JSON object a line.

A line is written whole and synced, so a kill can only cut the last one. `read` drops such a line; `append` removes it
before it writes the next.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.measure.settings import MODES
from tprune.bench.measure.tasks import TASKS, TRANSLATION, Scalars, Task

SCHEMA = 2
MEMORY_BLOCK = -1  # the block number of the memory pass, which is never timed
VERDICTS = ("VALID", "EMULATED", "THROTTLED", "MIGRATED", "INTERRUPTED", "WRONG_TOKENS")
LOOPS = ("runner", "python")
SERIES = ("samples_ns", "encoder_ns", "step_ns", "run_ns", "steps")
REMEDY = "remove that line, then the same `tprune bench` command measures what is missing"
OF_A_SEARCH = ("encoder_ns", "step_ns", "steps")  # those of SERIES that are empty unless the task searches


class DeviceFacts(TypedDict):
    """The device of a record. Records of earlier versions have no `instruction_set`."""

    kind: str  # "host" or "phone"
    serial: str | None
    model: str
    abi: str
    emulated: bool
    soc: str | None
    android: str | None
    instruction_set: str | None  # see `tprune.base.processor.best`; None where the device does not report it


@dataclass(frozen=True)
class Record:
    """One measured run of one artefact: one block of inputs, or (block -1) the memory pass.

    `samples_ns` is the latency of one sentence, from token ids to token ids. `run_ns` is the part spent inside the
    engine; `encoder_ns` and `step_ns` split it by graph; `steps` counts decoder steps. All are lists with one entry
    per sentence and pass (only the mode `sustained` has several passes); `output_ids` has one entry per sentence.
    `memory` is in KiB: the peak of the process, its size before the artefact was opened, and the anonymous and
    file-backed pages at the end. `session` identifies one call of the benchmark, `nonce` one process. `identical`
    counts the sentences with the tokens of the reference; None without a reference.

    For images, an input is an image, its one output id is the predicted class, `labels` are the right classes, and the
    series of a search are empty.

    Verdicts: VALID; EMULATED is complete, but its times say nothing about a phone; THROTTLED was slowed down by heat;
    MIGRATED ran on other CPUs than requested; WRONG_TOKENS differs from the reference or from an earlier block;
    INTERRUPTED gives the reason in `error` and has no numbers.
    """

    artefact: str
    model: Mapping[str, Any]
    name: str
    runtime: str
    precision: str
    bytes: int
    device: DeviceFacts
    settings: Scalars
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
    task: str = TRANSLATION.name
    labels: list[int] = field(default_factory=list)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself (ValueError)."""
        for name, value, legal in (
            ("verdict", self.verdict, VERDICTS),
            ("mode", self.mode, MODES),
            ("loop", self.loop, LOOPS),
            ("task", self.task, tuple(TASKS)),
        ):
            if value not in legal:
                raise ValueError(f"{name} {value!r}; legal are {', '.join(legal)}")
        if not isinstance(self.block, int) or self.block < MEMORY_BLOCK:
            raise ValueError(f"block {self.block!r}; legal are {MEMORY_BLOCK} (memory), 0, 1, …")
        if (self.verdict == "INTERRUPTED") != (self.error is not None):
            raise ValueError(f"verdict {self.verdict} with error {self.error!r}; an error goes with INTERRUPTED only")
        if self.verdict == "VALID" and self.device["emulated"]:
            raise ValueError("verdict VALID of an emulated device; its complete runs are EMULATED")
        none = () if self.kind.searches else OF_A_SEARCH
        lengths = {name: len(getattr(self, name)) for name in SERIES}
        if len({lengths[name] for name in SERIES if name not in none}) != 1 or any(lengths[name] for name in none):
            raise ValueError(f"series of different lengths: {lengths}")
        if self.verdict != "INTERRUPTED":
            self._check_numbers()

    def __repr__(self) -> str:
        what = "memory pass" if self.block == MEMORY_BLOCK else f"block {self.block}"
        times = f", median {sorted(self.samples_ns)[len(self.samples_ns) // 2] / 1e6:.2f} ms" if self.samples_ns else ""
        where = f"{self.device['model']}, {self.threads} thread{'s' * (self.threads > 1)}"
        return f"Record({self.name!r} on {where}, {what}: {self.verdict}{times})"

    def _check_numbers(self) -> None:
        if self.block == MEMORY_BLOCK:
            if self.samples_ns or not self.memory or self.memory.get("peak_kib", 0) <= 0:
                raise ValueError("a memory pass has no samples and a peak_kib above 0")
        elif not self.samples_ns or min(self.samples_ns) <= 0:
            raise ValueError("a timed block has samples, all above 0 ns")
        elif not self.output_ids or len(self.samples_ns) % len(self.output_ids):
            raise ValueError(f"{len(self.samples_ns)} samples of {len(self.output_ids)} sentences")
        elif self.kind.labelled and len(self.labels) != len(self.output_ids):
            raise ValueError(f"{len(self.labels)} labels of {len(self.output_ids)} {self.kind.noun}s")

    @property
    def kind(self) -> Task[Any]:
        """The task itself."""
        return TASKS[self.task]

    @property
    def right(self) -> list[bool]:
        """Whether each image got its own class; empty where nothing was classified."""
        asked = zip(self.output_ids, self.labels, strict=True) if self.labels else ()
        return [ids == [label] for ids, label in asked]

    @property
    def inputs(self) -> int:
        """The number of sentences or images."""
        return int(self.settings[self.kind.count_field] or 0)

    @property
    def inputs_id(self) -> str | None:
        """The id of the sentences or images."""
        found = self.settings.get(self.kind.id_field)
        return None if found is None else str(found)

    @property
    def valid(self) -> bool:
        """Whether its times may be reported."""
        return self.verdict == "VALID"

    @property
    def complete(self) -> bool:
        """Whether it ran to its end as requested, so that it need not be measured again."""
        return self.verdict in {"VALID", "EMULATED"}

    @property
    def others(self) -> float | None:
        """The CPUs that other programs kept busy; on a host without that count, load average minus our threads."""
        counted, load = self.conditions["after"].get("others"), self.conditions["before"].get("loadavg")
        if counted is None and load and self.device["kind"] == "host":
            return max(0.0, float(load[0]) - self.threads)
        return None if counted is None else float(counted)

    @property
    def series(self) -> tuple[str, int, int, str]:
        """Place, threads, beams and mode: artefacts are compared within one series."""
        return (place_name(self.device), self.threads, self.beams, self.mode)

    @property
    def key(self) -> tuple[tuple[str, int, int, str], str, int]:
        """What was measured. A later record with the same key replaces this one."""
        return (self.series, self.artefact, self.block)

    def to_line(self) -> str:
        """Return the record as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def place_name(device: Mapping[str, object]) -> str:
    """Return what identifies a device: its serial, or the model and instruction set of a host.

    Virtual machines of one model may have different instruction sets; their times do not compare.
    """
    if device["serial"]:
        return str(device["serial"])
    return ", ".join(str(name) for name in (device["model"], device.get("instruction_set")) if name)


def from_json(document: object) -> Record:
    """Return the record in `document`, a parsed line. ValueError names the field that is wrong."""
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
    """Return the records of a file in the order they were written, without a last line cut by a kill.

    Raise BadInput with file and line for anything else that is not a record.
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
        except (json.JSONDecodeError, UnicodeDecodeError):
            start = line[:20].decode("utf-8", "replace")
            raise BadInput(f"records {str(path)!r} line {number}: {start!r}... is not JSON; {REMEDY}") from None
        except ValueError as error:
            remedy = "" if "measure again" in str(error) else f"; {REMEDY}"
            raise BadInput(f"records {str(path)!r} line {number}: {error}{remedy}") from None
    return records


def append(path: Path | str, record: Record) -> None:
    """Append one line to `path` and sync it. An incomplete last line is removed first.

    Several threads and processes may append to one file. On a full disk nothing of the line stays; raise WorkFailed.
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
    """Return the last record of every key, in the order of first appearance: a repeated block replaces the old one."""
    return list({record.key: record for record in records}.values())
