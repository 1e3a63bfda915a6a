"""Benchmark artefacts on this machine: the runner in a process of its own for every block of every artefact.

    run([dense, pruned], sentences, settings=Settings(threads=1), out=Path("records.jsonl"))

Where no C++ compiler can build the runner, `tprune.bench.runner.loop` measures ONNX artefacts, and the records say so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.busy import Others
from tprune.base.errors import BadInput
from tprune.bench.measure import blocks, conditions, inputs, scratch
from tprune.bench.measure.artefact import Artefact
from tprune.bench.measure.blocks import Place, Progress
from tprune.bench.measure.inputs import Inputs
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings, listed
from tprune.bench.runner import build
from tprune.bench.runner import contract as runner
from tprune.bench.runner.contract import Ids, Job, Run, RunFailed
from tprune.export import targets
from tprune.export.manifest import IMAGES

Programs = Mapping[str, Sequence[str]]  # runtime -> argv of the program that runs its artefacts
LOOP = (sys.executable, "-m", "tprune.bench.runner.loop")
MMAP_THRESHOLD = 128 * 1024  # bytes; glibc's own before it moves it


def run(
    artefacts: Sequence[Path | str | Artefact],
    sentences: Inputs,
    *,
    out: Path | str,
    settings: Settings | Sequence[Settings] | None = None,
    programs: Programs | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Measure every artefact on this machine (see `blocks.run`); `programs` are found or built by default.

    Warns (`errors.Caution`) of an artefact that was exported for other processors.
    """
    sweep = listed(settings or Settings())
    for one in sweep:
        _check_cpus(one)
    subjects = blocks.read_subjects(artefacts, sentences)
    for subject in subjects:
        targets.warn(f"artefact {str(subject.folder)!r}", subject.target_cpu)
    programs = programs or _programs(subjects, sweep[0].beams)
    here = place(programs)
    return blocks.run(artefacts, sentences, place=here, settings=sweep, out=out, progress=progress)


def place(programs: Programs) -> Place:
    """Return this machine as a place to measure in."""
    others = Others()

    def ready() -> dict[str, Any]:
        others.look()
        return conditions.now()

    python = any(tuple(program) == LOOP for program in programs.values())
    ours = ("python", *programs) if python else tuple(programs)
    return Place(
        device=conditions.device(),
        measure=lambda subject, job, sentences: execute(programs[subject.runtime], subject, job, sentences),
        ready=ready,
        after=lambda run: {**conditions.now(), "others": others.look()},
        versions={name: version for name, version in stamp.versions().items() if name in ours},
        loop="python" if python else "runner",
    )


def _programs(subjects: Sequence[Artefact], beams: int) -> dict[str, tuple[str, ...]]:
    runtimes = {subject.runtime for subject in subjects}
    if subjects[0].task == IMAGES:  # the loop in Python only translates
        return {runtime: (str(build.ensure(runtime)),) for runtime in sorted(runtimes)}
    return find_programs(runtimes, beams=beams)


def find_programs(runtimes: set[str], *, beams: int = 1) -> dict[str, tuple[str, ...]]:
    """Return runtime -> program, built where it is missing; without a compiler, greedy ONNX gets the Python loop."""
    if runtimes == {"onnxruntime"} and beams == 1 and build.find("onnxruntime") is None and build.missing_tools():
        return {"onnxruntime": LOOP}
    return {runtime: (str(build.ensure(runtime)),) for runtime in sorted(runtimes)}


def references(artefacts: Sequence[Path | str], sentences: Inputs, settings: Settings) -> dict[str, Ids]:
    """Return, by artefact id, the tokens that this machine gives: what a phone's must agree with."""
    subjects = blocks.read_subjects(artefacts, sentences)
    programs = _programs(subjects, settings.beams)
    job = blocks.job(subjects, Settings(warmup=0, beams=settings.beams, max_length=settings.max_length))
    return {subject.id: execute(programs[subject.runtime], subject, job, sentences).output_ids for subject in subjects}


def execute(program: Sequence[str], subject: Artefact, job: Job, sentences: Inputs) -> Run:
    """Run one job to its end and return its report; RunFailed says in one line why there is none.

    The process ends with this one, however this one ends.
    """
    with scratch.folder() as folder:
        paths = (str(subject.folder.resolve()), str(inputs.write(sentences, folder)), str(folder / "out"))
        environment = runner.host_environment(subject.runtime)
        if job.weigh:
            environment = _steady_heap(environment)
        code, said = _call([*program, *job.arguments(*paths), "--check-parent"], environment)
        if code and not (folder / "out" / runner.REPORT).is_file():
            raise RunFailed(runner.how_it_ended(code, said))
        found = runner.read_run(folder / "out", job.nonce)
        if code:
            raise RunFailed(runner.how_it_ended(code, said))
        return found


def _steady_heap(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the peak memory of a process is that of what it does.

    glibc moves the size from which a block gets pages of its own, which go back when it is freed: the peak of a 59 MB
    network was 184 or 221 MiB by the length of its file's name. With a fixed size it is the same each time. What the
    caller tunes for speed is left out.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith("MALLOC_")}
    return {**kept, "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={MMAP_THRESHOLD}"}


def _call(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Return the exit code and stderr of a program that is ended together with its children if we are interrupted."""
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
            start_new_session=True,  # Ctrl-C is for the benchmark alone; it then ends its runner
        )
    except OSError as error:
        raise RunFailed(f"cannot start {argv[0]!r}: {error.strerror}") from None
    try:
        _, said = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, said


def _check_cpus(settings: Settings) -> None:
    cores = os.sched_getaffinity(0)
    if settings.threads > len(cores):
        raise BadInput(f"threads {settings.threads}: legal are 1 to {len(cores)}, the CPUs this process may use")
    if settings.cpus is not None and not set(settings.cpus) <= cores:
        raise BadInput(f"cpus {list(settings.cpus)}: legal are {sorted(cores)}")
