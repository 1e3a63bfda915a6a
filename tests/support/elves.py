"""Small ELF files made of nothing but what a loader looks at, so that no test needs a compiler for the machine."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

MACHINES = {"x86_64": 62, "aarch64": 183}


def elf(
    machine: str = "aarch64",
    *,
    soname: str | None = None,
    needed: Sequence[str] = (),
    requires: Mapping[str, Sequence[str]] | None = None,
    provides: Sequence[str] = (),
    alignment: int = 65536,
) -> bytes:
    """Return the bytes of a shared library with these facts and no code. Addresses equal offsets."""
    strings = bytearray(b"\0")

    def text(word: str) -> int:
        strings.extend(word.encode() + b"\0")
        return len(strings) - 1 - len(word)

    tags = [(1, text(name)) for name in needed] + ([(14, text(soname))] if soname else [])
    wanted = b""
    for number, (library, versions) in enumerate((requires or {}).items(), start=1):
        size = 16 + 16 * len(versions)
        wanted += struct.pack(
            "<HHIII", 1, len(versions), text(library), 16, 0 if number == len(requires or {}) else size
        )
        for index, version in enumerate(versions, start=1):
            wanted += struct.pack("<IHHII", 0, 0, 2, text(version), 0 if index == len(versions) else 16)
    given = b""
    for number, version in enumerate(provides, start=1):
        given += struct.pack("<HHHHIII", 1, 0, number, 1, 0, 20, 0 if number == len(provides) else 28)
        given += struct.pack("<II", text(version), 0)

    at = 64 + 2 * 56
    tags += [(5, at), (10, len(strings))]
    body = bytes(strings)
    if wanted:
        tags += [(0x6FFFFFFE, at + len(body)), (0x6FFFFFFF, len(requires or {}))]
        body += wanted
    if given:
        tags += [(0x6FFFFFFC, at + len(body)), (0x6FFFFFFD, len(provides))]
        body += given
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (0, 0)])
    # Sections: none, the strings, the versions wanted and given. Their own names are all empty.
    rows = [(0, 0, 0, 0, 0), (3, at, len(strings), 0, 0)]
    place = at + len(strings)
    rows += [(0x6FFFFFFE, place, len(wanted), 1, len(requires or {}))] if wanted else []
    rows += [(0x6FFFFFFD, place + len(wanted), len(given), 1, len(provides))] if given else []
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", 0, kind, 0, start, start, size, link, info, 1, 0)
        for kind, start, size, link, info in rows
    )
    total = at + len(body) + len(dynamic) + len(table)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    sections = total - len(table)
    header += struct.pack("<HHIQQQIHHHHHH", 3, MACHINES[machine], 1, 0, 64, sections, 0, 64, 56, 2, 64, len(rows), 1)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, total, total, alignment)
    where = struct.pack("<IIQQQQQQ", 2, 4, at + len(body), at + len(body), 0, len(dynamic), len(dynamic), 8)
    return header + load + where + body + dynamic + table
