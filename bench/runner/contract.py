"""The runner's contract in Python: what to ask of it (`Job`), its environment, and its report (`Run`).

    job = Job(nonce="c0ffee", threads=2)
    argv = [build.ensure("onnxruntime"), *job.arguments("onnx/dense", "sentences.ids", "out")]
    run = read_run(Path("out"), job.nonce)

The contract is documented in `android_runner/README.md`. A report is accepted only if it is complete, ok, and has the
nonce of its job.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries.wheels import INSTALL
from tprune.bench.runner.fields import Fields, one_line

SCHEMA = 1
PROGRAMS = {"onnxruntime": "tprune-ort", "executorch": "tprune-et"}
# The C++ sources: beside `bench/` in a clone, and as package data in `tprune/android_runner/` of an installed wheel.
SOURCE = Path(__file__).resolve().parents[2] / "android_runner"
REPORT, OUTPUT = "report.json", "output.ids"
SEQ2SEQ, CLASSIFY = "seq2seq", "classify"  # the tasks that a benchmark gives to the runner
LARGEST = 64 << 20  # bytes of a report or of ids; ten times the output of a long sustained run

Ids = Sequence[Sequence[int]]  # sentences of token ids


class RunFailed(WorkFailed):
    """A run that failed, with its one-line reason; none of its results may be used."""


@dataclass(frozen=True)
class Job:
    """The work of one runner process. The report repeats `nonce`, so that an old report is never accepted.

    The inputs are sentences for the task `seq2seq` and images for `classify`, which ignores `beams` and `max_length`.
    All inputs are run `passes` times, and in further whole passes until `min_ms` milliseconds are reached, each input
    after a rest of `gap_ms`. Before that, at least `warmup` inputs and `warmup_ms` milliseconds are run and discarded.
    `cpus` pins the process; `sample_ms` is the interval at which frequencies and temperatures are read. `weigh` asks
    for peak memory instead of times; it is not passed to the runner (see `tprune.bench.measure.host`).
    """

    nonce: str
    threads: int = 1
    beams: int = 1
    max_length: int | None = None
    warmup: int = 0
    warmup_ms: int = 0
    passes: int = 1
    min_ms: int = 0
    gap_ms: int = 0
    cpus: tuple[int, ...] | None = None
    sample_ms: int = 0
    profile: bool = False
    weigh: bool = False
    task: str = SEQ2SEQ

    def arguments(self, artefact: str, inputs: str, out_dir: str) -> tuple[str, ...]:
        """Return the arguments after the program's name; the three paths are paths on the device."""
        numbers = {
            "--threads": self.threads,
            "--beams": self.beams if self.task == SEQ2SEQ else None,
            "--max-length": self.max_length,
            "--warmup": self.warmup,
            "--warmup-ms": self.warmup_ms,
            "--passes": self.passes,
            "--min-ms": self.min_ms or None,
            "--gap-ms": self.gap_ms,
            "--sample-ms": self.sample_ms,
            "--affinity": None if self.cpus is None else ",".join(map(str, self.cpus)),
        }
        options = [part for flag, value in numbers.items() if value is not None for part in (flag, str(value))]
        given = "--ids" if self.task == SEQ2SEQ else "--images"
        paths = ("--artefact", artefact, given, inputs, "--out-dir", out_dir, "--nonce", self.nonce)
        return (self.task, *paths, *options, *(("--profile",) if self.profile else ()))


