"""The C++ runner for this machine or for another ABI: `build.ensure("onnxruntime", abi)`.

Four places are searched in this order: the clone's own build (`make runner`), the cache, the programs inside the wheel
(`make wheel`), and last a new build, which goes into the cache. A cache entry is named after a hash of the sources, so
that a program of another version is never used. A `tprune-et` works with one release of ExecuTorch only, since the C++
interface of its libraries changes with each release; a program for another release counts as missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tprune.base.errors import WorkFailed
from tprune.bench.libraries import cache, glibc, wheels
from tprune.bench.libraries.abi import ABIS, Abi
from tprune.bench.runner import contract as runner
from tprune.bench.runner.contract import PROGRAMS, wheel
from tprune.bench.runner.fields import one_line

PREBUILT = Path(__file__).with_name("prebuilt")  # one folder for each ABI; only in a wheel from `make wheel`
CROSS = {"arm64-v8a": "arm64"}  # ABI -> CMake preset of its cross compiler
LARGEST = 300_000  # bytes of a program inside a wheel
STARTS = 10  # seconds that a prebuilt program may take to print its version


def find(runtime: str, abi: Abi | None = None) -> Path | None:
    """Return the runner of `runtime` for `abi` (default: this machine) if it exists and fits, without building it."""
    return _in_clone(runtime, abi) or _in_cache(runtime, abi) or _in_wheel(runtime, abi)


def ensure(runtime: str, abi: Abi | None = None) -> Path:
    """Return the runner of `runtime` for `abi` (default: this machine); build it if there is none (half a minute).

    Raises WorkFailed, with what to install, when it cannot be built.
    """
    if found := find(runtime, abi):
        return found
    target, chosen = PROGRAMS[runtime], preset(abi)
    if chosen is None:
        raise WorkFailed(f"{target} for {_name(abi)} can be built only on Linux machines of that kind")
    if not has_source():
        raise WorkFailed(f"{target}: its sources are missing ({runner.SOURCE}): install tprune again")
    if missing := missing_tools(abi):
        names = " ".join(missing)
        raise WorkFailed(f"{target} for {_name(abi)} has to be built, which needs {names}: apt-get install {names}")
    options = []
    if runtime == "executorch":
        options = [f"-DEXECUTORCH_ROOT={wheels.files(runtime, abi).folder / runtime if abi else wheel(runtime)}"]

    def fill(folder: Path) -> dict[str, str]:
        _compile(target, chosen, options, folder)
        return {"preset": chosen}

    return cache.keep("runner", entry(runtime, abi), fill, f"{target}-{_name(abi)}-*").folder / target


def prebuild(folder: Path) -> list[Path]:
    """Write the runners for this machine and for phones, as a wheel holds them; return their files.

    A program for ExecuTorch is included if ExecuTorch is installed. Raises WorkFailed if one cannot be built or is too
    large for a wheel.
    """
    written = []
    for abi in (one for one in ABIS if preset(one)):
        for runtime in filter(_installed, PROGRAMS):
            program = ensure(runtime, abi)
            if program.stat().st_size > LARGEST:
                raise WorkFailed(f"{program}: {program.stat().st_size} bytes; a wheel may hold at most {LARGEST}")
            written.append(folder / abi.name / program.name)
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, written[-1])
    return written


def preset(abi: Abi | None = None) -> str | None:
    """Return the CMake preset that builds for `abi` on this machine, None when there is none."""
    return "host" if abi is None or abi.native else CROSS.get(abi.name)


def has_source() -> bool:
    """Return whether the C++ sources are present."""
    return (runner.SOURCE / "CMakePresets.json").is_file()


def missing_tools(abi: Abi | None = None) -> list[str]:
    """Return the programs that a build for `abi` needs and this machine lacks, as names of Debian packages."""
    if abi is None or abi.native:
        compiler = os.environ.get("CXX") or "c++"
        wanted = {"cmake": ("cmake",), "g++": (compiler, "g++", "clang++"), "make": ("make", "ninja")}
        return [package for package, names in wanted.items() if not any(map(shutil.which, names))]
    tools = {"cmake": shutil.which("cmake"), f"g++-{abi.triple}": glibc.compiler(abi)}
    tools["make"] = shutil.which("make") or shutil.which("ninja")
    return [package for package, found in tools.items() if not found]


def entry(runtime: str, abi: Abi | None = None) -> str:
    """Return the name of the cache entry of a runner built from the present sources for the installed engine."""
    digest = hashlib.sha256("-".join(platform.libc_ver() if abi is None or abi.native else ()).encode())
    for file in _sources():
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    if runtime == "executorch":
        digest.update(wheels.installed(runtime).encode())
    return f"{PROGRAMS[runtime]}-{_name(abi)}-{digest.hexdigest()[:12]}"


def _sources() -> list[Path]:
    top = [runner.SOURCE / "CMakeLists.txt", runner.SOURCE / "CMakePresets.json"]
    below = [file for folder in ("src", "toolchains") for file in sorted((runner.SOURCE / folder).glob("*"))]
    return [file for file in (*top, *below) if file.is_file()]


def _name(abi: Abi | None) -> str:
    """Return the name of `abi`; this machine's may be one that no bundle can be made for."""
    native = next((one.name for one in ABIS if one.native), f"{platform.system()}-{platform.machine()}")
    return abi.name if abi else native


