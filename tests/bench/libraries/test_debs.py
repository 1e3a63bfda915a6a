"""Debian packages: read from made-up ones, fetched from a mirror that is a folder, and by the real apt."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.debs import CONTROL, ar, deb, tar, write_mirror
from tprune.base.errors import BadInput, WorkFailed
from tprune.bench.libraries import debs

FILES: dict[str, bytes | str] = {
    "./lib/aarch64-linux-gnu/libc.so.6": b"the C library",
    "./lib/aarch64-linux-gnu/ld-linux-aarch64.so.1": "../../lib/ld-2.36.so",
    "./lib/ld-2.36.so": b"the loader",
    "./lib/ld-linux-aarch64.so.1": "/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
    "./usr/share/doc/libc6": b"words",
}
PACKAGE = deb(FILES)


@pytest.fixture
def package(tmp_path):
    """Return a function that writes a package to a file."""

    def write(data: bytes) -> Path:
        (tmp_path / "libc6.deb").write_bytes(data)
        return tmp_path / "libc6.deb"

    return write


def test_libraries_are_found_and_links_followed(package):
    wanted = ("libc.so.6", "ld-linux-aarch64.so.1", "libm.so.6")
    found = debs.libraries(package(PACKAGE), wanted)
    assert found == {"libc.so.6": b"the C library", "ld-linux-aarch64.so.1": b"the loader"}


def test_control_fields(package):
    fields = debs.control(package(PACKAGE))
    assert (fields["Package"], fields["Version"], fields["Architecture"]) == ("libc6", "2.36-9", "arm64")


@pytest.mark.parametrize(
    ("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_every_packing_that_python_knows(package, ending, pack):
    data = ar({f"data.tar{ending}": pack(tar({"./a.so": b"a"}))})
    assert debs.libraries(package(data), ["a.so"]) == {"a.so": b"a"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>not found</html>", "libc6.deb: it is no Debian package"),
        (ar({"debian-binary": b"2.0\n"}), "it holds no data.tar; it is no Debian package"),
        (PACKAGE[:-100], "libc6.deb: it is cut off or damaged at byte"),
        (ar({"data.tar.zst": b"zstd"}), "it is packed as .zst, which the Python standard library cannot read"),
        (ar({"data.tar.xz": b"no xz"}), "libc6.deb: it is damaged: "),
        (ar({"data.tar.xz": lzma.compress(tar({}))[:-20]}), "libc6.deb: it is cut off"),
        (ar({"data.tar": b"x" * 600}), "libc6.deb: it is damaged: "),
        (ar({"data.tar": tar({"./libc.so.6": b"a"}).replace(b"0000000001", b"7777777777")}), "libc6.deb: it is"),
        (deb({"./lib/libc.so.6": "../../etc/passwd"}), "lib/libc.so.6 is not a file inside the package"),
        (deb({"./lib/libc.so.6": "/etc/passwd"}), "lib/libc.so.6 is not a file inside the package"),
        (deb({"./lib/libc.so.6": "libc.so.6"}), "is a circle of links"),
        (deb({"./lib/libc.so.6": "libc-2.so", "./lib/libc-2.so": "libc.so.6"}), "is a circle of links"),
    ],
)
def test_what_is_wrong_with_a_package_is_one_line(package, data, message):
    with pytest.raises(WorkFailed, match=message) as caught:
        debs.libraries(package(data), ["libc.so.6"])
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(package, monkeypatch):
    monkeypatch.setattr(debs, "LARGEST", 1 << 20)
    with pytest.raises(WorkFailed, match="it unpacks to more than 1 MiB"):
        debs.libraries(package(ar({"data.tar.xz": lzma.compress(bytes(2 << 20))})), ["libc.so.6"])


PLAIN = ar({"control.tar": tar({"./control": CONTROL}), "data.tar": tar(FILES)})  # unpacked, so that damage gets inside


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_bytes_raise_nothing_else(tmp_path_factory, changes):
    mutated = bytearray(PLAIN)
    for place, value in changes:
        mutated[place] = value
    file = tmp_path_factory.getbasetemp() / "mutated.deb"
    file.write_bytes(mutated)
    for read in (lambda: debs.libraries(file, ["libc.so.6", "ld-linux-aarch64.so.1"]), lambda: debs.control(file)):
        try:
            read()
        except WorkFailed as error:
            assert "\n" not in str(error)


# fetching


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Return a folder that is a mirror with one package, named to the toolkit by its URL."""
    place = write_mirror(tmp_path / "mirror", {"libc6-dev": b"", "libc6": PACKAGE, "libc6-dbg": b""})
    (tmp_path / "out").mkdir()
    monkeypatch.setenv(debs.MIRROR, place.as_uri())
    return place


