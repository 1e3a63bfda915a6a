"""The C library of a bundle: out of the folders of a (fake) compiler, else out of (made-up) packages."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.bench.libraries.test_debs import deb
from tests.support.elves import elf
from tprune.base.errors import WorkFailed
from tprune.bench.libraries import abi, debs, glibc

ARM = abi.named("arm64-v8a")
NAMES = (*glibc.LIBRARIES, ARM.loader)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """This machine is no ARM, has an empty cache and no programs but those of the folder that is returned."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def compiler(machine: Path, folders: list[Path], name: str = "aarch64-linux-gnu-g++") -> None:
    text = f"install: /usr/lib/\nprograms: =/usr/bin\nlibraries: ={':'.join(map(str, folders))}"
    (machine / name).write_text(f"#!/bin/sh\nprintf '{text}\\n'\n", encoding="utf-8")
    (machine / name).chmod(0o755)


def write(folder: Path, names: tuple[str, ...], machine: str = "aarch64") -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(elf(machine, soname=name))
    return folder


def test_the_libraries_of_a_cross_compiler(tmp_path, machine):
    other = write(tmp_path / "other", NAMES, "x86_64")
    first, second = write(tmp_path / "first", NAMES[:3]), write(tmp_path / "second", NAMES)
    compiler(machine, [tmp_path / "absent", other, first, second])
    found = glibc.find(ARM)
    assert found.origin == "aarch64-linux-gnu-g++"
    assert found.files == {name: (first if name in NAMES[:3] else second) / name for name in NAMES}


def test_this_machines_compiler_serves_this_machines_abi(tmp_path, machine):
    compiler(machine, [write(tmp_path / "lib", NAMES)], "g++")
    assert glibc.compiler(ARM) is None
    assert glibc.compiler(abi.named("x86_64")) == str(machine / "g++")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return the files of the one package that is fetched, whatever was asked for, and the architectures asked for."""
    files: dict[str, bytes | str] = {f"./lib/{name}": elf(soname=name) for name in NAMES}
    asked = []

    def fetch(names, architecture, folder):
        asked.append((*names, architecture))
        (folder / "all.deb").write_bytes(deb(files))
        return [folder / "all.deb"]

    monkeypatch.setattr(debs, "fetch", fetch)
    return files, asked


def test_packages_are_fetched_once_when_no_compiler_has_all(tmp_path, machine, packages):
    compiler(machine, [write(tmp_path / "lib", NAMES[:-1])])
    found = glibc.find(ARM)
    assert found.origin == "libc6 2.36-9"
    assert {name: path.read_bytes() for name, path in found.files.items()} == {n: elf(soname=n) for n in NAMES}
    assert glibc.find(ARM) == found
    assert packages[1] == [("libc6", "libstdc++6", "libgcc-s1", "arm64")]


def test_packages_that_lack_a_library(packages):
    files, _ = packages
    del files["./lib/libm.so.6"]
    with pytest.raises(WorkFailed, match="the packages libc6 2.36-9 for arm64 lack libm.so.6"):
        glibc.find(ARM)