def _in_clone(runtime: str, abi: Abi | None) -> Path | None:
    program = runner.SOURCE / "build" / (preset(abi) or "none") / PROGRAMS[runtime]
    if not program.is_file():
        return None
    built = program.stat().st_mtime
    stale = any(file.stat().st_mtime > built for file in (runner.SOURCE / "src").glob("*"))
    return program if not stale and _fits(program, runtime) else None


def _in_cache(runtime: str, abi: Abi | None) -> Path | None:
    found = cache.find("runner", entry(runtime, abi)) if _installed(runtime) else None
    return found.folder / PROGRAMS[runtime] if found else None


def _in_wheel(runtime: str, abi: Abi | None) -> Path | None:
    program = PREBUILT / _name(abi) / PROGRAMS[runtime]
    if not program.is_file() or not _fits(program, runtime):
        return None
    here = abi is None or abi.native
    return program if not here or _starts(program, runtime) else None


def _fits(program: Path, runtime: str) -> bool:
    """Return whether a program is for the installed release of its engine; any release of ONNX Runtime will do."""
    if runtime != "executorch":
        return True
    if not _installed(runtime):
        return False
    release = re.escape(f"executorch {wheels.installed(runtime)}".encode())  # .ident of engine_et.cpp
    return re.search(release + rb"(\+\w+)?\0", program.read_bytes()) is not None


def _installed(runtime: str) -> bool:
    return runtime != "executorch" or wheels.is_installed(runtime)


@functools.cache
def _starts(program: Path, runtime: str) -> bool:
    """Return whether a prebuilt program starts here; it may need newer C and C++ libraries than this machine has."""
    try:
        environment = runner.host_environment(runtime)
        command = [str(program), "--version"]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=STARTS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _compile(target: str, chosen: str, options: list[str], folder: Path) -> None:
    """Build `target` by a preset in a temporary folder and copy the program to `folder`."""
    with tempfile.TemporaryDirectory(prefix="tprune-build-") as work:
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        for command in (
            ["cmake", "--preset", chosen, "-B", work, *generator, *options],
            ["cmake", "--build", work, "--target", target, "--parallel", str(len(os.sched_getaffinity(0)))],
        ):
            done = subprocess.run(
                command, cwd=runner.SOURCE, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
            )
            if done.returncode:
                words = (done.stderr + done.stdout).splitlines()
                said = one_line(next((line for line in words if "error" in line.lower()), words[-1] if words else ""))
                again = f"cmake --preset {chosen} -B FOLDER"
                raise WorkFailed(f"building {target} failed: {said}; to see all, run `{again}` in {runner.SOURCE}")
        shutil.copy2(Path(work) / target, folder / target)


if __name__ == "__main__":  # python -m tprune.bench.runner.build FOLDER: what `make wheel` needs
    try:
        sys.stdout.writelines(f"{file} {file.stat().st_size} bytes\n" for file in prebuild(Path(sys.argv[1])))
    except WorkFailed as error:
        sys.exit(str(error))
