"""The C and C++ run-time libraries of a bundle, from a GNU compiler's folders or else from Debian packages.

They are assembled on the user's machine and are not part of this toolkit: glibc is licensed under the LGPL, libstdc++
and libgcc under the GPL with the run-time exception.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import WorkFailed
from tprune.bench.libraries import cache, debs, elf
from tprune.bench.libraries.abi import Abi

PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)


@dataclass(frozen=True)
class Glibc:
    """The libraries (name -> file), including the loader, and their origin."""

    files: Mapping[str, Path]
    origin: str


def find(abi: Abi) -> Glibc:
    """Return the libraries for `abi`, downloaded if neither a compiler nor the cache has them. Raises WorkFailed."""
    return of_compiler(abi) or _of_packages(abi)


def compiler(abi: Abi) -> str | None:
    """Return the installed C++ compiler for `abi`: a cross compiler, or this machine's own."""
    for name in (f"{abi.triple}-g++", *(("g++", "c++") if abi.native else ())):
        if found := shutil.which(name):
            return found
    return None


def of_compiler(abi: Abi) -> Glibc | None:
    """Return the libraries that the compiler for `abi` links against, or None if it lacks one."""
    program = compiler(abi)
    if program is None:
        return None
    done = subprocess.run([program, "-print-search-dirs"], capture_output=True, text=True, check=False)
    lists = [line.removeprefix("libraries: =") for line in done.stdout.splitlines() if line.startswith("libraries: =")]
    folders = [Path(folder) for line in lists for folder in line.split(":")]
    found = {name: file for name in (*LIBRARIES, abi.loader) if (file := _first(name, folders, abi))}
    return Glibc(found, Path(program).name) if len(found) == len(LIBRARIES) + 1 else None


def entry(abi: Abi) -> str:
    """Return the name of the cache entry of the libraries from packages."""
    return f"glibc-{abi.name}"


def _of_packages(abi: Abi) -> Glibc:
    def fill(folder: Path) -> dict[str, str]:
        downloads = folder / "download"
        downloads.mkdir()
        versions = []
        for deb in debs.fetch(PACKAGES, abi.debian, downloads):
            for name, content in debs.libraries(deb, (*LIBRARIES, abi.loader)).items():
                (folder / name).write_bytes(content)
            control = debs.control(deb)
            versions.append(f"{control.get('Package')} {control.get('Version')}")
        missing = [name for name in (*LIBRARIES, abi.loader) if not (folder / name).is_file()]
        if missing:
            raise WorkFailed(f"the packages {', '.join(versions)} for {abi.debian} lack {', '.join(missing)}")
        shutil.rmtree(downloads)
        return {"origin": ", ".join(versions)}

    kept = cache.keep("deb", entry(abi), fill)
    return Glibc({name: kept.folder / name for name in kept.files}, kept.facts["origin"])


def _first(name: str, folders: list[Path], abi: Abi) -> Path | None:
    """Return the first file with this name that is for `abi`; a folder may hold another machine's libraries."""
    for folder in folders:
        file = folder / name
        try:
            if elf.read(file).machine == abi.machine:
                return file.resolve()
        except (OSError, elf.BadElf):
            continue
    return None
