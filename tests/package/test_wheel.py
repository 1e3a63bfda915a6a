"""The wheel and the source distribution, installed without the clone: contents, commands, and what fails how."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.command import write_data
from tests.support.debs import deb, write_mirror
from tests.support.exports import export
from tests.support.installed import ROOT, Installed, build_sdist, build_wheel, copy_sources, install
from tests.support.runs import small_runs  # noqa: F401 - the fixture `small`
from tprune.base.stamp import file_sha256
from tprune.bench.libraries import cache, glibc, wheels
from tprune.bench.libraries.abi import ABIS, named
from tprune.bench.runner import build
from tprune.bench.runner.contract import PROGRAMS

ARM = named("arm64-v8a")
OURS = 'raise SystemExit("a module of the user was imported")\n'


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("source") / "tprune")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist_wheel(source: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return build_wheel(build_sdist(source, folder), folder / "wheel")


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory) -> Installed:
    """An installed wheel without prebuilt runners."""
    return install(tmp_path_factory.mktemp("plain"), wheel)


@pytest.fixture(scope="module")
def prebuilt(source: Path, tmp_path_factory) -> Installed:
    """An installed wheel as `make wheel` makes it, with the ONNX Runtime runners that are built here."""
    there = {one: program for one in ABIS if (program := build.find("onnxruntime", one))}
    if not any(one.native for one in there):
        pytest.skip("needs tprune-ort for this machine: make runner")
    folder = tmp_path_factory.mktemp("prebuilt")
    shutil.copytree(source, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    for one, program in there.items():
        (folder / "source" / "bench" / "runner" / "prebuilt" / one.name).mkdir(parents=True)
        shutil.copy2(program, folder / "source" / "bench" / "runner" / "prebuilt" / one.name)
    return install(folder / "env", build_wheel(folder / "source", folder / "wheel"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder of a user, but for modules that have the names of our folders."""
    for name in ("bench", "cnn", "export"):
        (tmp_path / f"{name}.py").write_text(OURS, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def artefact(tiny_config, tiny_tokenizer_folder, tmp_path_factory) -> Path:
    return export("onnxruntime", tiny_config(), tiny_tokenizer_folder, tmp_path_factory.mktemp("art") / "tiny")


def bench(artefact: Path, place: Path) -> list[object]:
    data = place / "data"
    words = ["bench", artefact, "--data", data if data.exists() else write_data(data), "--limit", 2, "--blocks", 1]
    return [*words, "--warmup", 0, "--out", place / "records.jsonl"]


def records(place: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (place / "records.jsonl").read_text(encoding="utf-8").splitlines()]


def check_failed(done, code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def digests(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as opened:
        return {one.filename: one.CRC for one in opened.infolist() if not one.filename.endswith("/RECORD")}


def test_what_is_in_the_wheel(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = digests(wheel)
    with zipfile.ZipFile(wheel) as opened:
        (top_level,) = (name for name in names if name.endswith(".dist-info/top_level.txt"))
        assert opened.read(top_level).decode().split() == ["tprune"]
    assert {name.partition("/")[0] for name in names} == {"tprune", top_level.partition("/")[0]}
    clone = {"tprune": "tprune", "tprune/bench": "bench", "tprune/cnn": "cnn", "tprune/export": "export"}
    clone |= {f"tprune/android_runner/{part}": f"android_runner/{part}" for part in ("src", "toolchains")}
    wanted = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for inside, folder in clone.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".typed", ".html", ".cpp", ".h", ".cmake", ".j2", ".css", ".js"}
    }
    wanted |= {"tprune/android_runner/CMakeLists.txt", "tprune/android_runner/CMakePresets.json"}
    assert wanted - names.keys() == set()
    assert not [name for name in names if "/tests/" in name or "/build/" in name or "/prebuilt/" in name]


def test_the_source_distribution_builds_the_same_wheel(wheel, sdist_wheel):
    assert digests(sdist_wheel) == digests(wheel)


@pytest.mark.parametrize("made", ["wheel", "sdist_wheel"])
def test_commands_in_an_empty_folder(made, request, place, small, tmp_path_factory):
    ours = install(tmp_path_factory.mktemp("env"), request.getfixturevalue(made))
    assert "bench" in ours.run("--help", folder=place).stdout
    done = ours.call(ours.python, "-m", "tprune", "doctor", "--json", folder=place)
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert steps["prune"]["possible"]
    assert steps["bench-host"]["mend"] == "install cmake g++ make (names as in Debian)"
    done = ours.run("report", small, "--out", place / "report", folder=place)
    assert done.returncode == 0, done.stderr
    assert (place / "report" / "report.html").is_file()
    where = ours.call(ours.python, "-c", "import tprune.bench.doctor as d; print(d.__file__)", folder=place)
    assert Path(where.stdout.strip()).is_relative_to(ours.python.parent.parent)


def test_bench_with_a_runner_of_the_wheel(prebuilt, place, artefact):
    """No compiler, no CMake, no apt, and a cache folder that cannot be written."""
    (place / "file").touch()
    done = prebuilt.run(*bench(artefact, place), folder=place, XDG_CACHE_HOME=str(place / "file"))
    assert done.returncode == 0, done.stderr
    assert {record["loop"] for record in records(place)} == {"runner"}


def test_bench_without_any_compiler(plain, place, artefact):
    done = plain.run(*bench(artefact, place), folder=place)
    assert done.returncode == 0, done.stderr
    assert {record["loop"] for record in records(place)} == {"python"}
    done = plain.run(*bench(artefact, place), "--beams", 2, folder=place)
    check_failed(done, 1, "tprune-ort for .* has to be built, which needs cmake g.. make: apt-get install cmake g")


def test_bench_without_write_access_to_the_cache(plain, place, artefact):
    for name in ("cmake", "c++", "make"):
        (place / "bin").mkdir(exist_ok=True)
        (place / "bin" / name).touch(0o755)
    (place / "file").touch()
    environment = {"PATH": str(place / "bin"), "XDG_CACHE_HOME": str(place / "file")}
    done = plain.run(*bench(artefact, place), "--beams", 2, folder=place, **environment)
    check_failed(done, 1, "cache folder '.*file.tprune' cannot be written: Not a directory; set XDG_CACHE_HOME")


def c_library(place: Path) -> Path:
    """Write a Debian mirror with the C library of the cross compiler that is here."""
    found = glibc.of_compiler(ARM)
    if found is None:
        pytest.skip(f"needs g++-{ARM.triple}")
    files = {f"./usr/lib/{ARM.triple}/{name}": path.read_bytes() for name, path in found.files.items()}
    packages = {name: deb({}) for name in glibc.PACKAGES} | {"libc6": deb(files)}
    return write_mirror(place, packages, ARM.debian)


def test_bench_on_a_phone_without_compiler_and_apt(prebuilt, place, artefact, adb_server, double):
    if build.find("onnxruntime", ARM) is None:
        pytest.skip(f"needs {PROGRAMS['onnxruntime']} for {ARM.name}: make runner")
    if cache.find("wheel", wheels.name("onnxruntime", ARM)) is None:
        pytest.skip("needs the aarch64 wheel of onnxruntime: python -m tprune.bench.phone.bundle arm64-v8a onnxruntime")
    (place / "cache" / "tprune").mkdir(parents=True)
    shutil.copytree(cache.folder() / "wheels", place / "cache" / "tprune" / "wheels")
    environment = {name: value for name, value in adb_server.environment.items() if name.startswith(("ADB", "HOME"))}
    environment["TPRUNE_DEBIAN_MIRROR"] = c_library(place / "mirror").as_uri()
    words = [*bench(artefact, place), "--on", f"adb:{double.serial}", "--adb", adb_server.adb]
    done = prebuilt.run(*words, folder=place, **environment)
    assert done.returncode == 0, done.stderr
    found = records(place)
    assert {record["loop"] for record in found} == {"runner"}
    assert {record["device"]["abi"] for record in found} == {ARM.name}
    (bundle,) = (place / "cache" / "tprune" / "bundles").glob("*/tprune-ort")
    inside = next(prebuilt.python.parents[1].rglob(f"prebuilt/{ARM.name}/tprune-ort"))
    assert file_sha256(bundle) == file_sha256(inside)


def test_a_clone_that_was_moved(source, tmp_path):
    shutil.copytree(source, tmp_path / "old")
    ours = install(tmp_path / "env", "--editable", tmp_path / "old")
    assert ours.run("--help", folder=tmp_path).returncode == 0
    (tmp_path / "old").rename(tmp_path / "new")
    done = ours.call(ours.python, "-m", "tprune", "doctor", folder=tmp_path / "new")
    check_failed(done, 1, r"tprune: tprune\.(bench|cnn|export) is missing; .* moved, install it again: pip install")
    done = ours.run("doctor", folder=tmp_path)  # nothing of ours is left that could say more
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'tprune'"
