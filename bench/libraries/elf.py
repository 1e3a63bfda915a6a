"""What a 64-bit ELF file asks of the place where it is to run, read without any tool: `elf.read(path).needed`.

Every offset and count in the file is taken for hostile: whatever the bytes are, `read` returns an Elf or raises BadElf.
Layout: System V gABI chapters 4 and 5; symbol versions: Linux Standard Base, "Symbol Versioning".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import WorkFailed

MACHINES = {62: "x86_64", 183: "aarch64"}
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME = 0, 1, 5, 10, 14
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
ENTRIES = 4096  # more dynamic entries or symbol versions than any real library has, few enough to walk at once
NAME = 256  # bytes of the longest name


class BadElf(WorkFailed):
    """A file that is not the 64-bit little-endian ELF it should be; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Elf:
    """The facts of an executable or shared library that decide whether it can be loaded."""

    machine: str  # "aarch64", "x86_64", or "machine N"
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
    image = _Image(data, name)
    if data[:6] != b"\x7fELF\x02\x01":
        raise image.bad("it is not a 64-bit little-endian ELF file")
    machine = image.unpack("<H", 18)[0]
    segments = image.segments()
    loads = [segment for segment in segments if segment.type == PT_LOAD]
    if not loads:
        raise image.bad("it has no segment to load")
    dynamic = next((segment for segment in segments if segment.type == PT_DYNAMIC), None)
    tags = list(image.tags(dynamic)) if dynamic else []
    table = _Table(image, loads, tags)
    return Elf(
        machine=MACHINES.get(machine, f"machine {machine}"),
        soname=next((table.text(value) for tag, value in tags if tag == DT_SONAME), None),
        needed=tuple(table.text(value) for tag, value in tags if tag == DT_NEEDED),
        requires={library: frozenset(versions) for library, versions in table.requires()},
        provides=frozenset(table.provides()),
        alignment=min(segment.align for segment in loads),
    )


def newest(versions: Iterable[str], family: str) -> tuple[int, ...]:
    """Return the newest number of a family of symbol versions: (2, 34) of "GLIBC_2.17", "GLIBC_2.34"; () of none."""
    pattern = re.compile(rf"{re.escape(family)}_(\d{{1,4}}(?:\.\d{{1,4}}){{1,3}})", re.ASCII)
    found = (pattern.fullmatch(version) for version in versions)
    return max((tuple(map(int, match[1].split("."))) for match in found if match), default=())


@dataclass(frozen=True)
class _Segment:
    type: int
    offset: int
    address: int
    bytes: int
    align: int


@dataclass(frozen=True)
class _Image:
    """The bytes of a file, with every access checked."""

    data: bytes
    name: str

    def bad(self, what: str) -> BadElf:
        return BadElf(f"{self.name}: {what}")

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        if not 0 <= offset <= len(self.data) - struct.calcsize(layout):
            raise self.bad(f"it is cut off or damaged: nothing at byte {offset} of {len(self.data)}")
        return struct.unpack_from(layout, self.data, offset)

    def segments(self) -> list[_Segment]:
        start = self.unpack("<Q", 32)[0]
        size, count = self.unpack("<HH", 54)
        if size != struct.calcsize("<IIQQQQQQ"):
            raise self.bad(f"its program headers are {size} bytes each instead of 56")
        rows = (self.unpack("<IIQQQQQQ", start + size * index) for index in range(count))
        return [_Segment(row[0], row[2], row[3], row[5], max(row[7], 1)) for row in rows]

    def tags(self, dynamic: _Segment) -> Iterator[tuple[int, int]]:
        for index in range(min(dynamic.bytes // 16, ENTRIES)):
            tag, value = self.unpack("<QQ", dynamic.offset + 16 * index)
            if tag == DT_NULL:
                return
            yield tag, value


class _Table:
    """The dynamic section of an image: its strings and its two lists of symbol versions."""

    def __init__(self, image: _Image, loads: list[_Segment], tags: list[tuple[int, int]]) -> None:
        self.image, self.loads, self.values = image, loads, dict(tags)
        self.left = ENTRIES

    def text(self, index: int) -> str:
        """Return the string at `index` of the string table."""
        size = self.values.get(DT_STRSZ, 0)
        start = self.place(DT_STRTAB)
        end = self.image.data.find(b"\0", start + index, start + min(size, index + NAME))
        if index >= size or end < 0:
            raise self.image.bad(f"a name at {index} does not end within its string table of {size} bytes")
        text = self.image.data[start + index : end]
        if not text.isascii() or not text.decode("ascii").isprintable():
            raise self.image.bad(f"a name at {index} of its string table is not printable ASCII")
        return text.decode("ascii")

    def place(self, tag: int) -> int:
        """Return the offset in the file of the table that a tag points to."""
        address = self.values.get(tag)
        if address is None:
            raise self.image.bad("it names things but has no string table")
        for load in self.loads:
            if load.address <= address < load.address + load.bytes:
                return address - load.address + load.offset
        raise self.image.bad(f"address {address:#x} is in none of its segments")

    def requires(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each library that symbol versions are wanted of, with these versions."""
        for at, (_, count, file, aux, _) in self.chain(DT_VERNEED, DT_VERNEEDNUM, "<HHIII"):
            names = [self.text(row[3]) for _, row in self.follow(at + aux, count, "<IHHII")]
            yield self.text(file), names

    def provides(self) -> Iterator[str]:
        """Yield the symbol versions that the library defines; the first name of each, the others are its parents."""
        for at, (_, _, _, count, _, aux, _) in self.chain(DT_VERDEF, DT_VERDEFNUM, "<HHHHIII"):
            yield from (self.text(row[0]) for _, row in self.follow(at + aux, min(count, 1), "<II"))

    def chain(self, table: int, length: int, layout: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        if table in self.values:
            yield from self.follow(self.place(table), self.values.get(length, 0), layout)

    def follow(self, at: int, count: int, layout: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield (offset, fields) of a linked list whose last field is the distance to the next; 0 ends it."""
        for _ in range(count):
            self.left -= 1
            if self.left < 0:
                raise self.image.bad(f"it has more than {ENTRIES} symbol versions")
            row = self.image.unpack(layout, at)
            yield at, row
            if row[-1] == 0:
                return
            at += row[-1]
