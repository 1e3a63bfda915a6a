"""The folder that runs on a phone: the runner, the engine's libraries and a C library, assembled on this machine.

    bundle = assemble("arm64-v8a", "onnxruntime")
    argv = [*bundle.command(), "--version"]    # in that folder, on the device

    python -m tprune.bench.phone.bundle arm64-v8a onnxruntime    # assemble it ahead of time and print its contents

Nothing from the device is used: the bundled loader starts the bundled program with bundled libraries only. The name of
its cache entry is a hash of its parts; `bundle.json` inside it lists the SHA-256 of every file and the versions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256
from tprune.bench.libraries import cache, elf, glibc, wheels
from tprune.bench.libraries.abi import Abi, named
from tprune.bench.runner import build
from tprune.bench.runner.contract import PROGRAMS

LAYOUT = 1  # increased when bundles are assembled in another way, so that older ones are not used
LIMIT = 45_000_000  # bytes of a bundle
LOADED_LATER = {"onnxruntime": ("libonnxruntime.so.1",), "executorch": ()}  # by dlopen; no NEEDED entry names them
STEPS = 3

Progress = Callable[[int, int, str], None]  # (steps done, number of steps, next step)


@dataclass(frozen=True)
class Bundle:
    """A folder that runs on a device without further files."""

    folder: Path
    abi: str
    runtime: str
    id: str  # SHA-256 of the names and contents of its files
    files: Mapping[str, str]  # name -> SHA-256; bundle.json is not among them
    versions: Mapping[str, str]

    def command(self, system: str = ".", folder: str = ".") -> tuple[str, ...]:
        """Return the words that start the program; `folder` is where the bundle lies, seen from the current folder.

        `system` is where its C library lies, the loader among it.
        """
        path = ":".join(dict.fromkeys((folder, system)))
        return (f"{system}/{named(self.abi).loader}", "--library-path", path, f"{folder}/{PROGRAMS[self.runtime]}")


def assemble(abi: str, runtime: str, *, progress: Progress = lambda done, total, what: None) -> Bundle:
    """Return the bundle of `runtime` ("onnxruntime", "executorch") for `abi` ("arm64-v8a", "x86_64").

    Missing parts are downloaded or built; a second process that wants the same bundle waits. Raises BadInput for an
    unknown name or an engine that is not installed, WorkFailed if a part is missing or would not run on the device.
    """
    target = named(abi)
    if runtime not in PROGRAMS:
        raise BadInput(f"runtime {runtime!r}: must be {' or '.join(PROGRAMS)}")
    version = wheels.installed(runtime)
    progress(0, STEPS, "runner")
    program = build.ensure(runtime, target)
    progress(1, STEPS, "C library")
    libc = glibc.find(target)
    progress(2, STEPS, f"{runtime} {version}")
    parts = {"layout": LAYOUT, "runtime": f"{runtime} {version}", "program": file_sha256(program), "libc": libc.origin}
    parts["libraries"] = {name: file_sha256(path) for name, path in libc.files.items()}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    def fill(folder: Path) -> dict[str, str]:
        wheel = wheels.files(runtime, target)
        engine = {path.name: path for path in (wheel.folder / name for name in wheel.files) if ".so" in path.name}
        gather(program, LOADED_LATER[runtime], [*engine.values(), *libc.files.values()], folder, target)
        return {runtime: version, "wheel": wheel.facts["origin"], "libc": libc.origin} | {
            family: ".".join(map(str, elf.newest(elf.read(folder / name).provides, family)))
            for family, name in (("GLIBC", "libc.so.6"), ("GLIBCXX", "libstdc++.so.6"))
        }

    kept = cache.keep("bundle", f"{runtime}-{target.name}-{key}", fill, f"{runtime}-{target.name}-*")
    progress(STEPS, STEPS, "bundle")
    return Bundle(kept.folder, abi, runtime, identity(kept.files), kept.files, kept.facts)


def identity(files: Mapping[str, str]) -> str:
    """Return the id of a set of files; it depends on every name and every byte."""
    return hashlib.sha256("".join(f"{files[name]} {name}\n" for name in sorted(files)).encode()).hexdigest()


def gather(program: Path, also: tuple[str, ...], libraries: list[Path], folder: Path, abi: Abi) -> None:
    """Copy `program`, the libraries `also` (by soname), everything they need from `libraries`, and the loader.

    Raises WorkFailed if one is missing, or if the result would not run on a device with this ABI.
    """
    shelf = {elf.read(path).soname or path.name: path for path in libraries}
    files = {program.name: program}
    asked = [(program.name, abi.loader), *((program.name, name) for name in also)]
    asked += [(program.name, name) for name in elf.read(program).needed]
    while asked:
        user, name = asked.pop()
        if name in files:
            continue
        if "/" in name:
            raise WorkFailed(f"{user} needs {name!r}, a path, which means nothing on a device")
        if name not in shelf:
            raise WorkFailed(f"{user} needs {name}, which neither the engine's package nor the C library has")
        files[name] = shelf[name]
        asked += [(name, needed) for needed in elf.read(shelf[name]).needed]
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
        (folder / name).chmod(0o755)
    check(folder, abi)


def check(folder: Path, abi: Abi) -> None:
    """Raise WorkFailed unless a device with this ABI can load every file of the folder from this folder alone."""
    found = {path.name: elf.read(path) for path in sorted(folder.iterdir())}
    for name, file in found.items():
        if file.machine != abi.machine:
            raise WorkFailed(f"{name} is for {file.machine}, not for {abi.machine}")
        if file.alignment < abi.page:
            raise WorkFailed(f"{name} is aligned to {file.alignment} bytes; {abi.name} needs {abi.page} (16 KiB pages)")
        for library in {*file.needed, *file.requires}:
            if library not in found:
                raise WorkFailed(f"{name} needs {library}, which is not in the bundle")
            lacking = file.requires.get(library, frozenset()) - found[library].provides
            if lacking:
                raise WorkFailed(
                    f"{name} needs {', '.join(sorted(lacking))} of {library}, which the bundled one lacks: build the "
                    "runner on this machine, or take a newer C library"
                )
    total = sum(path.stat().st_size for path in folder.iterdir())
    if total > LIMIT:
        raise WorkFailed(
            f"the bundle is {total / 1e6:.1f} MB; {LIMIT / 1e6:.0f} MB is the most that is pushed to a phone"
        )


def main(words: Sequence[str]) -> None:
    """Assemble the bundle for the given ABI and runtime, and print it as one JSON object."""
    if len(words) != 2:
        raise SystemExit("usage: python -m tprune.bench.phone.bundle ABI RUNTIME")
    try:
        made = assemble(*words)
    except (BadInput, WorkFailed) as error:
        raise SystemExit(str(error)) from None
    document = {"folder": str(made.folder), "id": made.id, "versions": made.versions, "files": made.files}
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
