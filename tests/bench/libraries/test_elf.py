"""Reading ELF files: against files whose facts are known, against binutils, and with every kind of damage."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.elves import elf as made
from tprune.bench.libraries import elf

LIBRARY = made(
    soname="liba.so.1",
    needed=["libc.so.6", "libm.so.6"],
    requires={"libc.so.6": ["GLIBC_2.17", "GLIBC_2.34"], "libm.so.6": ["GLIBC_2.29"]},
    provides=["liba.so.1", "A_1.0", "A_1.2"],
)


def test_the_facts_of_a_library():
    assert elf.parse(LIBRARY, name="liba.so") == elf.Elf(
        machine="aarch64",
        soname="liba.so.1",
        needed=("libc.so.6", "libm.so.6"),
        requires={"libc.so.6": {"GLIBC_2.17", "GLIBC_2.34"}, "libm.so.6": {"GLIBC_2.29"}},
        provides=frozenset({"liba.so.1", "A_1.0", "A_1.2"}),
        alignment=65536,
    )


def test_a_file_without_names_has_no_names(tmp_path):
    (tmp_path / "a").write_bytes(made("x86_64", alignment=0))
    found = elf.read(tmp_path / "a")
    assert (found.machine, found.soname, found.needed, found.alignment) == ("x86_64", None, (), 1)


@pytest.mark.parametrize(
    ("versions", "family", "expected"),
    [
        (["GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.17"], "GLIBC", (2, 34)),
        (["GLIBC_2.4", "GLIBC_2.2.5", "GLIBC_PRIVATE"], "GLIBC", (2, 4)),
        (["GLIBCXX_3.4.29", "GLIBC_2.34"], "GLIBCXX", (3, 4, 29)),
        (["CXXABI_1.3"], "GLIBC", ()),
        (["GLIBC_2.", "GLIBC_" + "9" * 5000, "GLIBC_2.\N{SUPERSCRIPT TWO}"], "GLIBC", ()),
    ],
)
def test_newest(versions, family, expected):
    assert elf.newest(versions, family) == expected


def patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(LIBRARY)
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not a 64-bit little-endian ELF file"),
        (b"\x7fELF\x01\x01" + LIBRARY[6:], "it is not a 64-bit little-endian ELF file"),
        (LIBRARY[:70], "it is cut off or damaged: "),
        (LIBRARY[:-40], "it is cut off or damaged: "),
        (patched(32, "<Q", 2**63), "it is cut off or damaged: "),
        (patched(54, "<H", 32), "its tables of headers have another layout"),
        (patched(54, "<H", 0), "its tables of headers have another layout"),
        (patched(58, "<H", 0), "its tables of headers have another layout"),
        (patched(60, "<H", 65535), "its tables of headers have another layout"),
        (patched(60, "<H", 2), "it has DT_VERNEED and no section for it"),
        (patched(56, "<H", 0), "it has no segment to load"),
        (patched(64 + 16, "<Q", 2**40), "it is cut off or damaged: "),
        (LIBRARY.replace(b"libm.so.6\0", b"libm\xff\xff\xff.6\0"), "it is cut off or damaged: "),
        (LIBRARY.replace(b"libm.so.6\0", b"libm\n\33[1m\0"), "is not short printable ASCII"),
        (made(needed=["x" * 300]), "is not short printable ASCII"),
        (made(provides=[str(n) for n in range(5000)]), "it has more than 4096 dynamic entries or symbol versions"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(data, message):
    with pytest.raises(elf.BadElf, match=f"^liba.so: .*{re.escape(message)}") as caught:
        elf.parse(data, name="liba.so")
    assert "\n" not in str(caught.value)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(LIBRARY) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.data())
def test_mutated_bytes_raise_nothing_else(changes, data):
    mutated = bytearray(LIBRARY)
    for place, value in changes:
        mutated[place] = value
    cut = data.draw(st.integers(0, len(mutated)) | st.just(len(mutated)))
    try:
        found = elf.parse(bytes(mutated[:cut]), name="mutated")
    except elf.BadElf as error:
        assert "\n" not in str(error)
    else:
        assert found.alignment >= 1


def test_a_circle_of_versions_ends():
    data = bytearray(made(provides=["A_1", "A_2"]))
    record = struct.pack("<HHHHIII", 1, 0, 1, 1, 0, 20, 28)
    struct.pack_into("<I", data, data.index(record) + 16, 2**32 - 28)
    with pytest.raises(elf.BadElf, match="cut off or damaged"):
        elf.parse(bytes(data), name="circle")


def test_it_agrees_with_readelf():
    if shutil.which("readelf") is None or sys.platform != "linux":
        pytest.skip("needs readelf (binutils)")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    libraries = sorted(set(re.findall(r"/\S+/lib(?:c|m|stdc\+\+|gcc_s)\.so\.\d+\S*", maps)))
    assert libraries
    for library in libraries:
        found = elf.read(library)
        told = subprocess.run(["readelf", "-dVlW", library], capture_output=True, text=True, check=True).stdout
        assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", told)
        assert [found.soname] == re.findall(r"\(SONAME\).*\[(.*)\]", told)
        assert found.provides == set(re.findall(r"Index: \d+ +Cnt: \d+ +Name: (\S+)", told))
        assert set(found.requires) == set(re.findall(r"Version: 1 +File: (\S+)", told))
        wanted = set(re.findall(r"^ +0x\w+: +Name: (\S+) +Flags", told, re.MULTILINE))
        assert {version for versions in found.requires.values() for version in versions} == wanted
        assert found.alignment == min(int(line.split()[-1], 16) for line in told.splitlines() if " LOAD " in line)
