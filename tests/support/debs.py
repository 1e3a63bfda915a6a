"""Made-up Debian packages and a mirror of them in a folder."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

DATE = "Thu, 01 Jan 2026 00:00:00 UTC"
CONTROL = b"Package: libc6\nVersion: 2.36-9\nArchitecture: arm64\nDescription: a library\n long text: of it\n"


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar archive; a text instead of bytes is a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """Return an `ar` archive."""
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{'0':<12}{'0':<6}{'0':<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


def deb(files: Mapping[str, bytes | str], control: bytes = CONTROL) -> bytes:
    """Return a package that holds these files."""
    members = {"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(tar({"./control": control}))}
    return ar({**members, "data.tar.xz": lzma.compress(tar(files), preset=0)})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_mirror(place: Path, packages: Mapping[str, bytes], architecture: str = "arm64") -> Path:
    """Write a mirror whose suite `stable` holds the packages (name -> content), and return its folder."""
    index, stanzas = f"main/binary-{architecture}/Packages.xz", []
    files = {f"pool/{name}.deb": content for name, content in packages.items()}
    for name, content in packages.items():
        stanza = f"Package: {name}\nVersion: 2.36-9\nArchitecture: {architecture}\nFilename: pool/{name}.deb\n"
        stanzas.append(f"{stanza}Size: {len(content)}\nSHA256: {sha256(content)}\n")
    text = "\n".join(stanzas).encode()
    # apt looks for the unpacked index, then takes the packed one.
    listed = {index: lzma.compress(text), index.removesuffix(".xz"): text}
    sums = "".join(f" {sha256(data)} {len(data):>8} {name}\n" for name, data in listed.items())
    files[f"dists/stable/{index}"] = listed[index]
    files["dists/stable/Release"] = f"Suite: stable\nDate: {DATE}\nSHA256:\n{sums}".encode()
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place
