"""Benchmark artefacts on this machine: batch 1, greedy, one process per artefact, blocks interleaved.

`run([dense, pruned], sentences, settings=Settings(threads=1), out=Path("records.jsonl"))`. Every block of every
artefact is one line of `out` as soon as it is measured; running again with the same settings goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import artefact, conditions, record
from bench.process import COMMAND, Process, WorkerFailed
from bench.record import MEMORY_BLOCK, Record
from tprune import stamp
from tprune.errors import BadInput, WorkFailed

MEMORY_SENTENCES = 50  # the longest ones: they set the peak, and the pass stays short

Progress = Callable[[int, int, str], None]  # (blocks done, blocks in all, what runs now)


@dataclass(frozen=True)
class Settings:
    """How to measure: `blocks` passes over all sentences, `warmup` sentences thrown away before each pass.

    `cpus` pins the workers (None: wherever the system puts them); `max_length` is in target tokens (None: the shortest
    limit of the artefacts). `split` and `limit` are only written down: they say where the sentences come from.
    """

    threads: int = 1
    blocks: int = 5
    warmup: int = 10
    cpus: tuple[int, ...] | None = None
    max_length: int | None = None
    split: str = "test"
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured (BadInput)."""
        cores = os.sched_getaffinity(0)
        if not 1 <= self.threads <= len(cores):
            raise BadInput(f"threads {self.threads}: legal are 1 to {len(cores)}, the CPUs this process may use")
        if self.blocks < 1:
            raise BadInput(f"blocks {self.blocks}: at least 1")
        if self.warmup < 0:
            raise BadInput(f"warmup {self.warmup}: 0 or more sentences")
        if self.cpus is not None and (not self.cpus or not set(self.cpus) <= cores):
            raise BadInput(f"cpus {list(self.cpus)}: legal are {sorted(cores)}")
        if self.max_length is not None and self.max_length < 1:
            raise BadInput(f"max length {self.max_length}: at least 1 token")


