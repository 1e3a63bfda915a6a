"""The runner's contract in Python, for a machine without a C++ compiler.

    python -m tprune.bench.runner.loop seq2seq ...

It writes the same report.json, but supports only greedy search and ONNX, and its loop costs 13 to 25 microseconds more
for each decoder step. Exit codes: 0 done, 1 the run failed (the report gives the reason), 2 bad arguments. To run other
models in Python, pass `main` a function that opens them (see `tprune.rivals.hf`).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.bench.runner import contract as runner

PROGRAM = "tprune-python"


@dataclass(frozen=True)
class Translated:
    """One translated sentence: its ids (with the final `</s>`), and its times in nanoseconds as in `Run`."""

    ids: Sequence[int]
    total_ns: int
    encoder_ns: int
    step_ns: int
    run_ns: int
    steps: int


@dataclass(frozen=True)
class Opened:
    """A model that is ready: `translate(ids, max_length)`; `engine` is the name of the package that runs it."""

    id: str
    limit: int
    engine: str
    translate: Callable[[list[int], int], Translated]


Open = Callable[[argparse.Namespace], Opened]
Sentence = Callable[[list[int]], Translated]


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM, opens: Open | None = None) -> int:
    """Do one job and return the exit code; `opens` opens the model of the arguments, by default an ONNX artefact."""
    asked = _arguments(argv)
    out = asked.out_dir
    head = {"schema": runner.SCHEMA, "kind": "run", "nonce": asked.nonce, "task": "seq2seq", "program": program}
    head["runner"] = stamp.versions().get("tprune", "from source")
    try:
        out.mkdir(exist_ok=True)
        (out / runner.REPORT).unlink(missing_ok=True)
        body, ids = _measure(asked, opens)
        runner.write_ids(out / runner.OUTPUT, ids)
        stamp.write_json(out / runner.REPORT, {**head, "ok": True, **body, "error": None})
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the benchmark must hear of it in one line
        said = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"{program}: {said}\n")
        if out.is_dir():
            stamp.write_json(out / runner.REPORT, {**head, "ok": False, "error": said})
        return 2 if isinstance(error, BadInput) else 1
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tprune.bench.runner.loop")
    parser.add_argument("task", choices=["seq2seq"])
    for name in ("--artefact", "--ids", "--out-dir"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--nonce", default="")
    for name, number in (
        ("--threads", 1),
        ("--passes", 1),
        ("--min-ms", 0),
        ("--warmup", 0),
        ("--warmup-ms", 0),
        ("--gap-ms", 0),
    ):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--affinity", type=lambda text: sorted(map(int, text.split(","))))
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--sample-ms", type=int, default=0)  # ignored: this loop does not sample while it runs
    parser.add_argument("--check-parent", action="store_true")
    return parser.parse_args(argv)


def _artefacts() -> Open:
    from tprune.export.ort import runtime  # noqa: PLC0415 - counts neither as loading nor as the model's memory

    def opens(asked: argparse.Namespace) -> Opened:
        if asked.beams != 1:
            raise BadInput(f"beams {asked.beams}: this loop is greedy; the runner in C++ searches with beams")
        artefact = runtime.open(asked.artefact, threads=asked.threads)

        def translate(ids: list[int], limit: int) -> Translated:
            begin = time.perf_counter_ns()
            done = artefact.greedy(ids, limit)
            total = time.perf_counter_ns() - begin
            return Translated(done.ids, total, done.encoder_ns, sum(done.step_ns), done.run_ns, done.steps)

        return Opened(artefact.manifest.id, artefact.manifest.limits.target, "onnxruntime", translate)

    return opens


def _measure(asked: argparse.Namespace, opens: Open | None) -> tuple[dict[str, Any], list[list[int]]]:
    """Return the report's body and the ids of the first pass."""
    if asked.affinity is not None:
        os.sched_setaffinity(0, asked.affinity)  # before the library is loaded: its threads inherit it
    opens = opens or _artefacts()
    sentences = runner.read_ids(asked.ids)
    parent = os.getppid() if asked.check_parent else None
    memory = {"start": _memory()}
    start = time.perf_counter_ns()
    model = opens(asked)
    load_ns = time.perf_counter_ns() - start
    memory["loaded"] = _memory()
    limit = asked.max_length or model.limit

    def sentence(ids: list[int]) -> Translated:
        if parent is not None and os.getppid() != parent:
            os._exit(1)  # the benchmark was killed: stop using the CPU
        time.sleep(asked.gap_ms / 1000)
        return model.translate(ids, limit)

    warm = list(_warmup(asked, sentences, sentence))
    gc.collect()
    with _usage() as used:
        passes = list(_passes(asked, sentences, sentence))
    memory["end"] = _memory()
    ids = [list(done.ids) for done in passes[0]]
    for number, again in enumerate(passes[1:], start=2):
        if [list(done.ids) for done in again] != ids:
            raise RuntimeError(f"pass {number} gave other tokens")
    timed = [one for one_pass in passes for one in one_pass]
    return {
        "engine": {"name": model.engine, "version": stamp.versions().get(model.engine), "facts": {}},
        "build": {"compiler": f"Python {platform.python_version()}", "arch": platform.machine()},
        "artefact": model.id,
        "threads": {"asked": asked.threads, "got": len(os.listdir("/proc/self/task"))},
        "beams": asked.beams,
        "max_length": limit,
        "affinity": {"asked": asked.affinity, "got": _allowed_cpus()},
        "load_ns": load_ns,
        "first_ns": (warm or [timed[0].total_ns])[0],
        "warmup": {"runs": len(warm), "ns": sum(warm)},
        "samples_ns": [done.total_ns for done in timed],
        "encoder_ns": [done.encoder_ns for done in timed],
        "step_ns": [done.step_ns for done in timed],
        "run_ns": [done.run_ns for done in timed],
        "steps": [done.steps for done in timed],
        "outputs": {"ids": runner.OUTPUT},
        "memory": memory,
        **used,
        "conditions": {"before": {}, "after": {}, "during": []},
        "machine": {"uname": " ".join(platform.uname()), "page_size": resource.getpagesize()},
        "profile": None,
    }, ids


