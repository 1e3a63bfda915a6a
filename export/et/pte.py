"""Deduplicate weights in a `.pte` file of ExecuTorch: `fold(program)`.

XNNPACK's weights and the constants of other operators are different segments of the file, so a matrix that is both
embedding and projection is written twice. A segment is an offset and a size, and segments may overlap: `fold` removes
the weight and points its segment to the constant. Field numbers are those of ExecuTorch's program.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ALIGNMENT = 128
"""Alignment of segments and of constants, in bytes."""

_MAGIC, _BASE, _DATA_SIZE = slice(8, 12), 24, 32  # of the header: where segments begin, and their size
_PROGRAM_SEGMENTS, _PROGRAM_CONSTANTS, _PROGRAM_NAMED = 12, 14, 18
_SEGMENT_OFFSET, _SEGMENT_SIZE = 4, 6
_CONSTANTS_SEGMENT, _CONSTANTS_OFFSETS = 4, 6
_NAMED_SEGMENT = 6


@dataclass(frozen=True)
class _Table:
    """A flatbuffer table; the vtable gives the offsets of its fields."""

    buffer: bytearray
    at: int

    def place(self, field: int) -> int:
        """Return the offset of a field; 0 if it has its default and is not written."""
        places = self.at - self._read("<i", self.at)
        offset = self._read("<H", places + field) if field < self._read("<H", places) else 0
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        place = self.place(field)
        return self._read(kind, place) if place else 0

    def follow(self, place: int) -> int:
        return place + self._read("<I", place)

    def elements(self, field: int, size: int) -> Iterator[int]:
        """Yield the offset of every element of a vector."""
        if place := self.place(field):
            start = self.follow(place)
            yield from range(start + 4, start + 4 + size * self._read("<I", start), size)

    def tables(self, field: int) -> list[_Table]:
        return [_Table(self.buffer, self.follow(place)) for place in self.elements(field, 4)]

    def _read(self, kind: str, place: int) -> int:
        (found,) = struct.unpack_from(kind, self.buffer, place)
        return int(found)


def fold(program: bytes) -> bytes:
    """Return `program`, whose constants are aligned to `ALIGNMENT`, without weights that are also constants."""
    if program[_MAGIC] != b"eh00":  # no segments
        return program
    (base,) = struct.unpack_from("<Q", program, _BASE)
    head, data = bytearray(program[:base]), memoryview(program)[base:]
    root = _Table(head, struct.unpack_from("<I", head)[0])
    segments = root.tables(_PROGRAM_SEGMENTS)
    offsets = [segment.number(_SEGMENT_OFFSET, "<Q") for segment in segments]
    contents = [data[o : o + s.number(_SEGMENT_SIZE, "<Q")] for o, s in zip(offsets, segments, strict=True)]
    weights = {entry.number(_NAMED_SEGMENT, "<I") for entry in root.tables(_PROGRAM_NAMED)}
    constants = _Table(head, root.follow(root.place(_PROGRAM_CONSTANTS)))
    first = constants.number(_CONSTANTS_SEGMENT, "<I")
    places = [struct.unpack_from("<Q", head, at)[0] for at in constants.elements(_CONSTANTS_OFFSETS, 8)]
    moved: dict[int, int] = {}
    folded = bytearray()
    for i, content in enumerate(contents):
        found = _find(content, contents[first], places) if i in weights else None
        if found is None:
            folded += bytes(-len(folded) % ALIGNMENT)
            moved[i] = len(folded)
            folded += content
        else:
            moved[i] = moved[first] + found
    for i, segment in enumerate(segments):
        if moved[i] != offsets[i]:
            struct.pack_into("<Q", head, segment.place(_SEGMENT_OFFSET), moved[i])
    struct.pack_into("<Q", head, _DATA_SIZE, len(folded))
    return bytes(head + folded)


def _find(content: memoryview, constants: memoryview, places: list[int]) -> int | None:
    """Return the offset among `places` at which the constants contain `content`, or None."""
    return next((place for place in places if constants[place : place + len(content)] == content), None)
