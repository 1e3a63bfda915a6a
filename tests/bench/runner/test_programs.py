"""Our runner for another machine: found, built by a fake CMake, or what is missing for it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

from tprune.base.errors import WorkFailed
from tprune.bench.libraries import abi, wheels
from tprune.bench.runner import build as programs
from tprune.bench.runner import contract as runner

ARM, INTEL = abi.named("arm64-v8a"), abi.named("x86_64")


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    """Return a folder as the runner's source on an x86-64 machine without any tool."""
    (tmp_path / "android_runner").mkdir()
    (tmp_path / "android_runner" / "CMakePresets.json").touch()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(runner, "SOURCE", tmp_path / "android_runner")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "android_runner"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_built_program_is_found(source):
    assert programs.find("onnxruntime", ARM) is None
    there = write(source / "build" / "arm64" / "tprune-ort", "")
    assert programs.find("onnxruntime", ARM) == programs.ensure("onnxruntime", ARM) == there
    assert programs.find("onnxruntime", INTEL) is None
    here = write(source / "build" / "host" / "tprune-ort", "")
    assert programs.ensure("onnxruntime", INTEL) == here


@pytest.mark.parametrize(
    ("inside", "fits"), [("1.5.1\0", True), ("1.5.1+cpu\0", True), ("11.5.1\0", False), ("1.5.11\0", False)]
)
def test_tprune_et_belongs_to_one_release(source, monkeypatch, inside, fits):
    monkeypatch.setattr(metadata, "version", lambda package: "1.5.1")
    there = write(source / "build" / "arm64" / "tprune-et", f"code\0executorch {inside}")
    assert programs.find("executorch", ARM) == (there if fits else None)


def test_what_is_missing(source, tmp_path, monkeypatch):
    with pytest.raises(WorkFailed, match="for arm64-v8a is not built; missing: apt-get install cmake g..-aarch64"):
        programs.ensure("onnxruntime", ARM)
    write(tmp_path / "bin" / "cmake", "")
    write(tmp_path / "bin" / "aarch64-linux-gnu-g++", "")
    assert programs.missing_tools(ARM) == []
    (source / "CMakePresets.json").unlink()
    with pytest.raises(
        WorkFailed, match="no tprune-ort and no source of it .*android_runner.: run tprune from a clone"
    ):
        programs.ensure("onnxruntime", ARM)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(WorkFailed, match="a tprune-ort for x86_64 is built on x86_64 Linux only"):
        programs.ensure("onnxruntime", INTEL)


@pytest.mark.parametrize("runtime", runner.PROGRAMS)
@pytest.mark.parametrize("kind", [ARM, INTEL])
def test_a_missing_one_is_built(source, tmp_path, monkeypatch, runtime, kind):
    monkeypatch.setattr(metadata, "version", lambda package: "1.5.1")
    monkeypatch.setattr(wheels, "files", lambda package, kind: wheels.cache.Entry(tmp_path / kind.name, {}, {}))
    target, chosen = runner.PROGRAMS[runtime], programs.preset(kind)
    for name in ("aarch64-linux-gnu-g++", "c++", "make"):
        write(tmp_path / "bin" / name, "")
    building = f'echo "$@" >>calls\n[ "$1" = --build ] && echo it >"$2/{target}"\nexit 0'
    write(tmp_path / "bin" / "cmake", f"#!/bin/sh\n{building}")
    write(source / "build" / chosen / "tprune-et", "executorch 1.4.0\0")  # of another release
    assert programs.ensure(runtime, kind) == source / "build" / chosen / target
    assert (source / "build" / chosen / target).read_text(encoding="utf-8") == "it\n"
    configured, built = (source / "calls").read_text(encoding="utf-8").splitlines()
    assert f"--preset {chosen} " in configured
    assert (f"-DEXECUTORCH_ROOT={tmp_path}/{kind.name}/executorch" in configured) == (runtime == "executorch")
    assert f"--target {target}" in built


def test_a_program_older_than_its_source_is_not_taken(source):
    program, main = source / "build" / "host" / "tprune-ort", source / "src" / "main.cpp"
    for file in (program, main):
        write(file, "")
    os.utime(main, (1, 1))
    assert runner.find_program("onnxruntime") == program
    os.utime(program, (0, 0))
    assert runner.find_program("onnxruntime") is None
