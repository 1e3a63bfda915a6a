"""The runner, built with AddressSanitizer and UndefinedBehaviorSanitizer, fed with damaged files and arguments.

TPRUNE_FUZZ_COUNT=10000 runs as many as a release should; `android_runner/tests/fuzz.py` does the same by hand.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.native import build
from tprune.bench.runner.contract import SOURCE, host_environment

COUNT = int(os.environ.get("TPRUNE_FUZZ_COUNT", "240"))


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Return android_runner/tests/fuzz.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("runner_fuzz", SOURCE / "tests" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def programs() -> Path:
    """Return the folder of the fuzz programs."""
    build("asan", "tprune-fuzz-ort")
    return build("asan", "tprune-fuzz").parent


def test_no_case_crashes_or_hangs(fuzz: ModuleType, programs: Path, tiny_artefact, tmp_path: Path, monkeypatch) -> None:
    artefact = shutil.copytree(tiny_artefact("onnxruntime"), tmp_path / "artefact")
    monkeypatch.setenv("TPRUNE_ORT_LIBRARY", host_environment("onnxruntime")["TPRUNE_ORT_LIBRARY"])
    monkeypatch.setattr(fuzz, "HANG", 300.0)  # on a busy machine a healthy case may take seconds
    outcome = fuzz.fuzz(COUNT, build=programs, artefact=artefact)
    assert outcome.failures == []
    assert outcome.codes.total() == COUNT
    kinds = {kind for kind, _ in outcome.codes}
    assert kinds == {"manifest", "program", "ids", "npy", "words", "images", "onnx"}
    for code in (0, 1, 2):  # damage that does not matter, that an engine finds, that the runner finds
        assert any(found == code for _, found in outcome.codes)


def test_a_crash_is_noticed(fuzz: ModuleType, tmp_path: Path, monkeypatch) -> None:
    program = tmp_path / "tprune-fuzz"
    program.write_text("#!/bin/sh\nread words\necho broken >&2\nkill -SEGV $$\n")
    program.chmod(0o755)
    (tmp_path / "tprune-fuzz-ort").symlink_to(program)
    outcome = fuzz.fuzz(2, build=tmp_path)
    assert [failure.split(": ", 1)[1] for failure in outcome.failures] == ["crash or hang: broken"] * 2
    program.write_text("#!/bin/sh\nread words\nexec sleep 60\n")
    monkeypatch.setattr(fuzz, "HANG", 0.1)
    assert ["no end after" in failure for failure in fuzz.fuzz(1, build=tmp_path).failures] == [True]


def test_a_wrong_ending_is_noticed(fuzz: ModuleType, tmp_path: Path) -> None:
    assert fuzz.complaint(4, [], tmp_path) == "exit code 4"
    assert fuzz.complaint(1, [], tmp_path) == "exit code 1 with 0 lines"
    assert fuzz.complaint(2, ["tprune-fuzz: a", "b"], tmp_path) == "exit code 2 with 2 lines"
    assert fuzz.complaint(0, [], tmp_path) == "no report"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text('{"ok": true}')
    assert fuzz.complaint(1, ["tprune-fuzz: a"], tmp_path) == "the report says otherwise"
    assert fuzz.complaint(0, [], tmp_path) == ""


def test_a_case_is_always_the_same(fuzz: ModuleType, tmp_path: Path) -> None:
    def files(name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        folder.mkdir()
        fuzz.manifest_case(fuzz.random.Random("0 5"), folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert files("a") == files("b")
