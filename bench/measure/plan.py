"""`Plan`: what one benchmark measures: artefacts of one task, their inputs, and the settings. Checked once, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.measure import tasks
from tprune.bench.measure.settings import Settings, listed
from tprune.bench.measure.tasks import TASKS, Inputs, Scalars, Subject, Task
from tprune.bench.runner.contract import Job

WRITTEN = ("warmup", "warmup_ms", "passes", "min_ms", "gap_ms", "max_length")  # fields of a job that a record keeps


@dataclass(frozen=True)
class Plan:
    """What is measured. The settings in `sweep` differ in threads and CPUs only."""

    subjects: tuple[Subject, ...]
    inputs: Inputs
    sweep: tuple[Settings, ...]

    @property
    def task(self) -> Task[Any]:
        """The task that all subjects share."""
        return TASKS[self.subjects[0].task]

    @property
    def max_length(self) -> int | None:
        """The most target tokens of a sentence: as asked, or the shortest limit of the subjects. None of images."""
        if not self.task.searches:
            return None
        limit = min(subject.max_target for subject in self.subjects)
        return min(limit, self.sweep[0].max_length or limit)

    def job(self, settings: Settings) -> Job:
        """Return what one timed process does."""
        return replace(settings.job(self.max_length), task=self.task.verb)

    def facts(self, settings: Settings) -> Scalars:
        """Return the settings and the inputs as a record holds them."""
        job = self.job(settings)
        return {**{name: getattr(job, name) for name in WRITTEN}, **self.task.facts(self.inputs)}


def plan(
    artefacts: Sequence[Path | str | Subject], inputs: Inputs, settings: Settings | Sequence[Settings] | None = None
) -> Plan:
    """Read the artefacts and return the plan.

    Raise BadInput when an artefact is named twice or cannot take one of the inputs, and for beams where nothing is
    searched.
    """
    if not artefacts:
        raise BadInput("nothing to measure: name at least one artefact folder")
    seen: dict[str, Subject] = {}
    for artefact in artefacts:
        subject = artefact if isinstance(artefact, Subject) else tasks.read_subject(artefact)
        if subject.id in seen:
            raise BadInput(f"{str(subject.folder)!r} is the same artefact as {str(seen[subject.id].folder)!r}")
        seen[subject.id] = subject
    subjects, sweep = tuple(seen.values()), listed(settings or Settings())
    tasks.check(subjects, inputs)
    made = Plan(subjects, inputs, sweep)
    if sweep[0].beams != 1 and not made.task.searches:
        raise BadInput(f"beams {sweep[0].beams}: {made.task.noun}s have none; leave it out")
    return made
