"""The runner for 64-bit ARM with the engines' own ARM libraries, in an emulator: the same tokens as Python's here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.exports import export
from tests.support.native import CORTEX_A76, Runner, build, sentences
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import wheels
from tprune.bench.libraries.abi import named
from tprune.bench.phone.bundle import Bundle, assemble
from tprune.bench.runner.build import missing_tools
from tprune.bench.runner.contract import PROGRAMS
from tprune.export.graphs.precision import COMPONENTS
from tprune.export.marian.open import open_translator


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the words that start an ARM program; the default processor of qemu 7 computes int8 wrongly."""
    program = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if program is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    root = tmp_path_factory.mktemp("arm")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CORTEX_A76)
    return (program, "-cpu", "cortex-a76", "-L", str(root))


@pytest.fixture(scope="module", params=PROGRAMS)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(runtime: str) -> Bundle:
    if shutil.which("aarch64-linux-gnu-g++") is None or missing_tools():
        pytest.skip("needs cmake and aarch64-linux-gnu-g++ (Debian: cmake g++-aarch64-linux-gnu)")
    try:
        options = []
        if runtime == "executorch":
            options = [f"-DEXECUTORCH_ROOT={wheels.files(runtime, named('arm64-v8a')).folder / runtime}"]
        build("arm64", PROGRAMS[runtime], *options)
        return assemble("arm64-v8a", runtime)
    except (BadInput, WorkFailed) as error:
        pytest.skip(f"no bundle: {error}")


@pytest.fixture(scope="module")
def artefact(runtime: str, tiny_config, tiny_tokenizer_folder: Path, tmp_path_factory) -> Path:
    return export(runtime, tiny_config(), tiny_tokenizer_folder, tmp_path_factory.mktemp(runtime) / "artefact")


@pytest.fixture
def runner(bundle: Bundle, qemu: tuple[str, ...], tmp_path: Path) -> Runner:
    *loader, program = bundle.command(str(bundle.folder), str(bundle.folder))
    return Runner(Path(program), tmp_path, before=(*qemu, *loader), environment={})


def test_tokens(runner: Runner, artefact: Path) -> None:
    opened, given = open_translator(artefact), sentences(112, 4, longest=8)
    called = runner.translate(artefact, given, "--nonce", "n", "--passes", 2)
    assert called.ids == [opened.greedy(ids).ids for ids in given]
    assert called.report["build"]["arch"] == "aarch64"
    assert called.report["machine"]["uname"].endswith("aarch64")
    assert int(called.report["machine"]["hwcap"], 16) & 2  # asimd
    assert runner.translate(artefact, given, "--beams", 3).ids == [opened.beam(ids, 3) for ids in given]


def test_int8_tokens(runner: Runner, runtime: str, tiny_config, tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    artefact = export(runtime, tiny_config(), tiny_tokenizer_folder, tmp_path / "int8", int8=COMPONENTS)
    opened, given = open_translator(artefact), sentences(112, 4, longest=8)
    assert runner.translate(artefact, given).ids == [opened.greedy(ids).ids for ids in given]


def test_threads(runner: Runner, artefact: Path) -> None:
    assert runner.translate(artefact, [[5, 6, 0]], "--threads", 2).report["threads"]["got"] >= 2


def test_failure(runner: Runner, artefact: Path) -> None:
    runner.translate(artefact, [[5000, 0]]).check_failed(1, "cannot run")
    runner.translate(artefact, [[5] * 65]).check_failed(2, "more than 64 token ids")
