"""Blocks: several artefacts measured side by side in one place, interleaved, kept one by one, resumable.

    run([dense, pruned], sentences, place=phone, settings=Settings(threads=2), out=Path("records.jsonl"))

What is said of sentences holds of the images of image networks too (see `tprune.bench.measure.inputs`).
Block k of every artefact runs back to back, for one number of threads after the other where several are asked for; both
orders rotate from block to block, and memory is measured last. Every block is a process of its own and one line of
`out` as soon as it is measured; running again with the same settings goes on where it stopped. This host and a phone
differ only in their `Place`.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tprune.base import stamp
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.measure import artefact, inputs, record
from tprune.bench.measure.agreement import agrees, identical
from tprune.bench.measure.artefact import Artefact
from tprune.bench.measure.inputs import RUNNER_TASKS, Inputs
from tprune.bench.measure.record import MEMORY_BLOCK, SERIES, Record
from tprune.bench.measure.settings import Settings, listed
from tprune.bench.runner.contract import Ids, Job, Run, RunFailed
from tprune.export.manifest import IMAGES

MEMORY_INPUTS = 50  # the longest sentences: they set the peak, and the pass stays short

Item = TypeVar("Item")
Progress = Callable[[int, int, str], None]  # (blocks done, blocks in all, what runs now)


@dataclass(frozen=True)
class Place:
    """Where blocks are measured: this host or one phone.

    `ready` waits until the place is fit for a block and returns its conditions. `measure` runs one job of one artefact
    to its end. `after` returns the conditions behind a run; the key "throttled", a reason, makes it THROTTLED.
    RunFailed from `measure` ends its artefact only; any other WorkFailed ends the session, with the block INTERRUPTED.
    """

    device: Mapping[str, Any]
    measure: Callable[[Artefact, Job, Inputs], Run]
    ready: Callable[[], Mapping[str, Any]]
    after: Callable[[Run], Mapping[str, Any]]
    versions: Mapping[str, str] = field(default_factory=dict)  # of what runs there; a resumed file must agree
    loop: str = "runner"


def run(
    artefacts: Sequence[Path | str | Artefact],
    sentences: Inputs,
    *,
    place: Place,
    settings: Settings | Sequence[Settings],
    out: Path | str,
    reference: Mapping[str, Ids] | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on `sentences` (token ids, final </s> included) or images; return this place's records.

    Several `settings` (see `settings.sweep`) differ in threads and CPUs only, and are measured in the same blocks.
    `reference` has, by artefact id, the tokens that are right. Raises BadInput before anything runs when the call is
    wrong or `out` was measured otherwise, and WorkFailed at the end, in one line, when an artefact failed: the others
    are measured, and the record of the one that failed says why.
    """
    subjects, sweep = read_subjects(artefacts, sentences), listed(settings)
    if sweep[0].beams != 1 and inputs.task(sentences) == IMAGES:
        raise BadInput(f"beams {sweep[0].beams}: images have none; leave it out")
    out = Path(out)
    if out.is_dir():
        raise BadInput(f"out {str(out)!r} is a folder; name a file, for example {str(out / 'records.jsonl')!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    session = _Session(
        subjects, sentences, place, sweep, out, reference or {}, progress or (lambda done, total, what: None)
    )
    session.resume()
    session.time()
    session.weigh()
    if session.failures:
        names = {case.key: session.told(case, str(case.subject.folder)) for case in session.cases()}
        failed = "; ".join(f"{names[key]}: {why}" for key, why in session.failures.items())
        broken = {artefact for artefact, _ in session.failures}
        rest = "the rest" if len(broken) < len(subjects) else "no time was taken; what happened"
        raise WorkFailed(f"{len(broken)} of {len(subjects)} artefacts failed ({failed}); {rest} is in {out}")
    return list(session.kept.values())


