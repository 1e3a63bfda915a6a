"""`tprune doctor`: it tells what is missing on poor machines, never fails over it, and changes nothing."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import socket
import subprocess
import sys
from importlib import metadata

import pytest
from rich.console import Console

from tests.support.command import contents, tprune
from tprune.base import processor
from tprune.base.errors import WorkFailed
from tprune.base.processor import Processor
from tprune.bench import doctor
from tprune.bench.doctor import Need, Step
from tprune.bench.libraries import glibc
from tprune.bench.phone import adb
from tprune.bench.runner import build
from tprune.bench.runner import contract as runner

NAMES = ["prune", "export-onnx", "export-executorch", "bench-host", "bench-adb", "device-double"]


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """This machine has no programs, an empty cache and no settings of adb; return the folder of its programs."""
    for name in [name for name in os.environ if name.startswith(("ADB", "ANDROID", "TPRUNE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runner, "SOURCE", tmp_path / "android_runner")
    (tmp_path / "android_runner").mkdir()
    (tmp_path / "android_runner" / "CMakePresets.json").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(doctor, "SECONDS", 120)  # a busy machine is slow to start even a script
    return tmp_path / "bin"


def program(folder, name, script=""):
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_it_looks_at_every_step():
    found = tprune("doctor", "--json").json
    assert [step["step"] for step in found["steps"]] == NAMES
    assert found["steps"][0] == {
        "step": "prune",
        "possible": True,
        "needs": {name: metadata.version(name) for name in ("torch", "transformers", "sentencepiece", "sacrebleu")},
        "mend": None,
    }
    assert {"system", "python", "cores", "disk", "cache"} <= set(found["machine"])


def test_it_tells_what_the_processor_is():
    found = tprune("doctor", "--json").json["machine"]
    own = processor.here()
    assert found["processor"] == own.model
    assert found["instruction_sets"] == list(processor.instruction_sets(own))
    assert found["engines"] == processor.engines(own, os.environ)
    assert found["hazards"] == processor.hazards(own, os.environ)
    assert 0 < found["usable_cpus"] <= found["cores"]
    assert found["busy_cpus"] is None or found["busy_cpus"] >= 0


ZEN3 = Processor("AMD EPYC 7763", "x86_64", frozenset({"sse4_1", "avx", "avx2", "fma"}))


def test_lines_on_the_processor(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "here", lambda: ZEN3)
    monkeypatch.setattr(processor, "quota", lambda: None)
    monkeypatch.setattr(doctor, "busy_cpus", lambda: 1.84)
    _, own, *hazards, busy = doctor.lines(doctor.machine(), [])
    assert own == ("processor: AMD EPYC 7763, sse4.1 avx2; torch avx2, oneDNN AVX2, ONNX Runtime avx2, XNNPACK avx2")
    assert [said[:50] for said in hazards] == [
        "hazard: int8 products saturate at 16 bits here (av", "hazard: oneDNN's AVX2 kernel for strided 1x1 convo",
    ]  # fmt: skip
    assert re.fullmatch(r"busy: other programs keep 1\.8 of \d+ CPUs busy; timings and trainings will be slower", busy)


@pytest.mark.parametrize("busy", [0.25, 0.0, None])
def test_a_calm_machine_whose_processor_is_not_known(monkeypatch, busy):
    monkeypatch.setattr(processor, "here", lambda: Processor("Chip", "riscv64"))
    monkeypatch.setattr(processor, "hazards", lambda *_: [])
    monkeypatch.setattr(doctor, "busy_cpus", lambda: busy)
    (line,) = doctor.lines(doctor.machine(), [])[1:]
    assert line.startswith("processor: Chip, instruction sets unknown; torch default, oneDNN unknown, ONNX Runtime unk")


def test_a_bare_machine_is_no_error_and_stays_as_it_is(bare, tmp_path):
    before = contents(tmp_path)
    steps = {step["step"]: step for step in tprune("doctor", "--json").json["steps"]}
    assert [name for name in NAMES if steps[name]["possible"]] == [
        name
        for name in ("prune", "export-onnx", "export-executorch")
        if name != "export-executorch" or importlib.util.find_spec("executorch")
    ]
    assert steps["bench-host"]["mend"] == "install cmake g++ make (names as in Debian)"
    assert steps["bench-adb"]["mend"].startswith("install adb cmake g++")
    assert contents(tmp_path) == before


def test_a_machine_without_any_package(bare, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    steps = {step["step"]: step for step in tprune("doctor", "--json").json["steps"]}
    assert not any(step["possible"] for step in steps.values())
    assert steps["export-executorch"]["needs"] == {"torch": None, "executorch": None}
    assert steps["export-executorch"]["mend"] == f"{sys.executable} -m pip install torch 'tprune[executorch]'"


def test_an_installed_toolkit_without_its_sources(bare, tmp_path, monkeypatch):
    (tmp_path / "android_runner" / "CMakePresets.json").unlink()
    monkeypatch.setattr(doctor, "DOUBLE", tmp_path / "double")
    steps = {step["step"]: step for step in tprune("doctor", "--json").json["steps"]}
    assert steps["bench-host"]["mend"] == doctor.REINSTALL
    assert steps["device-double"]["needs"]["tests/double"] is None


def test_the_screen_is_one_screen(bare):
    console = Console(width=80, record=True, file=io.StringIO())
    steps = doctor.examine()
    console.print(doctor.table(steps))
    assert len(console.export_text().splitlines()) + len(doctor.lines(doctor.machine(), steps)) <= 40


def test_it_is_quick(monkeypatch):
    """Programs are asked a few questions, and waited for briefly; the rest is looking at files."""
    asked, run = [], subprocess.run

    def told(command, **options):
        asked.append((command[-1], options.get("timeout")))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", told)
    doctor.document(doctor.examine())
    assert len(asked) <= 12
    assert {seconds for word, seconds in asked if word != "-print-search-dirs"} <= {doctor.SECONDS}


@pytest.mark.parametrize(
    ("managers", "command"),
    [
        (["apt-get", "brew"], "apt-get install adb cmake g++-aarch64-linux-gnu"),
        (["dnf"], "dnf install android-tools cmake; install g++-aarch64-linux-gnu by hand"),
        (["brew"], "brew install android-platform-tools cmake; install g++-aarch64-linux-gnu by hand"),
        ([], "install adb cmake g++-aarch64-linux-gnu (names as in Debian)"),
    ],
)
def test_one_command_for_all_that_is_missing(bare, managers, command):
    for name in managers:
        program(bare, name)
    packages = ("adb", "cmake", "g++-aarch64-linux-gnu", "cmake")
    step = Step("step", tuple(Need(name, None, package=name) for name in packages))
    assert step.mend().removeprefix("sudo ") == command


def test_commands_are_joined():
    needs = (
        Need("one", "1.0", python="one"),
        Need("two", None, python="two"),
        Need("three", None, python="three"),
        Need("four", None, advice="do this"),
        Need("five", None, advice="do this"),
    )
    step = Step("step", needs)
    assert step.mend() == f"{sys.executable} -m pip install two three; do this"
    assert step.document()["needs"] == {"one": "1.0", "two": None, "three": None, "four": None, "five": None}


def test_a_step_that_is_needed(bare):
    called = tprune("doctor", "--need", "bench-host")
    assert called.code == 1
    assert "bench-host is not possible here, cmake, g++, make missing: install cmake g++ make" in called.err
    assert (called.out + called.err).count("install cmake g++ make") == 1
    assert tprune("doctor", "--need", "prune").code == 0
    tprune("doctor", "--need", "fly").check_failed(2, "step 'fly': must be one of prune, export-onnx")


def test_require_says_nothing_when_all_is_there():
    doctor.require([Step("step", (Need("one", ""),))])
    with pytest.raises(WorkFailed, match="step is not possible here, two missing: do this"):
        doctor.require([Step("step", (Need("one", ""), Need("two", None, advice="do this")))])


def adb_needs():
    step = doctor.examine("bench-adb")[0].document()
    return {name: step["needs"].get(name, "-") for name in ("adb", "adb server", "phone")}, step["mend"]


DEVICES = 'case "$1" in version) echo "Version 29.0.6-debian";; devices) printf "List of devices attached\\n{}";; esac'


def test_adb_without_a_server_starts_none(bare, monkeypatch):
    program(bare, "adb", f"[ $1 = version ] && echo Version 29.0.6-debian || touch {bare}/called")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        needs, mend = adb_needs()
    assert needs == {"adb": f"29.0.6-debian {bare / 'adb'}", "adb server": None, "phone": "-"}
    assert f"; {bare / 'adb'} start-server; without a cross compiler, set TPRUNE_DEBIAN_MIRROR" in mend
    assert not (bare / "called").exists()


@pytest.mark.parametrize(
    ("listed", "phone", "advice"),
    [
        ("P1\\tdevice model:Pixel\\nP2\\tdevice\\n", "P1, P2", ""),
        ("P1\\tunauthorized\\n", None, "device P1 cannot be used, its state is 'unauthorized': unlock its screen"),
        ("", None, "no Android device is attached: switch on USB debugging"),
    ],
)
def test_phones(bare, monkeypatch, listed, phone, advice):
    program(bare, "adb", DEVICES.format(listed))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:localhost:{server.getsockname()[1]}")
        needs, mend = adb_needs()
    assert needs["phone"] == phone
    assert advice in mend


def test_a_program_that_hangs_or_cannot_run_is_not_waited_for(bare, monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 0.1)
    program(bare, "adb", "exec /bin/sleep 60")
    assert adb_needs()[0]["adb"] == str(bare / "adb")
    (bare / "adb").write_bytes(b"\x7fELF nonsense")
    assert adb_needs()[0]["adb"] == str(bare / "adb")


@pytest.mark.parametrize("told", ["localabstract:adb", "tcp:localhost:99999", "nonsense"])
def test_strange_places_of_a_server(bare, monkeypatch, told):
    program(bare, "adb", DEVICES.format("P1\\tdevice\\n"))
    monkeypatch.setenv("ADB_SERVER_SOCKET", told)
    needs, _ = adb_needs()
    assert needs["phone"] == "P1" or needs["adb server"] is None


@pytest.mark.parametrize(
    ("version", "needed"), [("3.22.1", {"cmake 3.25": None}), ("3.25.1", {"runner": "built when needed"})]
)
def test_a_cmake_that_is_too_old_is_missing(bare, monkeypatch, version, needed):
    program(bare, "cmake", f"echo 'cmake version {version}'")
    for name in ("c++", "make"):
        program(bare, name)
    monkeypatch.setattr(build, "find", lambda runtime, abi: None)
    monkeypatch.delenv("CXX", raising=False)
    step = doctor.examine("bench-host")[0]
    assert {need.name: need.found for need in step.needs if need.name.startswith(("cmake", "runner"))} == needed
    assert ("pip install cmake" in step.mend()) == (version == "3.22.1")


def test_what_can_be_built_or_fetched_is_not_missing(bare, monkeypatch):
    for name in ("apt-get", "cmake", "aarch64-linux-gnu-g++", "adb", "make"):
        program(bare, name)
    monkeypatch.setattr(adb, "choose", lambda *_: None)
    monkeypatch.setattr(glibc, "of_compiler", lambda abi: None)
    monkeypatch.setattr(build, "find", lambda runtime, abi: None)
    needs = doctor.examine("bench-adb")[0].document()["needs"]
    assert (needs["runner"], needs["libraries"]) == ("built when needed", "fetched when needed")


def test_a_runner_of_the_wheel_is_called_prebuilt(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_installed", lambda: ["onnxruntime"])
    for program, found in ((build.PREBUILT / "x86_64" / "tprune-ort", "prebuilt"), (tmp_path / "tprune-ort", "built")):
        monkeypatch.setattr(build, "find", lambda *_, program=program: program)
        assert [need.found for need in doctor._runner(None)] == [found]
