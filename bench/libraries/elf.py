"""What a 64-bit ELF file needs from the place where it is to run, read with pyelftools: `elf.read(path).needed`.

Files may be damaged or hostile: whatever the bytes are, `read` returns an Elf or raises BadElf.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from tprune.base.errors import WorkFailed

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
VERSIONS = {"DT_VERNEED": GNUVerNeedSection, "DT_VERDEF": GNUVerDefSection}
ENTRIES = 4096  # more headers, dynamic entries or symbol versions than any real library has
NAME = 256  # bytes of the longest name


class BadElf(WorkFailed):
    """A file that is not the 64-bit little-endian ELF it should be; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Elf:
    """The facts of an executable or shared library that decide whether it can be loaded."""

    machine: str  # "aarch64", "x86_64", or pyelftools' name of another one
    soname: str | None
    needed: tuple[str, ...]  # names of the libraries it is linked to
    requires: Mapping[str, frozenset[str]]  # library -> symbol versions that it must provide
    provides: frozenset[str]  # symbol versions that it provides itself
    alignment: int  # bytes, the smallest of its LOAD segments


def read(path: Path | str) -> Elf:
    """Return the facts of an ELF file. Raises BadElf, and OSError when it cannot be read at all."""
    return parse(Path(path).read_bytes(), name=Path(path).name)


def parse(data: bytes, *, name: str) -> Elf:
    """Return the facts of the bytes of an ELF file; `name` is for the message of BadElf."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise BadElf(f"{name}: it is not a 64-bit little-endian ELF file")
    try:
        return _facts(ELFFile(io.BytesIO(data)))
    except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever they please inside pyelftools
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadElf(f"{name}: it is cut off or damaged: {what}") from None


def newest(versions: Iterable[str], family: str) -> tuple[int, ...]:
    """Return the newest number of a family of symbol versions: (2, 34) of "GLIBC_2.17", "GLIBC_2.34"; () of none."""
    pattern = re.compile(rf"{re.escape(family)}_(\d{{1,4}}(?:\.\d{{1,4}}){{1,3}})", re.ASCII)
    found = (pattern.fullmatch(version) for version in versions)
    return max((tuple(map(int, match[1].split("."))) for match in found if match), default=())


def _facts(file: ELFFile) -> Elf:
    for part, size in (("ph", 56), ("sh", 64)):
        if file[f"e_{part}num"] and (file[f"e_{part}entsize"] != size or file[f"e_{part}num"] > ENTRIES):
            raise ValueError("its tables of headers have another layout")
    segments = [file.get_segment(index) for index in range(file["e_phnum"])]
    loads = [segment["p_align"] for segment in segments if segment["p_type"] == "PT_LOAD"]
    if not loads:
        raise ValueError("it has no segment to load")
    dynamic = next((segment for segment in segments if isinstance(segment, DynamicSegment)), None)
    tags = _few(dynamic.iter_tags()) if dynamic else []
    kinds = {tag["d_tag"] for tag in tags}
    sections = [file.get_section(index) for index in range(file["e_shnum"])] if kinds & VERSIONS.keys() else []
    for kind, section in VERSIONS.items():  # the loader reads the tags, pyelftools the sections that describe the same
        if kind in kinds and not any(isinstance(one, section) for one in sections):
            raise ValueError(f"it has {kind} and no section for it")
    wanted = _few(_versions(one for one in sections if isinstance(one, GNUVerNeedSection)))
    given = _few(_versions((one for one in sections if isinstance(one, GNUVerDefSection)), own=True))
    requires: dict[str, set[str]] = {}
    for library, version in wanted:
        requires.setdefault(_name(library), set()).add(_name(version))
    return Elf(
        machine=MACHINES.get(file["e_machine"], str(file["e_machine"])),
        soname=next((_name(tag.soname) for tag in tags if tag["d_tag"] == "DT_SONAME"), None),
        needed=tuple(_name(tag.needed) for tag in tags if tag["d_tag"] == "DT_NEEDED"),
        requires={library: frozenset(versions) for library, versions in requires.items()},
        provides=frozenset(_name(version) for _, version in given),
        alignment=max(min(loads), 1),
    )


def _versions(sections: Iterable[Any], *, own: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (library, version) pairs; of `own` versions the first name only, since the others are its parents."""
    for section in sections:
        for version, names in section.iter_versions():
            for one in islice(names, 1 if own else None):
                yield version.name, one.name


def _few(items: Iterator[Any]) -> list[Any]:
    found = list(islice(items, ENTRIES + 1))
    if len(found) > ENTRIES:
        raise ValueError(f"it has more than {ENTRIES} dynamic entries or symbol versions")
    return found


def _name(text: str) -> str:
    if not text.isascii() or not text.isprintable() or len(text) > NAME:
        raise ValueError("a name in its string table is not short printable ASCII")
    return text