def read_subjects(folders: Sequence[Path | str | Artefact], sentences: Inputs) -> tuple[Artefact, ...]:
    """Return the artefacts; BadInput when one is there twice, or cannot take one of the sentences or images."""
    if not folders:
        raise BadInput("nothing to measure: name at least one artefact folder")
    seen: dict[str, Artefact] = {}
    for folder in folders:
        subject = folder if isinstance(folder, Artefact) else artefact.read(folder)
        if subject.id in seen:
            raise BadInput(f"{str(subject.folder)!r} is the same artefact as {str(seen[subject.id].folder)!r}")
        seen[subject.id] = subject
    inputs.check(tuple(seen.values()), sentences)
    return tuple(seen.values())


def job(subjects: Sequence[Artefact], settings: Settings) -> Job:
    """Return what one timed process does with one of these artefacts."""
    task = RUNNER_TASKS[subjects[0].task]
    return replace(settings.job(max_length(subjects, settings)), task=task)


def max_length(subjects: Sequence[Artefact], settings: Settings) -> int | None:
    """Return the most target tokens of every sentence: what is asked for, or the shortest limit of the artefacts.

    None where nothing is translated.
    """
    if subjects[0].task == IMAGES:
        return None
    limit = min(subject.max_target for subject in subjects)
    return min(limit, settings.max_length or limit)


@dataclass(frozen=True)
class _Case:
    """What is measured side by side with others: an artefact, in one way."""

    subject: Artefact
    settings: Settings

    @property
    def key(self) -> tuple[str, int]:
        return (self.subject.id, self.settings.threads)


