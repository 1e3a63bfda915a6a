"""Benchmark artefacts on this machine. Every block of every artefact is one process of the runner.

    run([dense, pruned], sentences, settings=Settings(threads=1), out=Path("records.jsonl"))

Without a C++ compiler, `tprune.bench.runner.loop` measures ONNX artefacts instead; the records have `loop: python`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tprune.base import stamp
from tprune.base.busy import Others
from tprune.base.errors import BadInput
from tprune.bench.measure import blocks, conditions, scratch
from tprune.bench.measure.blocks import Place, Progress
from tprune.bench.measure.conditions import Conditions
from tprune.bench.measure.plan import Plan, plan
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings, listed
from tprune.bench.measure.tasks import TASKS, Inputs, Subject
from tprune.bench.runner import build
from tprune.bench.runner import contract as runner
from tprune.bench.runner.contract import Ids, Job, Run, RunFailed
from tprune.export import targets

Programs = Mapping[str, Sequence[str]]  # runtime -> argv of the program that runs its artefacts
LOOP = (sys.executable, "-m", "tprune.bench.runner.loop")
MMAP_THRESHOLD = 128 * 1024  # bytes; glibc's initial value


def run(
    artefacts: Sequence[Path | str | Subject],
    sentences: Inputs,
    *,
    out: Path | str,
    settings: Settings | Sequence[Settings] | None = None,
    programs: Programs | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on this machine (see `blocks.run`). `programs` defaults to the runners, built if missing.

    Warn (`errors.Caution`) about an artefact that was exported for other processors.
    """
    for one in listed(settings or Settings()):
        _check_cpus(one)
    asked = plan(artefacts, sentences, settings)
    for subject in asked.subjects:
        targets.warn(f"artefact {str(subject.folder)!r}", subject.target_cpu)
    return blocks.run(asked, place=place(programs or _programs(asked)), out=out, progress=progress)


def place(programs: Programs) -> Place:
    """Return this machine as a place to measure in."""
    others = Others()

    def ready() -> Conditions:
        others.look()
        return conditions.now()

    python = any(tuple(program) == LOOP for program in programs.values())
    ours = ("python", *programs) if python else tuple(programs)
    return Place(
        device=conditions.device(),
        measure=lambda subject, job, sentences: execute(programs[subject.runtime], subject, job, sentences),
        ready=ready,
        after=lambda run: conditions.now(others.look()),
        versions={name: version for name, version in stamp.versions().items() if name in ours},
        loop="python" if python else "runner",
    )


def _programs(asked: Plan) -> dict[str, tuple[str, ...]]:
    runtimes = {subject.runtime for subject in asked.subjects}
    if not asked.task.searches:  # the loop in Python only translates
        return {runtime: (str(build.ensure(runtime)),) for runtime in sorted(runtimes)}
    return find_programs(runtimes, beams=asked.sweep[0].beams)


def find_programs(runtimes: set[str], *, beams: int = 1) -> dict[str, tuple[str, ...]]:
    """Return the program of each runtime, built if missing. Without a compiler, greedy ONNX uses the Python loop."""
    if runtimes == {"onnxruntime"} and beams == 1 and build.find("onnxruntime") is None and build.missing_tools():
        return {"onnxruntime": LOOP}
    return {runtime: (str(build.ensure(runtime)),) for runtime in sorted(runtimes)}


def references(asked: Plan) -> dict[str, Ids]:
    """Return the outputs of this machine by artefact id: a phone's must agree with them."""
    programs = _programs(asked)
    job = asked.job(replace(asked.sweep[0], threads=1, cpus=None, warmup=0, warmup_ms=0, mode="warm", minutes=None))
    return {
        subject.id: execute(programs[subject.runtime], subject, job, asked.inputs).output_ids
        for subject in asked.subjects
    }


def execute(program: Sequence[str], subject: Subject, job: Job, sentences: Inputs) -> Run:
    """Run one job to its end and return its report. RunFailed gives the reason in one line when there is none.

    The process ends with this one, however this one ends.
    """
    with scratch.folder() as folder:
        paths = (str(subject.folder.resolve()), str(TASKS[subject.task].write(sentences, folder)), str(folder / "out"))
        environment = runner.host_environment(subject.runtime)
        if job.weigh:
            environment = _steady_heap(environment)
        code, stderr = _call([*program, *job.arguments(*paths), "--check-parent"], environment)
        if code and not (folder / "out" / runner.REPORT).is_file():
            raise RunFailed(runner.how_it_ended(code, stderr))
        found = runner.read_run(folder / "out", job.nonce)
        if code:
            raise RunFailed(runner.how_it_ended(code, stderr))
        return found


def _steady_heap(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the peak memory of a process is reproducible.

    glibc moves the size from which an allocation gets pages of its own, which return to the system when freed: the peak
    of a 59 MB network was 184 or 221 MiB, depending on the length of its file's name. A fixed threshold avoids this.
    The caller's own malloc settings, meant for speed, are dropped.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith("MALLOC_")}
    return {**kept, "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={MMAP_THRESHOLD}"}


def _call(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Return exit code and stderr of a program. When we are interrupted, it and its children are killed."""
    if list(argv[1:2]) == ["-m"]:  # a folder named `tprune` in the working directory is not this package
        environment = {**environment, "PYTHONSAFEPATH": "1"}
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the benchmark, which then ends its runner
        )
    except OSError as error:
        raise RunFailed(f"cannot start {argv[0]!r}: {error.strerror}") from None
    try:
        _, stderr = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, stderr


def _check_cpus(settings: Settings) -> None:
    cores = os.sched_getaffinity(0)
    if settings.threads > len(cores):
        raise BadInput(f"threads {settings.threads}: legal are 1 to {len(cores)}, the CPUs this process may use")
    if settings.cpus is not None and not set(settings.cpus) <= cores:
        raise BadInput(f"cpus {list(settings.cpus)}: legal are {sorted(cores)}")