@dataclass(frozen=True)
class Run:
    """The report of a successful run. Series have one entry for each input and pass; times are in nanoseconds.

    `output_ids` are those of the first pass. For the task `classify` an input is an image, its only id is the class,
    and the series of the search are empty. `threads` and `affinity` are {"asked", "got"}; `memory` has "start",
    "loaded" and "end", each in KiB; `conditions` has "before", "after" and the list "during".
    """

    nonce: str
    program: str
    runner: str
    engine: Mapping[str, Any]
    build: Mapping[str, Any]
    artefact: str | None
    threads: Mapping[str, int]
    beams: int
    max_length: int | None
    affinity: Mapping[str, list[int] | None]
    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    encoder_ns: tuple[int, ...]
    step_ns: tuple[int, ...]
    run_ns: tuple[int, ...]
    steps: tuple[int, ...]
    output_ids: tuple[tuple[int, ...], ...]
    memory: Mapping[str, Mapping[str, int]]
    switches: Mapping[str, int]
    cpu_share: float
    conditions: Mapping[str, Any]
    machine: Mapping[str, Any]
    profile: str | None
    task: str = SEQ2SEQ


def host_environment(runtime: str) -> dict[str, str]:
    """Return the environment in which this machine's runner finds the engine's libraries of the Python wheel."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    if runtime == "executorch":
        search = [str(wheel("executorch") / "lib"), os.environ.get("LD_LIBRARY_PATH")]
        return {**environment, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, search))}
    libraries = sorted((wheel("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        raise BadInput("the installed onnxruntime has no libonnxruntime.so; install the CPU wheel `onnxruntime`")
    return {**environment, "TPRUNE_ORT_LIBRARY": str(libraries[-1])}


def wheel(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BadInput(f"{package} is not installed here: pip install {INSTALL[package]}")
    return Path(next(iter(found.submodule_search_locations)))


def write_ids(path: Path | str, sentences: Ids) -> None:
    """Write one sentence to a line, as decimal ids separated by single blanks."""
    Path(path).write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sentences), encoding="ascii")


def read_ids(path: Path | str) -> list[list[int]]:
    """Return the sentences of an id file. Raises BadInput, with the number of the line, for anything but ids."""
    try:
        text = _text(Path(path))
    except (OSError, ValueError) as error:
        raise BadInput(f"ids {str(path)!r}: {error}") from None
    sentences = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(" ")
        if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
            raise BadInput(f"ids {str(path)!r} line {number}: {line[:40]!r} is not ids with one blank between them")
        sentences.append([int(word) for word in words])
    return sentences


def read_run(folder: Path, nonce: str) -> Run:
    """Return the run whose report is in `folder`. Raises RunFailed unless it is the complete report for `nonce`."""
    try:
        document = json.loads(_text(folder / REPORT), parse_constant=_no_number)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()  # refuses 1e999 and lone surrogates
        report = Fields(document, "report")
        if report.get("schema") != SCHEMA or report.get("kind") != "run":
            raise ValueError(f"it has schema {report.get('schema')!r}; this version reads {SCHEMA}, and of kind 'run'")
        if report.get("nonce") != nonce:
            raise ValueError(f"it is of another run: its nonce is {report.get('nonce')!r}, not {nonce!r}")
        if report.get("ok") is not True:
            raise RunFailed(one_line(report.get("error") or f"the runner's {REPORT} is not ok and gives no reason"))
        return _run(report, folder)
    except FileNotFoundError:
        raise RunFailed(f"the runner left no {REPORT}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunFailed(one_line(f"the runner's {REPORT} cannot be believed: {error}")) from None


def how_it_ended(code: int, stderr: str) -> str:
    """Return one line on a runner that left no report: its signal or exit code, and its last line on stderr.

    A signal may be given as its negative number (Python) or as 128 plus its number (shell).
    """
    number = -code if code < 0 else code - 128 if code > 128 else 0
    names = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
    how = f"was killed by {names.get(number, f'signal {number}')}" if number else f"ended with exit code {code}"
    words = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"the runner {how}" + (f": {words[-1][:300]}" if words else "")


def _run(found: Fields, folder: Path) -> Run:
    """Return the run that a report describes. Raises ValueError for missing or contradictory fields."""
    outputs, task = Fields(found.get("outputs"), "outputs"), found.text("task")
    if task not in (SEQ2SEQ, CLASSIFY) or outputs.get("ids") != OUTPUT:
        raise ValueError(f"task {task!r}; a benchmark reads {SEQ2SEQ} or {CLASSIFY}, its ids in {OUTPUT}")
    searched = task == SEQ2SEQ
    ids = read_ids(folder / OUTPUT)
    affinity, threads = (Fields(found.get(name), name) for name in ("affinity", "threads"))
    asked = affinity.get("asked")
    run = Run(
        nonce=found.text("nonce"),
        program=found.text("program"),
        runner=found.text("runner"),
        engine=found.object("engine"),
        build=found.object("build"),
        artefact=None if found.get("artefact") is None else found.text("artefact"),
        threads={name: threads.count(name, least=1) for name in ("asked", "got")},
        beams=found.count("beams", least=1) if searched else 1,
        max_length=found.count("max_length", least=2) if searched else None,
        affinity={"asked": None if asked is None else affinity.counts("asked"), "got": affinity.counts("got")},
        load_ns=found.count("load_ns"),
        first_ns=found.count("first_ns"),
        samples_ns=tuple(found.counts("samples_ns", least=1)),
        encoder_ns=tuple(found.counts("encoder_ns")) if searched else (),
        step_ns=tuple(found.counts("step_ns")) if searched else (),
        run_ns=tuple(found.counts("run_ns")),
        steps=tuple(found.counts("steps", least=1)) if searched else (),
        output_ids=tuple(map(tuple, ids)),
        memory={name: _memory(found, name) for name in ("start", "loaded", "end")},
        switches={name: Fields(found.get("switches"), "switches").count(name) for name in ("voluntary", "involuntary")},
        cpu_share=found.share("cpu_share"),
        conditions=_conditions(found.get("conditions")),
        machine=found.object("machine"),
        profile=None if found.get("profile") is None else found.text("profile"),
        task=task,
    )
    _check_lengths(run)
    return run


def _check_lengths(run: Run) -> None:
    parts = ("encoder_ns", "step_ns", "steps") if run.task == SEQ2SEQ else ()
    lengths = {name: len(getattr(run, name)) for name in ("samples_ns", "run_ns", *parts)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"series of different lengths ({lengths})")
    count = lengths["samples_ns"]
    if not run.output_ids or count == 0 or count % len(run.output_ids):
        raise ValueError(f"{count} times for {len(run.output_ids)} translated sentences")
    if run.task == CLASSIFY and any(len(ids) != 1 for ids in run.output_ids):
        raise ValueError("an image has another number of classes than one")
    if any(inside > whole for inside, whole in zip(run.run_ns, run.samples_ns, strict=True)):
        raise ValueError("a sentence spent more time in the engine than it took")


def _memory(found: Fields, when: str) -> dict[str, int]:
    told = Fields(Fields(found.get("memory"), "memory").get(when), f"memory.{when}")
    return {name: told.count(name) for name in ("vm_rss_kib", "vm_hwm_kib", "rss_anon_kib", "rss_file_kib")}


def _conditions(value: object) -> dict[str, Any]:
    told = Fields(value, "conditions")
    during = told.get("during") or []
    if not isinstance(during, list):
        raise ValueError("conditions.during is not a list")
    return {
        "before": _snapshot(told.get("before"), "before"),
        "after": _snapshot(told.get("after"), "after"),
        "during": [_snapshot(one, "during") for one in during],
    }


def _snapshot(value: object, when: str) -> dict[str, Any]:
    """Return frequencies in kHz by CPU and temperatures in milli-degrees by zone, as far as the device reports them."""
    told = Fields(value, f"conditions.{when}")
    found: dict[str, Any] = {}
    for name in ("khz", "zones"):
        if told.get(name) is not None:
            own = Fields(told.get(name), f"conditions.{when}.{name}")
            found[name] = {key: own.integer(key) for key in own.document}
    return found | ({"t_ns": told.count("t_ns")} if told.get("t_ns") is not None else {})


def _text(path: Path) -> str:
    """Return the text of a file written by a device. Raises ValueError if it is larger than any run writes."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"more than {LARGEST >> 20} MiB")
    return data.decode("utf-8")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")
