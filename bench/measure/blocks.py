"""Blocks: artefacts measured side by side in one place, interleaved, recorded one by one, resumable.

    run(plan([dense, pruned], sentences, Settings(threads=2)), place=phone, out=Path("records.jsonl"))

Block k of every artefact runs back to back, for one number of threads after the other. Both orders rotate from block
to block; memory is measured last. Every block is one process and one line of `out`. Running again with the same
settings measures what is missing. This host and a phone differ only in their `Place`.
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
from tprune.bench.measure import record
from tprune.bench.measure.agreement import agrees, identical
from tprune.bench.measure.conditions import Conditions
from tprune.bench.measure.plan import Plan
from tprune.bench.measure.record import MEMORY_BLOCK, SERIES, DeviceFacts, Record
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.tasks import Inputs, Subject
from tprune.bench.runner.contract import Ids, Job, Run, RunFailed

MEMORY_INPUTS = 50  # the longest sentences, which set the peak; so few keep the pass short

Item = TypeVar("Item")
Progress = Callable[[int, int, str], None]  # (blocks done, blocks in all, what runs now)


@dataclass(frozen=True)
class Place:
    """Where blocks are measured: this host or one phone.

    `ready` waits until the place is fit for a block and returns its conditions. `measure` runs one job of one artefact
    to its end. `after` returns the conditions after a run; with a `throttled` reason the block is THROTTLED. RunFailed
    from `measure` ends its artefact only; any other WorkFailed ends the call, with the block INTERRUPTED.
    """

    device: DeviceFacts
    measure: Callable[[Subject, Job, Inputs], Run]
    ready: Callable[[], Conditions]
    after: Callable[[Run], Conditions]
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software there; a resumed file must agree
    loop: str = "runner"


def run(
    plan: Plan,
    *,
    place: Place,
    out: Path | str,
    reference: Mapping[str, Ids] | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure what is planned and return this place's records.

    `reference` has the expected outputs by artefact id. Raise BadInput before anything runs when `out` was measured
    otherwise. Raise WorkFailed at the end, in one line, when an artefact failed: the others are measured, and the
    record of the failed block gives the reason.
    """
    out = Path(out)
    if out.is_dir():
        raise BadInput(f"out {str(out)!r} is a folder; name a file, for example {str(out / 'records.jsonl')!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    call = _Call(plan, place, out, reference or {}, progress or (lambda done, total, what: None))
    call.resume()
    call.time()
    call.weigh()
    if call.failures:
        names = {case.key: call.label(case, str(case.subject.folder)) for case in call.cases()}
        failed = "; ".join(f"{names[key]}: {why}" for key, why in call.failures.items())
        broken = {artefact for artefact, _ in call.failures}
        rest = "the rest" if len(broken) < len(plan.subjects) else "no time was taken; what happened"
        raise WorkFailed(f"{len(broken)} of {len(plan.subjects)} artefacts failed ({failed}); {rest} is in {out}")
    return list(call.kept.values())


@dataclass(frozen=True)
class _Case:
    """One artefact with one number of threads, measured side by side with the others."""

    subject: Subject
    settings: Settings

    @property
    def key(self) -> tuple[str, int]:
        return (self.subject.id, self.settings.threads)


@dataclass
class _Call:
    """One call of `run`: its arguments, and what is done so far."""

    plan: Plan
    place: Place
    out: Path
    reference: Mapping[str, Ids]
    progress: Progress
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    kept: dict[tuple[str, int, int], Record] = field(default_factory=dict)  # by case and block: not to be repeated
    failures: dict[tuple[str, int], str] = field(default_factory=dict)  # by case

    def cases(self, turn: int = 0) -> list[_Case]:
        """Return the cases of a block in its order: all artefacts with one thread count, then the next one."""
        subjects = _rotated(self.plan.subjects, turn)
        return [_Case(subject, one) for one in _rotated(self.plan.sweep, turn) for subject in subjects]

    def label(self, case: _Case, name: str) -> str:
        """Return the display label of a case whose artefact is called `name`."""
        return name if len(self.plan.sweep) == 1 else f"{name} with {case.settings.threads_label}"

    def resume(self) -> None:
        """Keep the complete blocks of an earlier call. Raise BadInput when it was measured otherwise."""
        if not self.out.exists():
            return
        known = {subject.id for subject in self.plan.subjects}
        place = record.place_name(self.place.device)
        series = {(place, one.threads, one.beams, one.mode): one for one in self.plan.sweep}
        for old in record.newest(record.read(self.out)):
            if old.artefact not in known:
                raise BadInput(f"{str(self.out)!r} holds records of another artefact ({old.name}); name a new file")
            same = series.get(old.series)
            self._check_settings(old, same or self.plan.sweep[0], same_series=same is not None)
            if same is not None and old.complete:
                self.kept[old.artefact, old.threads, old.block] = old

    def _check_settings(self, old: Record, now: Settings, *, same_series: bool) -> None:
        """Raise BadInput when `old` was not measured as this call would.

        A file holds one set of inputs. Records with the same place, threads, beams and mode must agree in all else too.
        """
        settings = self.plan.facts(now)
        shared = ("max_length", *self.plan.task.facts(self.plan.inputs))
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
        for block in range(self.plan.sweep[0].processes):
            for case in self.cases(block):
                self._measure(case, block, self.plan.job(case.settings), self.plan.inputs)

    def weigh(self) -> None:
        """Measure the peak memory of every artefact over the inputs that need the most."""
        largest = self.plan.task.heaviest(self.plan.inputs, MEMORY_INPUTS)
        for case in self.cases():
            timed = self.plan.job(case.settings)
            once = replace(timed, warmup=0, warmup_ms=0, passes=1, min_ms=0, gap_ms=0, weigh=True)
            self._measure(case, MEMORY_BLOCK, once, largest)
        self._show("done")

    def _measure(self, case: _Case, block: int, job: Job, sentences: Inputs) -> None:
        if (*case.key, block) in self.kept or case.key in self.failures:
            return
        what = "memory" if block == MEMORY_BLOCK else f"block {block + 1}"
        self._show(f"{self.label(case, case.subject.name)}, {what}")
        before: Conditions | None = None
        try:
            if block != MEMORY_BLOCK:  # memory does not depend on heat
                before = self.place.ready()
            run = self.place.measure(case.subject, job, sentences)
            _check_run(run, case.subject, job, sentences)
            after = self.place.after(run)
        except WorkFailed as error:
            self.failures[case.key] = str(error)
            record.append(self.out, self._record(case, block, job.nonce, _conditions(before), error=str(error)))
            if not isinstance(error, RunFailed):
                raise
        else:
            verdict = self._verdict(case, block, run, after.throttled)
            self._keep(self._record(case, block, job.nonce, _conditions(before, after, run), run, verdict))

    def _keep(self, measured: Record) -> None:
        record.append(self.out, measured)
        case = (measured.artefact, measured.threads)
        if measured.verdict == "WRONG_TOKENS":
            of = "the reference" if measured.identical is not None else "an earlier block"
            self.failures[case] = f"block {measured.block} gave other {self.plan.task.outputs} than {of}"
        elif measured.verdict == "MIGRATED":
            asked, got = measured.affinity["asked"], measured.affinity["got"]
            self.failures[case] = f"ran on CPUs {got}, not {asked}"
        else:  # a THROTTLED block is not repeated in the same call: the place would only get hotter
            self.kept[measured.artefact, measured.threads, measured.block] = measured

    def _record(
        self,
        case: _Case,
        block: int,
        nonce: str,
        conditions: Mapping[str, Any],
        run: Run | None = None,
        verdict: str = "INTERRUPTED",
        error: str | None = None,
    ) -> Record:
        """Return the record of one block."""
        subject, settings = case.subject, case.settings
        timed = run is not None and block != MEMORY_BLOCK
        series: dict[str, Any] = {name: list(getattr(run, name)) for name in SERIES} if timed else {}
        return Record(
            artefact=subject.id,
            model=subject.model,
            name=subject.name,
            runtime=subject.runtime,
            precision=subject.precision,
            bytes=subject.bytes,
            device=self.place.device,
            settings=self.plan.facts(settings),
            session=self.id,
            nonce=nonce,
            block=block,
            verdict=verdict,
            mode=settings.mode,
            loop=self.place.loop,
            threads=settings.threads,
            affinity={"asked": _cpus(settings), "got": run.affinity["got"] if run else None},
            beams=settings.beams,
            split=settings.split,
            limit=settings.limit,
            blocks=settings.processes,
            conditions=conditions,
            threads_got=run.threads["got"] if run else None,
            load_ns=run.load_ns if run and timed else None,
            first_ns=run.first_ns if run and timed else None,
            output_ids=[list(ids) for ids in run.output_ids] if run and timed else [],
            task=subject.task,
            labels=self.plan.task.labels(self.plan.inputs) if timed else [],
            identical=self._identical(subject, run) if run and timed else None,
            memory=_memory(run) if run and not timed else None,
            engine=run.engine if run else {},
            machine=run.machine if run else {},
            error=error,
            versions={**stamp.versions(), **self.place.versions},
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            **series,
        )

    def _identical(self, subject: Subject, run: Run) -> int | None:
        reference = self.reference.get(subject.id)
        return None if reference is None else identical(run.output_ids, reference)

    def _verdict(self, case: _Case, block: int, run: Run, throttled: str | None) -> str:
        if block != MEMORY_BLOCK:
            earlier = [old.output_ids for key, old in self.kept.items() if key[:2] == case.key and old.output_ids]
            if earlier and identical(run.output_ids, earlier[0]) < len(run.output_ids):
                return "WRONG_TOKENS"
            same = self._identical(case.subject, run)
            if same is not None and not agrees(same, len(run.output_ids), case.subject.precision):
                return "WRONG_TOKENS"
        if self.place.device["emulated"]:
            return "EMULATED"
        if case.settings.cpus is not None and run.affinity["got"] != _cpus(case.settings):
            return "MIGRATED"
        return "THROTTLED" if throttled and block != MEMORY_BLOCK else "VALID"

    def _show(self, what: str) -> None:
        total = len(self.cases()) * (self.plan.sweep[0].processes + 1)
        self.progress(len(self.kept), total, what)


def _rotated(items: Sequence[Item], turn: int) -> Sequence[Item]:
    turn %= len(items)
    return [*items[turn:], *items[:turn]]


def _cpus(settings: Settings) -> list[int] | None:
    return None if settings.cpus is None else sorted(settings.cpus)


def _check_run(run: Run, subject: Subject, job: Job, sentences: Inputs) -> None:
    """Raise RunFailed when a report does not match the job."""
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
    """Return how many samples a run must have: one per input and pass, and whole passes only."""
    passes = max(job.passes, len(run.samples_ns) // sentences) if job.min_ms else job.passes
    return sentences * passes


def _conditions(
    before: Conditions | None, after: Conditions | None = None, run: Run | None = None
) -> dict[str, dict[str, object] | list[object]]:
    """Return the conditions around a block: what the place reads joined with what the runner itself reads."""
    around: dict[str, dict[str, object]] = {
        "before": before.document() if before else {},
        "after": after.document() if after else {},
    }
    if run is None:
        return {**around, "during": []}
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
