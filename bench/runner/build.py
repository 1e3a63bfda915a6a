"""Our own runner for any ABI, found where CMake puts it or built: `programs.ensure("onnxruntime", abi)`.

A `tprune-et` belongs to one release of ExecuTorch, since the C++ interface of its libraries changes with each: one of
another release counts as missing.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tprune.base.errors import WorkFailed
from tprune.bench.libraries import glibc, wheels
from tprune.bench.libraries.abi import Abi
from tprune.bench.runner import contract as runner
from tprune.bench.runner.contract import PROGRAMS

CROSS = {"arm64-v8a": "arm64"}  # ABI -> CMake preset of its cross compiler


def preset(abi: Abi) -> str | None:
    """Return the CMake preset that builds for `abi` on this machine, None when there is none."""
    return "host" if abi.native else CROSS.get(abi.name)


def find(runtime: str, abi: Abi) -> Path | None:
    """Return the program for `runtime` when it is built and, where it matters, for the installed release."""
    program = runner.SOURCE / "build" / (preset(abi) or "none") / PROGRAMS[runtime]
    if not program.is_file() or runner.older_than_source(program):
        return None
    return program if _fits(program, runtime) else None


def missing_tools(abi: Abi) -> list[str]:
    """Return the programs that building for `abi` here lacks, by the names of their Debian packages."""
    if abi.native:
        return runner.missing_tools()
    tools = {"cmake": shutil.which("cmake"), f"g++-{abi.triple}": glibc.compiler(abi)}
    return [package for package, found in tools.items() if not found]


def ensure(runtime: str, abi: Abi) -> Path:
    """Return the program for `runtime`; one that is missing is built. Raises WorkFailed with what helps."""
    if found := find(runtime, abi):
        return found
    target, chosen = PROGRAMS[runtime], preset(abi)
    if chosen is None:
        raise WorkFailed(f"a {target} for {abi.name} is built on {abi.machine} Linux only")
    if not (runner.SOURCE / "CMakePresets.json").is_file():
        raise WorkFailed(
            f"no {target} and no source of it ({runner.SOURCE}): run tprune from a clone of its repository"
        )
    if missing := missing_tools(abi):
        raise WorkFailed(f"{target} for {abi.name} is not built; missing: apt-get install {' '.join(missing)}")
    engine = [f"-DEXECUTORCH_ROOT={wheels.files(runtime, abi).folder / runtime}"] if runtime == "executorch" else []
    return runner.build(target, engine, preset=chosen)


def _fits(program: Path, runtime: str) -> bool:
    """Return whether a program is for the installed release of its engine; ONNX Runtime is loaded late, any will do."""
    if runtime != "executorch":
        return True
    release = re.escape(f"executorch {wheels.installed(runtime)}".encode())  # .ident of engine_et.cpp
    return re.search(release + rb"(\+\w+)?\0", program.read_bytes()) is not None
