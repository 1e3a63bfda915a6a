"""The finder of the runner: the clone, the cache, the wheel, a build by a fake CMake, or what is missing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

from tprune.base.errors import WorkFailed
from tprune.bench.libraries import abi, cache, wheels
from tprune.bench.runner import build
from tprune.bench.runner import contract as runner

ARM, INTEL = abi.named("arm64-v8a"), abi.named("x86_64")
BUILD = 'echo "$@" >>"$CALLS"\n[ "$1" = --build ] && echo program >"$2/$4"\nexit 0'


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    """Return a made-up android_runner on an x86-64 machine with an empty cache and no tool."""
    folder = tmp_path / "android_runner"
    write(folder / "CMakePresets.json", "{}")
    write(folder / "src" / "main.cpp", "int main() {}")
    os.utime(folder / "src" / "main.cpp", (1, 1))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(runner, "SOURCE", folder)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("CXX", raising=False)
    build._starts.cache_clear()
    (tmp_path / "bin").mkdir()
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def tools(tmp_path: Path, script: str = BUILD) -> None:
    for name in ("cmake", "aarch64-linux-gnu-g++", "c++", "make"):
        write(tmp_path / "bin" / name, f"#!/bin/sh\n{script if name == 'cmake' else ''}\n")


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text(encoding="utf-8").splitlines()


def test_the_clones_own_build_is_taken(source):
    assert build.find("onnxruntime", ARM) is None
    there = write(source / "build" / "arm64" / "tprune-ort", "")
    assert build.find("onnxruntime", ARM) == build.ensure("onnxruntime", ARM) == there
    assert build.find("onnxruntime", INTEL) is None
    here = write(source / "build" / "host" / "tprune-ort", "")
    assert build.ensure("onnxruntime", INTEL) == build.ensure("onnxruntime") == here


def test_a_program_older_than_its_source_is_not_taken(source):
    program = write(source / "build" / "host" / "tprune-ort", "")
    assert build.find("onnxruntime") == program
    os.utime(program, (0, 0))
    assert build.find("onnxruntime") is None


@pytest.mark.parametrize(
    ("inside", "fits"), [("1.5.1\0", True), ("1.5.1+cpu\0", True), ("11.5.1\0", False), ("1.5.11\0", False)]
)
@pytest.mark.parametrize("kind", [ARM, None])
def test_tprune_et_belongs_to_one_release(source, monkeypatch, inside, fits, kind):
    monkeypatch.setattr(metadata, "version", lambda package: "1.5.1")
    folder = source / "build" / ("arm64" if kind else "host")
    there = write(folder / "tprune-et", f"code\0executorch {inside}")
    assert build.find("executorch", kind) == (there if fits else None)


def test_without_executorch_no_program_for_it_fits(source, monkeypatch):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    write(source / "build" / "host" / "tprune-et", "code\0executorch 1.5.1\0")
    assert build.find("executorch") is None


@pytest.mark.parametrize("runtime", runner.PROGRAMS)
@pytest.mark.parametrize("kind", [ARM, INTEL])
def test_a_missing_program_is_built_once_into_the_cache(source, tmp_path, monkeypatch, runtime, kind):
    monkeypatch.setattr(metadata, "version", lambda package: "1.5.1")
    monkeypatch.setattr(wheels, "files", lambda package, kind: wheels.cache.Entry(tmp_path / kind.name, {}, {}))
    tools(tmp_path)
    target, chosen = runner.PROGRAMS[runtime], build.preset(kind)
    write(source / "build" / chosen / "tprune-et", "executorch 1.4.0\0")  # of another release
    before = sorted(source.rglob("*"))
    program = build.ensure(runtime, kind)
    assert program.parent.parent == cache.folder() / "runners"
    assert program.read_text(encoding="utf-8") == "program\n"
    assert build.ensure(runtime, kind) == build.find(runtime, kind) == program
    configured, built = calls(tmp_path)
    assert f"--preset {chosen} " in configured
    assert (f"-DEXECUTORCH_ROOT={tmp_path}/{kind.name}/executorch" in configured) == (runtime == "executorch")
    assert f"--target {target}" in built
    assert sorted(source.rglob("*")) == before  # the source folder may be read-only


def test_the_executorch_program_is_built_against_the_installed_wheel(tmp_path):
    pytest.importorskip("executorch")
    tools(tmp_path)
    build.ensure("executorch")
    assert "-DEXECUTORCH_ROOT=/" in calls(tmp_path)[0]


def test_a_cache_of_other_sources_is_never_used(source, tmp_path):
    tools(tmp_path)
    old = build.ensure("onnxruntime")
    write(source / "src" / "main.cpp", "int main() { return 1; }")
    assert build.find("onnxruntime") is None
    assert build.ensure("onnxruntime") != old
    assert len(calls(tmp_path)) == 4


def test_a_damaged_cache_entry_is_built_again(tmp_path):
    tools(tmp_path)
    program = build.ensure("onnxruntime")
    program.write_text("something else", encoding="utf-8")
    assert build.find("onnxruntime") is None
    assert build.ensure("onnxruntime") == program
    assert program.read_text(encoding="utf-8") == "program\n"


def prebuilt(kind: abi.Abi, script: str = "") -> Path:
    return write(build.PREBUILT / kind.name / "tprune-ort", f"#!/bin/sh\n{script}\n")


def test_a_program_of_the_wheel_is_taken_without_any_tool():
    here, phone = prebuilt(INTEL), prebuilt(ARM, "exit 1")
    assert build.ensure("onnxruntime") == build.find("onnxruntime", INTEL) == here
    assert build.ensure("onnxruntime", ARM) == phone  # cannot be tried here; the bundle checks its symbol versions


@pytest.mark.parametrize("script", ["echo 'GLIBC_2.99 not found' >&2; exit 1", "exec /bin/sleep 60"])
def test_a_program_of_the_wheel_that_does_not_start_here_is_built_instead(tmp_path, monkeypatch, script):
    monkeypatch.setattr(build, "STARTS", 0.5)
    prebuilt(INTEL, script)
    assert build.find("onnxruntime") is None
    with pytest.raises(WorkFailed, match="tprune-ort for x86_64 has to be built, which needs cmake g.. make: apt-get"):
        build.ensure("onnxruntime")
    tools(tmp_path)
    assert build.ensure("onnxruntime").parent.parent == cache.folder() / "runners"


def test_what_is_missing(source, tmp_path, monkeypatch):
    with pytest.raises(WorkFailed, match="tprune-ort for arm64-v8a has to be built, which needs cmake g..-aarch64"):
        build.ensure("onnxruntime", ARM)
    tools(tmp_path)
    assert build.missing_tools(ARM) == build.missing_tools() == []
    (source / "CMakePresets.json").unlink()
    with pytest.raises(WorkFailed, match="tprune-ort: its sources are missing .*android_runner.: install tprune again"):
        build.ensure("onnxruntime", ARM)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(WorkFailed, match="tprune-ort for x86_64 can be built only on Linux machines of that kind"):
        build.ensure("onnxruntime", INTEL)


def test_a_build_that_fails(tmp_path):
    tools(tmp_path, "echo 'fatal error: no such header' >&2; exit 1")
    with pytest.raises(WorkFailed, match="building tprune-ort failed: fatal error: no such header; to see all, run"):
        build.ensure("onnxruntime")
    assert not list((cache.folder() / "runners").glob("*/*"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    tools(tmp_path)
    write(tmp_path / "file", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WorkFailed, match="cache folder .*file.tprune.* cannot be written: .*; set XDG_CACHE_HOME to"):
        build.ensure("onnxruntime")