def _warmup(asked: argparse.Namespace, sentences: list[list[int]], sentence: Sentence) -> Iterator[int]:
    """Translate sentences until both the count and the time are reached; yield their times."""
    runs, end = 0, time.perf_counter_ns() + asked.warmup_ms * 1_000_000
    while runs < asked.warmup or time.perf_counter_ns() < end:
        yield sentence(sentences[runs % len(sentences)]).total_ns
        runs += 1


def _passes(asked: argparse.Namespace, sentences: list[list[int]], sentence: Sentence) -> Iterator[list[Translated]]:
    """Translate all sentences `passes` times, and further until the time is reached; yield each pass."""
    passes, total = 0, 0
    while passes < asked.passes or total < asked.min_ms * 1_000_000:
        done = [sentence(ids) for ids in sentences]
        passes, total = passes + 1, total + sum(one.total_ns for one in done)
        yield done


@contextmanager
def _usage() -> Iterator[dict[str, Any]]:
    """Yield a dict that afterwards holds the context switches and the share of time spent on a CPU."""
    used: dict[str, Any] = {}
    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.process_time_ns(), time.perf_counter_ns()
    yield used
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF)
    used["switches"] = {
        "voluntary": after.ru_nvcsw - before.ru_nvcsw,
        "involuntary": after.ru_nivcsw - before.ru_nivcsw,
    }
    used["cpu_share"] = cpu / wall


def _memory() -> dict[str, int]:
    """Return resident memory in KiB: now, its peak, and by kind."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    names = {"vm_rss_kib": "VmRSS", "vm_hwm_kib": "VmHWM", "rss_anon_kib": "RssAnon", "rss_file_kib": "RssFile"}
    return {name: int(status[line].split()[0]) for name, line in names.items()}


def _allowed_cpus() -> list[int]:
    """Return the CPUs that any thread of this process may run on, read back from the kernel."""
    return sorted(set().union(*(os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task"))))


if __name__ == "__main__":
    raise SystemExit(main())