@dataclass
class _Session:
    """One call of `run`: what is asked, and what is done so far."""

    subjects: tuple[Artefact, ...]
    sentences: Inputs
    place: Place
    sweep: tuple[Settings, ...]
    out: Path
    reference: Mapping[str, Ids]
    progress: Progress
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    kept: dict[tuple[str, int, int], Record] = field(default_factory=dict)  # by case and block: not to be done again
    failures: dict[tuple[str, int], str] = field(default_factory=dict)  # by case

    def cases(self, turn: int = 0) -> list[_Case]:
        """Return what is measured in a block, in its order: all artefacts with one thread count, then the next one."""
        return [_Case(subject, one) for one in _rotated(self.sweep, turn) for subject in _rotated(self.subjects, turn)]

    def told(self, case: _Case, name: str) -> str:
        """Return what a person is told of a case, whose artefact is called `name`."""
        return name if len(self.sweep) == 1 else f"{name} with {case.settings.threads_told}"

    def resume(self) -> None:
        """Take over the complete blocks of an earlier run; BadInput when it was measured otherwise."""
        if not self.out.exists():
            return
        known = {subject.id for subject in self.subjects}
        place = record.place_name(self.place.device)
        series = {(place, one.threads, one.beams, one.mode): one for one in self.sweep}
        for old in record.newest(record.read(self.out)):
            if old.artefact not in known:
                raise BadInput(f"{str(self.out)!r} holds records of another artefact ({old.name}); name a new file")
            same = series.get(old.series)
            self._check_settings(old, same or self.sweep[0], same_series=same is not None)
            if same is not None and old.complete:
                self.kept[old.artefact, old.threads, old.block] = old

    def _check_settings(self, old: Record, now: Settings, *, same_series: bool) -> None:
        """Raise BadInput when `old` was not measured as this call would.

        A file holds one set of sentences; what has the same place, threads, beams and mode must agree in all else too.
        """
        settings = self._written_settings(now)
        shared = ("max_length", *inputs.told(self.sentences))
        pairs: list[tuple[str, Any, Any]] = [("split", old.split, now.split), ("limit", old.limit, now.limit)]
        pairs += [("loop", old.loop, self.place.loop)]
        pairs += [(name, old.settings.get(name), settings[name]) for name in shared]
        if same_series:
            pairs += [("blocks", old.blocks, now.processes), ("cpus", old.affinity["asked"], _cpus(now))]
            pairs += [(name, old.settings.get(name, 0), value) for name, value in settings.items()]
            pairs += [(name, old.versions.get(name), version) for name, version in self.place.versions.items()]
        for name, was, asked in pairs:
            if was != asked:
                raise BadInput(
                    f"{str(self.out)!r} was measured with {name} {was!r}, this call asks for {asked!r}; "
                    "repeat the earlier call to resume it, or name a new file"
                )

    def time(self) -> None:
        """Measure the timed blocks that are missing, interleaved."""
        for block in range(self.sweep[0].processes):
            for case in self.cases(block):
                self._measure(case, block, job(self.subjects, case.settings), self.sentences)

    def weigh(self) -> None:
        """Measure the peak memory of every artefact over what takes the most."""
        largest = inputs.heaviest(self.sentences, MEMORY_INPUTS)
        for case in self.cases():
            timed = job(self.subjects, case.settings)
            once = replace(timed, warmup=0, warmup_ms=0, passes=1, min_ms=0, gap_ms=0, weigh=True)
            self._measure(case, MEMORY_BLOCK, once, largest)
        self._show("done")

    def _measure(self, case: _Case, block: int, job: Job, sentences: Inputs) -> None:
        if (*case.key, block) in self.kept or case.key in self.failures:
            return
        what = "memory" if block == MEMORY_BLOCK else f"block {block + 1}"
        self._show(f"{self.told(case, case.subject.name)}, {what}")
        before: Mapping[str, Any] = {}
        try:
            if block != MEMORY_BLOCK:  # memory does not depend on heat
                before = self.place.ready()
            run = self.place.measure(case.subject, job, sentences)
            _check_run(run, case.subject, job, sentences)
            after = self.place.after(run)
        except WorkFailed as error:
            self.failures[case.key] = str(error)
            record.append(self.out, self._record(case, block, job.nonce, {"before": before}, error=str(error)))
            if not isinstance(error, RunFailed):
                raise
        else:
            self._keep(self._record(case, block, job.nonce, {"before": before, "after": after}, run))

    def _keep(self, measured: Record) -> None:
        record.append(self.out, measured)
        case = (measured.artefact, measured.threads)
        if measured.verdict == "WRONG_TOKENS":
            of = "the reference" if measured.identical is not None else "an earlier block"
            what = "classes" if measured.task == IMAGES else "tokens"
            self.failures[case] = f"block {measured.block} gave other {what} than {of}"
        elif measured.verdict == "MIGRATED":
            asked, got = measured.affinity["asked"], measured.affinity["got"]
            self.failures[case] = f"ran on CPUs {got}, not {asked}"
        else:  # a THROTTLED block is not measured twice in one call: the place would only get hotter
            self.kept[measured.artefact, measured.threads, measured.block] = measured

    def _record(
        self,
        case: _Case,
        block: int,
        nonce: str,
        around: Mapping[str, Mapping[str, Any]],
        run: Run | None = None,
        error: str | None = None,
    ) -> Record:
        """Return the record of one block; one without a run is INTERRUPTED."""
        subject, settings = case.subject, case.settings
        timed = run is not None and block != MEMORY_BLOCK
        series: dict[str, Any] = {name: list(getattr(run, name)) for name in SERIES} if timed else {}
        same = self._identical(subject, run) if run is not None and timed else None
        return Record(
            artefact=subject.id,
            model=subject.model,
            name=subject.name,
            runtime=subject.runtime,
            precision=subject.precision,
            bytes=subject.bytes,
            device=self.place.device,
            settings=self._written_settings(settings),
            session=self.id,
            nonce=nonce,
            block=block,
            verdict="INTERRUPTED" if run is None else self._verdict(case, block, run, same, around["after"]),
            mode=settings.mode,
            loop=self.place.loop,
            threads=settings.threads,
            affinity={"asked": _cpus(settings), "got": run.affinity["got"] if run else None},
            beams=settings.beams,
            split=settings.split,
            limit=settings.limit,
            blocks=settings.processes,
            conditions=_conditions(around, run),
            threads_got=run.threads["got"] if run else None,
            load_ns=run.load_ns if run and timed else None,
            first_ns=run.first_ns if run and timed else None,
            output_ids=[list(ids) for ids in run.output_ids] if run and timed else [],
            task=subject.task,
            labels=inputs.labels(self.sentences) if timed else [],
            identical=same,
            memory=_memory(run) if run and not timed else None,
            engine=run.engine if run else {},
            machine=run.machine if run else {},
            error=error,
            versions={**stamp.versions(), **self.place.versions},
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            **series,
        )

    def _written_settings(self, settings: Settings) -> dict[str, Any]:
        one = job(self.subjects, settings)
        told = {
            name: getattr(one, name) for name in ("warmup", "warmup_ms", "passes", "min_ms", "gap_ms", "max_length")
        }
        return {**told, **inputs.told(self.sentences)}

    def _identical(self, subject: Artefact, run: Run) -> int | None:
        reference = self.reference.get(subject.id)
        return None if reference is None else identical(run.output_ids, reference)

    def _verdict(self, case: _Case, block: int, run: Run, same: int | None, after: Mapping[str, Any]) -> str:
        if block != MEMORY_BLOCK:
            earlier = [old.output_ids for key, old in self.kept.items() if key[:2] == case.key and old.output_ids]
            if earlier and identical(run.output_ids, earlier[0]) < len(run.output_ids):
                return "WRONG_TOKENS"
            if same is not None and not agrees(same, len(run.output_ids), case.subject.precision):
                return "WRONG_TOKENS"
        if self.place.device["emulated"]:
            return "EMULATED"
        if case.settings.cpus is not None and run.affinity["got"] != _cpus(case.settings):
            return "MIGRATED"
        return "THROTTLED" if after.get("throttled") and block != MEMORY_BLOCK else "VALID"

    def _show(self, what: str) -> None:
        total = len(self.cases()) * (self.sweep[0].processes + 1)
        self.progress(len(self.kept), total, what)


