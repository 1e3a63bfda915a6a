"""The C++ runner, built here and called: what its tests have in common."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tprune.bench.runner.build import missing_tools
from tprune.bench.runner.contract import SOURCE, host_environment, read_ids, write_ids

Ids = Sequence[Sequence[int]]
WARNINGS_FAIL = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"

# What qemu before 8.1 does not emulate, and ONNX Runtime cannot start without; it must go with -cpu.
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
CORTEX_A76 = f"""processor\t: 0
Features\t: {FEATURES}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0
"""


@functools.cache
def build(preset: str, target: str, *options: str) -> Path:
    """Build one program of a preset as far as it is out of date; the test is skipped where a tool is missing.

    `options` are words for CMake, which it remembers.
    """
    if missing := missing_tools():
        pytest.skip(f"building the runner needs {', '.join(missing)}")
    folder = SOURCE / "build" / preset
    folder.mkdir(parents=True, exist_ok=True)
    generator = ["-G", "Ninja"] if shutil.which("ninja") and not (folder / "CMakeCache.txt").exists() else []
    with (SOURCE / "build" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "--preset", preset, WARNINGS_FAIL, *generator, *options],
            ["cmake", "--build", "--preset", preset, "--parallel", "2", "--target", target],
        ):
            done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / target


@dataclass(frozen=True)
class Called:
    """How a call of the runner ended, and its out-dir."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """The report of a run that went well."""
        assert (self.code, self.err) == (0, ""), self.err
        found = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    @property
    def ids(self) -> list[tuple[int, ...]]:
        """The sentences that came out."""
        assert self.report["ok"]
        return [tuple(ids) for ids in read_ids(self.folder / "output.ids")]

    def check_failed(self, code: int, part: str) -> None:
        """Assert that it ended with `code` and one line on stderr that holds `part`, said in the report too."""
        assert (self.code, self.out) == (code, ""), self.err
        assert self.err.count("\n") == 1 and self.err.startswith("tprune-"), self.err
        assert part in self.err, self.err
        if (self.folder / "report.json").exists():
            report = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
            assert report["ok"] is False
            assert self.err.endswith(f": {report['error']}\n")


@dataclass(frozen=True)
class Runner:
    """A built program, the words to put before it (an emulator) and the environment to start it in."""

    program: Path
    folder: Path  # for whatever its calls leave
    before: tuple[str, ...] = ()
    environment: dict[str, str] | None = None

    def call(self, *words: object, seconds: float = 600) -> Called:
        """Call it; words are taken as they are. What is wanted of its out-dir must be in `folder / "out"`."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = (host_environment("onnxruntime") if self.environment is None else self.environment) | {
            "HOME": str(home)
        }
        environment.pop("ORT_DISABLE_TELEMETRY", None)  # the runner itself must see to that
        done = subprocess.run(
            [*self.before, str(self.program), *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Called(done.returncode, done.stdout, done.stderr, self.folder / "out")

    def translate(self, artefact: Path, sentences: Ids, *words: object) -> Called:
        """Run seq2seq on sentences."""
        write_ids(self.folder / "input.ids", sentences)
        ids = ("--ids", self.folder / "input.ids")
        return self.call("seq2seq", "--artefact", artefact, *ids, "--out-dir", self.folder / "out", *words)


def sentences(vocabulary: int, count: int, seed: int = 3, longest: int = 24) -> list[list[int]]:
    """Return random sentences of many lengths, each with `</s>` (0) at its end."""
    drawn = np.random.default_rng(seed)
    return [[*drawn.integers(2, vocabulary - 1, size=drawn.integers(0, longest)).tolist(), 0] for _ in range(count)]


def copy_artefact(artefact: Path, to: Path) -> Path:
    """Copy what the runner reads of an artefact, to be damaged."""
    to.mkdir()
    document = json.loads((artefact / "manifest.json").read_text(encoding="utf-8"))
    for name in ("manifest.json", *document["files"]):
        shutil.copy(artefact / name, to)
    return to


CPUS = sorted(os.sched_getaffinity(0))