def fetch(tmp_path: Path, package: str = "libc6") -> list[Path]:
    return debs.fetch([package], "arm64", tmp_path / "out")


def test_a_package_from_a_mirror(tmp_path, mirror):
    (found,) = fetch(tmp_path)
    assert found.read_bytes() == PACKAGE


@pytest.mark.parametrize("suite", ["sid", "stable main"])
def test_a_suite_that_is_not_there(tmp_path, mirror, monkeypatch, suite):
    monkeypatch.setenv(debs.MIRROR, f"{mirror.as_uri()} {suite}")
    with pytest.raises(WorkFailed if suite == "sid" else BadInput, match='could not fetch file:|must be "URL"'):
        fetch(tmp_path)


def test_a_package_that_is_not_there(tmp_path, mirror):
    with pytest.raises(WorkFailed, match="has no libc7 for arm64 in its suite 'stable'"):
        fetch(tmp_path, "libc7")


@pytest.mark.parametrize("file", ["pool/libc6.deb", "dists/stable/main/binary-arm64/Packages.xz"])
def test_a_damaged_mirror_is_found_by_its_hashes(tmp_path, mirror, file):
    data = (mirror / file).read_bytes()
    (mirror / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WorkFailed, match=f"{file} does not have the SHA-256 that its index gives"):
        fetch(tmp_path)


def test_an_index_without_hashes_is_refused(tmp_path, mirror):
    (mirror / "dists/stable/Release").write_text("Suite: stable\n", encoding="utf-8")
    with pytest.raises(WorkFailed, match="lists no main/binary-arm64/Packages.xz with a SHA256"):
        fetch(tmp_path)


def test_a_server_that_speaks_no_http(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv(debs.MIRROR, f"http://127.0.0.1:{server.getsockname()[1]}/debian")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetching = pool.submit(fetch, tmp_path)
        with server.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"220 mirror ready\r\n")
        with pytest.raises(WorkFailed, match="could not fetch http://127.0.0.1:.*/debian/dists/stable/Release: "):
            fetching.result()


def test_other_kinds_of_url_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(debs.MIRROR, "ftp://mirror/debian")
    with pytest.raises(BadInput, match="TPRUNE_DEBIAN_MIRROR='ftp://mirror/debian': must be"):
        fetch(tmp_path)


def test_neither_apt_nor_mirror(tmp_path, monkeypatch):
    monkeypatch.delenv(debs.MIRROR, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(WorkFailed, match="there is no apt-get: install a GNU cross compiler, or set TPRUNE_DEB"):
        fetch(tmp_path)


def test_apt_fetches_for_another_architecture_and_changes_nothing(tmp_path, mirror, monkeypatch):
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt-get")
    monkeypatch.delenv(debs.MIRROR)
    # apt itself, told by the environment to know one source only: the folder.
    source = tmp_path / "sources.list"
    source.write_text(f"deb [trusted=yes] {mirror.as_uri()} stable main\n", encoding="utf-8")
    settings_file = tmp_path / "apt.conf"
    settings_file.write_text(
        f'Dir::Etc::sourcelist "{source}";\nDir::Etc::sourceparts "/dev/null";\n', encoding="utf-8"
    )
    monkeypatch.setenv("APT_CONFIG", str(settings_file))
    before = subprocess.run(["dpkg", "--print-foreign-architectures"], capture_output=True, text=True, check=True)
    (found,) = fetch(tmp_path)
    assert found.read_bytes() == PACKAGE
    after = subprocess.run(["dpkg", "--print-foreign-architectures"], capture_output=True, text=True, check=True)
    assert after.stdout == before.stdout
