"""`Process`: a worker in a process of its own, asked and answering in JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.worker import PROTOCOL
from tprune.errors import WorkFailed

COMMAND = (sys.executable, "-m", "bench.worker")


class WorkerFailed(WorkFailed):
    """A worker died or answered that it could not; the message is one line."""


class Process:
    """A running worker; use it in a `with` block, which ends it however the block ends."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start `command` (an argv list); raises WorkerFailed when it cannot start or speaks another protocol."""
        root = str(Path(__file__).resolve().parents[1])  # `-m bench.worker` must work from a source tree as well
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                encoding="utf-8",
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C is for the benchmark alone; it then ends its workers
            )
        except OSError as error:
            self._stderr.close()
            raise WorkerFailed(f"cannot start {command[0]!r}: {error.strerror}") from None
        try:
            hello = self._receive()
            if hello.get("protocol") != PROTOCOL:
                raise WorkerFailed(f"the worker speaks protocol {hello.get('protocol')!r}, this benchmark {PROTOCOL}")
        except BaseException:
            self.end()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer; WorkerFailed when the worker says no or dies."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request, separators=(",", ":")) + "\n")
            self._process.stdin.flush()
        except OSError:  # the pipe is broken: reading finds out how the process ended
            return self._receive()
        return self._receive()

    def end(self) -> None:
        """End the process, gently when it is idle and by force when it is not; safe to call again."""
        self._process.kill() if self._process.poll() is None else None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was still buffered for a dead process
        self._stderr.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise WorkerFailed(str(answer.get("error")))
        return answer

    def _last_words(self) -> str:
        """Say in one line how the process ended, with the last line that it wrote on stderr."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the worker closed its output but did not end"
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"the worker {how}" + (f": {lines[-1].strip()[:300]}" if lines else "")
