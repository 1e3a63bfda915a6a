"""Shared libraries from Debian packages of another architecture: `debs.fetch(...)`, `debs.libraries(deb, wanted)`.

The packages are downloaded by the user's own apt with its state in a private folder (nothing on the machine changes, no
foreign architecture is added), or from a Debian mirror that the user names. They are read with the standard library:
python-debian is under the GPL and unpacks without limits, and unix-ar has not been maintained since 2019.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import http.client
import io
import lzma
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import urllib.request
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tprune.base.errors import BadInput, WorkFailed

MIRROR = "TPRUNE_DEBIAN_MIRROR"  # "URL" or "URL SUITE", as a line of sources.list has them
SUITE = "stable"
LARGEST = 1 << 28  # bytes of anything fetched or unpacked; libc6 unpacks to 25 MB, a suite's index to 60 MB
LINKS = 8  # symbolic links followed from a library's name to its file
APT = """\
// The user's sources and proxies apply; downloads stay in this folder; hooks of other tools do not run.
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def fetch(packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    """Download packages of an architecture ("arm64") to an empty folder; return their files, in order.

    apt checks signatures and hashes. For a mirror (environment variable TPRUNE_DEBIAN_MIRROR) only hashes are checked;
    https has to guarantee that it is the mirror. Raises WorkFailed.
    """
    mirror = os.environ.get(MIRROR, "").split()
    if mirror:
        return _from_mirror(mirror, packages, architecture, folder)
    if shutil.which("apt-get"):
        return _by_apt(packages, architecture, folder)
    raise WorkFailed(
        f"{' '.join(packages)} for {architecture} are needed and there is no apt-get: install a GNU cross compiler, "
        f'or set {MIRROR} to "URL SUITE" of a Debian mirror'
    )


def control(deb: Path) -> dict[str, str]:
    """Return the one-line fields of a package's control file. Raises WorkFailed if `deb` is not a package."""
    text = _Archive(deb, "control.tar").content("control").decode(errors="replace")
    return dict(re.findall(r"^([A-Za-z-]+): *(.*)$", text, re.MULTILINE))


def libraries(deb: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the content of each wanted library (by file name) in a package; links inside it are followed.

    Raises WorkFailed if the package is damaged or a link leads out of it.
    """
    archive = _Archive(deb, "data.tar")
    paths = {posixpath.basename(path): path for path in sorted(archive.entries, reverse=True)}
    return {name: archive.content(paths[name]) for name in wanted if name in paths}


def _by_apt(packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    state = folder.resolve() / "apt"
    for part in ("lists/partial", "cache/archives/partial", "debs"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    settings = state / "apt.conf"
    settings.write_text(APT.format(architecture=architecture, folder=state), encoding="utf-8")
    apt = ["apt-get", "--config-file", str(settings), "-qq"]
    updated = _call([*apt, "update"], state)
    # An update may fail because of an unrelated source; the download shows whether that matters.
    done = _call([*apt, "download", *packages], state / "debs")
    found = [path for package in packages for path in (state / "debs").glob(f"{package}_*_{architecture}.deb")]
    if done.returncode or len(found) != len(packages):
        errors = re.findall(r"^E: (.*)", done.stderr + updated.stderr, re.MULTILINE) or ["packages are missing"]
        raise WorkFailed(
            f"apt could not fetch {' '.join(packages)} for {architecture}: {errors[0]}; install a GNU cross compiler, "
            f'or set {MIRROR} to "URL SUITE" of a Debian mirror'
        )
    return found


def _call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _from_mirror(mirror: list[str], packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    url, suite, *more = [*mirror, SUITE] if len(mirror) == 1 else mirror
    if more or not url.startswith(("https://", "http://", "file://")):
        raise BadInput(f'{MIRROR}={" ".join(mirror)!r}: must be "URL" or "URL SUITE" with http, https or file')
    url, index = url.rstrip("/"), f"main/binary-{architecture}/Packages.xz"
    release = _get(f"{url}/dists/{suite}/Release").decode(errors="replace")
    listed = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(index)}$", release, re.MULTILINE)
    if listed is None:
        raise WorkFailed(f"{url} lists no {index} with a SHA256 in its suite {suite!r}")
    packed = _get(f"{url}/dists/{suite}/{index}", listed[1])
    text = _inflate(lzma.LZMADecompressor(), packed, index).decode(errors="replace")
    found = []
    for package in packages:
        stanza = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*", text, re.MULTILINE)
        fields = dict(re.findall(r"^(Filename|SHA256): (\S+)$", stanza[0], re.MULTILINE)) if stanza else {}
        if len(fields) != 2:
            raise WorkFailed(f"{url} has no {package} for {architecture} in its suite {suite!r}")
        found.append(folder / f"{package}.deb")
        found[-1].write_bytes(_get(f"{url}/{fields['Filename']}", fields["SHA256"]))
    return found


def _get(url: str, digest: str | None = None) -> bytes:
    """Return the content of a URL, checked against its SHA-256; the proxies of the environment apply."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read(LARGEST + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WorkFailed(f"could not fetch {url}: {error}") from None
    if len(data) > LARGEST:
        raise WorkFailed(f"{url} is larger than {LARGEST >> 20} MiB")
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise WorkFailed(f"{url} does not have the SHA-256 that its index gives; the mirror is damaged or half updated")
    return data


class _Archive:
    """The tar archive `member` ("data.tar") of a package, unpacked in memory; nothing is written to disk."""

    def __init__(self, deb: Path, member: str) -> None:
        self.name = deb.name
        for name, data in _members(deb):
            if name.startswith(member):
                data = self._unpacked(data, ending=name[len(member) :])
                with self._reading():
                    self.tar = tarfile.open(fileobj=io.BytesIO(data), mode="r:")
                    self.entries = {_inside(entry.name): entry for entry in self.tar}
                return
        raise WorkFailed(f"{deb.name}: it holds no {member}; it is no Debian package")

    def content(self, path: str) -> bytes:
        """Return the bytes of a regular file; symbolic links inside the archive are followed."""
        at = path
        for _ in range(LINKS):
            entry = self.entries.get(at)
            if entry is None or not (entry.isreg() or entry.issym()) or entry.issparse():
                raise WorkFailed(f"{self.name}: {path} is not a file inside the package")
            if entry.isreg():
                with self._reading():
                    file = self.tar.extractfile(entry)
                    return file.read() if file else b""
            beside = "" if entry.linkname.startswith("/") else posixpath.dirname(at)
            at = _inside(posixpath.join(beside, entry.linkname.lstrip("/")))
        raise WorkFailed(f"{self.name}: {path} is a circle of links")

    def _unpacked(self, data: bytes, ending: str) -> bytes:
        if ending in DECOMPRESSORS:
            return _inflate(DECOMPRESSORS[ending](), data, self.name)
        if ending:
            raise WorkFailed(f"{self.name}: it is packed as {ending}, which the Python standard library cannot read")
        return data

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError) as error:
            raise WorkFailed(f"{self.name}: it is damaged: {' '.join(str(error).split())}") from None


def _members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the members of an `ar` archive."""
    data = deb.read_bytes()
    if data[:8] != b"!<arch>\n":
        raise WorkFailed(f"{deb.name}: it is no Debian package")
    offset = 8
    while offset + 60 <= len(data):
        header = data[offset : offset + 60]
        length = header[48:58].strip()
        if not length.isdigit() or int(length) > len(data) - offset - 60:
            raise WorkFailed(f"{deb.name}: it is cut off or damaged at byte {offset}")
        yield header[:16].decode("latin-1").strip().rstrip("/"), data[offset + 60 : offset + 60 + int(length)]
        offset += 60 + int(length) + int(length) % 2


def _inflate(decompressor: _Decompressor, data: bytes, name: str) -> bytes:
    try:
        unpacked = decompressor.decompress(data, LARGEST + 1)
    except (lzma.LZMAError, zlib.error, OSError, ValueError, EOFError) as error:
        raise WorkFailed(f"{name}: it is damaged: {error}") from None
    if len(unpacked) > LARGEST:
        raise WorkFailed(f"{name}: it unpacks to more than {LARGEST >> 20} MiB")
    if not decompressor.eof:
        raise WorkFailed(f"{name}: it is cut off")
    return unpacked


def _inside(path: str) -> str:
    return posixpath.normpath(path.lstrip("/"))


def _gunzip() -> _Decompressor:
    return zlib.decompressobj(wbits=31)


DECOMPRESSORS = {".xz": lzma.LZMADecompressor, ".gz": _gunzip, ".bz2": bz2.BZ2Decompressor}