def run(
    artefacts: Sequence[Path | str],
    sentences: Sequence[Sequence[int]],
    *,
    out: Path | str,
    settings: Settings | None = None,
    command: Sequence[str] = COMMAND,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on `sentences` (token ids, final </s> included) and return all records of `out`.

    Block k of every artefact runs back to back, and the order rotates from block to block; memory is measured last, in
    fresh processes. Raises BadInput before anything runs when the call is wrong or `out` was measured otherwise, and
    WorkFailed at the end, in one line, when an artefact failed: the others are measured, its record says INTERRUPTED.
    """
    settings = settings or Settings()
    subjects = _subjects(artefacts)
    ids = tuple(tuple(sentence) for sentence in sentences)
    _check_sentences(ids, subjects)
    out = Path(out)
    if out.is_dir():
        raise BadInput(f"out {str(out)!r} is a folder; name a file, for example {str(out / 'records.jsonl')!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    bench = _Bench(subjects, ids, settings, out, tuple(command), progress or (lambda done, total, what: None))
    bench.resume()
    bench.time()
    bench.weigh()
    if bench.failures:
        folders = {subject.id: str(subject.folder) for subject in subjects}
        failed = "; ".join(f"{folders[name]}: {why}" for name, why in bench.failures.items())
        raise WorkFailed(f"{len(bench.failures)} of {len(subjects)} artefacts failed ({failed}); the rest is in {out}")
    return list(bench.done.values())


def _subjects(folders: Sequence[Path | str]) -> tuple[artefact.Artefact, ...]:
    if not folders:
        raise BadInput("nothing to measure: name at least one artefact folder")
    subjects = tuple(artefact.read(folder) for folder in folders)
    seen: dict[str, artefact.Artefact] = {}
    for subject in subjects:
        if subject.id in seen:
            raise BadInput(f"{str(subject.folder)!r} is the same artefact as {str(seen[subject.id].folder)!r}")
        seen[subject.id] = subject
    return subjects


def _check_sentences(sentences: Sequence[Sequence[int]], subjects: Sequence[artefact.Artefact]) -> None:
    if not sentences:
        raise BadInput("there is no sentence to translate")
    longest = min(subject.max_source for subject in subjects)
    for number, sentence in enumerate(sentences, start=1):
        if not 0 < len(sentence) <= longest:
            raise BadInput(f"sentence {number} has {len(sentence)} tokens; legal are 1 to {longest}")


@dataclass
class _Bench:
    """One call of `run`: what is asked, and what is done so far."""

    subjects: tuple[artefact.Artefact, ...]
    sentences: tuple[tuple[int, ...], ...]
    settings: Settings
    out: Path
    command: tuple[str, ...]
    progress: Progress
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    done: dict[tuple[str, int], Record] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def max_length(self) -> int:
        limit = min(subject.max_target for subject in self.subjects)
        return min(limit, self.settings.max_length or limit)

    def resume(self) -> None:
        """Take over the valid blocks of an earlier run into `done`; BadInput when it was measured otherwise."""
        if not self.out.exists():
            return
        known = {subject.id: subject for subject in self.subjects}
        for old in record.newest(record.read(self.out)).values():
            if old.artefact not in known:
                raise BadInput(f"{str(self.out)!r} holds records of another artefact ({old.name}); name a new file")
            expected = _settings_of(self._record(known[old.artefact], old.block, None, {}))
            for name, was in _settings_of(old).items():
                if was != expected[name]:
                    raise BadInput(
                        f"{str(self.out)!r} was measured with {name} {was!r}, this call asks for {expected[name]!r}; "
                        "repeat the earlier call to resume it, or name a new file"
                    )
            if old.valid:
                self.done[old.artefact, old.block] = old

    def time(self) -> None:
        """Measure the blocks that are missing, interleaved; every artefact keeps its one process."""
        with ExitStack() as stack:
            workers: dict[str, tuple[Process, dict[str, Any]]] = {}
            for block in range(self.settings.blocks):
                turn = block % len(self.subjects)
                for subject in self.subjects[turn:] + self.subjects[:turn]:
                    if (subject.id, block) in self.done or subject.id in self.failures:
                        continue
                    self.progress(self._count(), self._total(), f"{subject.name}, block {block + 1}")
                    before = conditions.now()
                    try:
                        if subject.id not in workers:
                            workers[subject.id] = self._open(stack, subject)
                        worker, opened = workers[subject.id]
                        answer = {**opened, **worker.ask(self._request(self.sentences, self.settings.warmup))}
                    except WorkerFailed as error:
                        self._fail(subject, block, before, str(error))
                    else:
                        self._keep(self._record(subject, block, before, answer))

    def weigh(self) -> None:
        """Measure the peak memory of every artefact in a fresh process over the longest sentences."""
        longest = sorted(self.sentences, key=len, reverse=True)[:MEMORY_SENTENCES]
        for subject in self.subjects:
            if (subject.id, MEMORY_BLOCK) in self.done or subject.id in self.failures:
                continue
            self.progress(self._count(), self._total(), f"{subject.name}, memory")
            before = conditions.now()
            try:
                with ExitStack() as stack:
                    worker, opened = self._open(stack, subject)
                    answer = worker.ask(self._request(longest, 0))
                    memory = {"peak_kib": worker.ask({"op": "peak"})["peak_kib"], "base_kib": opened["base_kib"]}
                kept: dict[str, Any] = {name: answer[name] for name in ("affinity", "switches", "cpu_share")}
                self._keep(self._record(subject, MEMORY_BLOCK, before, {**kept, "memory": memory}))
            except WorkerFailed as error:
                self._fail(subject, MEMORY_BLOCK, before, str(error))
        self.progress(self._count(), self._total(), "done")

    def _open(self, stack: ExitStack, subject: artefact.Artefact) -> tuple[Process, dict[str, Any]]:
        worker = stack.enter_context(Process(self.command))
        cpus = None if self.settings.cpus is None else sorted(self.settings.cpus)
        folder = str(subject.folder.resolve())
        return worker, worker.ask({"op": "open", "folder": folder, "threads": self.settings.threads, "cpus": cpus})

    def _request(self, sentences: Sequence[Sequence[int]], warmup: int) -> dict[str, Any]:
        return {"op": "decode", "sentences": sentences, "max_length": self.max_length, "warmup": warmup}

    def _record(
        self, subject: artefact.Artefact, block: int, before: dict[str, Any] | None, answer: dict[str, Any]
    ) -> Record:
        """Return the record of one block from a worker's answer; one that has no numbers is INTERRUPTED."""
        cpus = None if self.settings.cpus is None else sorted(self.settings.cpus)
        worker = {name: answer[name] for name in ("switches", "cpu_share") if name in answer}
        after = conditions.now() | worker
        series = {name: answer[name] for name in record.SERIES if name in answer}
        measured = bool(series) or "memory" in answer
        return Record(
            artefact=subject.id,
            model=subject.model,
            name=subject.name,
            runtime=subject.runtime,
            precision=subject.precision,
            bytes=subject.bytes,
            device=conditions.device(),
            settings=self._written_settings(),
            nonce=self.nonce,
            block=block,
            verdict=self._verdict(subject, answer) if measured else "INTERRUPTED",
            threads=self.settings.threads,
            affinity={"asked": cpus, "got": answer.get("affinity")},
            beams=1,
            split=self.settings.split,
            limit=self.settings.limit,
            blocks=self.settings.blocks,
            conditions={"before": before, "after": after},
            load_ns=answer.get("load_ns"),
            first_ns=answer.get("first_ns"),
            memory=answer.get("memory"),
            error=None if measured else str(answer.get("error", "not measured")),
            versions=stamp.versions(),
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            **series,
        )

    def _written_settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(self.sentences).encode()).hexdigest()[:16]
        return {
            "warmup": self.settings.warmup,
            "max_length": self.max_length,
            "sentences": len(self.sentences),
            "sentences_id": digest,
        }

    def _verdict(self, subject: artefact.Artefact, answer: dict[str, Any]) -> str:
        earlier = [old for (name, block), old in self.done.items() if name == subject.id and block != MEMORY_BLOCK]
        if earlier and "output_ids" in answer and answer["output_ids"] != earlier[0].output_ids:
            return "WRONG_TOKENS"
        asked = self.settings.cpus
        return "VALID" if asked is None or answer["affinity"] == sorted(asked) else "MIGRATED"

    def _keep(self, measured: Record) -> None:
        record.append(self.out, measured)
        if measured.valid:
            self.done[measured.artefact, measured.block] = measured
        elif measured.verdict == "WRONG_TOKENS":
            self.failures[measured.artefact] = f"block {measured.block} gave other tokens than an earlier block"
        else:
            self.failures[measured.artefact] = (
                f"ran on CPUs {measured.affinity['got']}, not {measured.affinity['asked']}"
            )

    def _fail(self, subject: artefact.Artefact, block: int, before: dict[str, Any], why: str) -> None:
        self.failures[subject.id] = why
        record.append(self.out, self._record(subject, block, before, {"error": why}))

    def _count(self) -> int:
        return len(self.done)

    def _total(self) -> int:
        return len(self.subjects) * (self.settings.blocks + 1)


def _settings_of(old: Record) -> dict[str, Any]:
    """Return what two records of one benchmark must agree on, by the name that a user knows it by."""
    facts = asdict(old)
    return {
        **{name: facts[name] for name in ("threads", "beams", "split", "limit", "blocks")},
        "cpus": facts["affinity"]["asked"],
        "device": facts["device"]["model"],
        **facts["settings"],
        **{package: facts["versions"].get(package) for package in ("python", "onnxruntime")},
    }