def _rotated(items: Sequence[Item], turn: int) -> Sequence[Item]:
    turn %= len(items)
    return [*items[turn:], *items[:turn]]


def _cpus(settings: Settings) -> list[int] | None:
    return None if settings.cpus is None else sorted(settings.cpus)


def _check_run(run: Run, subject: Artefact, job: Job, sentences: Inputs) -> None:
    """Raise RunFailed when a report is of something else than what was asked."""
    asked = {
        "task": (job.task, run.task),
        "artefact": (subject.id, run.artefact),
        "threads": (job.threads, run.threads["asked"]),
        "beams": (job.beams, run.beams),
        "max_length": (job.max_length, run.max_length),
        "CPUs": (job.cpus, None if run.affinity["asked"] is None else tuple(run.affinity["asked"])),
        "sentences": (len(sentences), len(run.output_ids)),
        "samples": (_samples(len(sentences), job, run), len(run.samples_ns)),
    }
    for name, (wanted, found) in asked.items():
        if wanted != found:
            raise RunFailed(f"the report is of {name} {found!r}, but {wanted!r} was asked for")
    if run.build.get("optimised") is False or run.build.get("sanitised"):
        raise RunFailed("the runner was built for debugging, so its times say nothing; run `make runner`")


def _samples(sentences: int, job: Job, run: Run) -> int:
    """Return how many samples a run must have: those of its passes, of whole ones when it was asked to last."""
    passes = max(job.passes, len(run.samples_ns) // sentences) if job.min_ms else job.passes
    return sentences * passes


def _conditions(around: Mapping[str, Mapping[str, Any]], run: Run | None) -> dict[str, Any]:
    """Return the conditions around a block: what the place says joined with what the runner itself saw."""
    if run is None:
        return {"before": dict(around.get("before", {})), "after": {}, "during": []}
    load = {"switches": run.switches["involuntary"], "cpu_share": round(run.cpu_share, 3)}
    return {
        "before": {**around["before"], **run.conditions["before"]},
        "after": {**around["after"], **run.conditions["after"], **load},
        "during": run.conditions["during"],
    }


def _memory(run: Run) -> dict[str, int]:
    return {
        "peak_kib": run.memory["end"]["vm_hwm_kib"],
        "base_kib": run.memory["start"]["vm_hwm_kib"],
        "anon_kib": run.memory["end"]["rss_anon_kib"],
        "file_kib": run.memory["end"]["rss_file_kib"],
    }
