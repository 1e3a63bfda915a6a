"""The process that a benchmark times: it opens ONE artefact and answers JSON lines on stdin with JSON lines on stdout.

`python -m bench.worker`. Requests: {"op": "open", "folder", "threads", "cpus"}, {"op": "decode", "sentences",
"max_length", "warmup"}, {"op": "peak"}. An answer has "ok"; where it is false, "error" is one line that says why.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from bench import conditions

PROTOCOL = 1  # the parent refuses a worker that speaks another one

Opener = Callable[..., Any]  # export.runtime.open: (folder, threads=...) -> artefact with .greedy(ids, max_length)


def serve(requests: TextIO, answers: TextIO, opener: Opener | None = None) -> None:
    """Answer every line of `requests` on `answers` until it ends; `opener` is export.runtime.open by default."""
    worker = Worker(opener)
    _answer(answers, {"ok": True, "protocol": PROTOCOL, "pid": os.getpid()})
    for line in requests:
        try:
            _answer(answers, {"ok": True, **worker.do(json.loads(line))})
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the parent must hear of it in one line
            _answer(answers, {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"})


class Worker:
    """One artefact, opened once, and the clock around it."""

    def __init__(self, opener: Opener | None) -> None:
        self._opener = opener
        self._artefact: Any = None
        self._parent = os.getppid()

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and return its answer."""
        operation = request["op"]
        if operation == "open":
            return self._open(request["folder"], request["threads"], request["cpus"])
        if operation == "decode":
            return self._decode(request["sentences"], request["max_length"], request["warmup"])
        if operation == "peak":
            return {"peak_kib": conditions.peak_kib()}
        raise ValueError(f"op {operation!r}; legal are open, decode, peak")

    def _open(self, folder: str, threads: int, cpus: list[int] | None) -> dict[str, Any]:
        if cpus is not None:
            os.sched_setaffinity(0, cpus)  # before the sessions exist: their threads inherit it
        opener = self._opener or _import_runtime()
        base = conditions.peak_kib()
        start = time.perf_counter_ns()
        self._artefact = opener(Path(folder), threads=threads)
        return {"load_ns": time.perf_counter_ns() - start, "base_kib": base}

    def _decode(self, sentences: list[list[int]], max_length: int, warmup: int) -> dict[str, Any]:
        """Time every sentence by itself; `warmup` of them run first, by the same code, and are forgotten."""
        first = 0
        for index in range(warmup):
            took = self._sentence(sentences[index % len(sentences)], max_length)["samples_ns"]
            first = first or took
        gc.collect()
        switches, cpu, wall = _involuntary(), time.process_time_ns(), time.perf_counter_ns()
        timed = [self._sentence(ids, max_length) for ids in sentences]
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        return {
            "first_ns": first or timed[0]["samples_ns"],
            "affinity": conditions.allowed_cpus(),
            "switches": _involuntary() - switches,
            "cpu_share": round(cpu / wall, 3),
            **{name: [sentence[name] for sentence in timed] for name in timed[0]},
        }

    def _sentence(self, ids: list[int], max_length: int) -> dict[str, Any]:
        if os.getppid() != self._parent:  # the benchmark was killed: nobody reads on, and the CPU is not ours any more
            os._exit(1)
        start = time.perf_counter_ns()
        decoded = self._artefact.greedy(ids, max_length)
        took = time.perf_counter_ns() - start
        steps = [int(step) for step in decoded.step_ns]
        return {
            "samples_ns": took,
            "encoder_ns": int(decoded.encoder_ns),
            "step_ns": sum(steps),
            "run_ns": int(decoded.run_ns),
            "steps": len(steps),
            "output_ids": [int(token) for token in decoded.ids],
        }


def _import_runtime() -> Opener:
    """Import the runtime; its own function, so that the import counts neither as loading nor as the model's memory."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from export import runtime  # noqa: PLC0415

    return runtime.open


def _involuntary() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _answer(answers: TextIO, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document, separators=(",", ":")) + "\n")
    answers.flush()


def private_stdout() -> TextIO:
    """Return the real stdout and point file descriptor 1 at stderr, so that no library can print into the protocol."""
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return real


if __name__ == "__main__":
    serve(sys.stdin, private_stdout())
