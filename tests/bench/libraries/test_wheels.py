"""Engine libraries out of wheels for another machine, through the real pip and a folder of made-up wheels."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from tests.support import wheelhouse
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256
from tprune.bench.libraries import abi, wheels

ARM = abi.named("arm64-v8a")
VERSION = metadata.version("onnxruntime")
FILES = {
    f"onnxruntime/capi/libonnxruntime.so.{VERSION}": b"the library",
    "onnxruntime/capi/onnxruntime_pybind11_state.so": b"for Python",
    "onnxruntime/__init__.py": b"",
}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Return an empty folder, the only place that pip knows; this machine is of another kind than ARM."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    return wheelhouse.only(tmp_path / "wheels", monkeypatch)


@pytest.mark.parametrize("tag", ["manylinux_2_28_aarch64", "manylinux2014_aarch64"])
def test_the_library_of_the_installed_version_is_files(house, tag):
    wheel = wheelhouse.put(house, "onnxruntime", VERSION, tag, FILES)
    wheelhouse.put(house, "onnxruntime", "999.0", tag, {})
    wheelhouse.put(house, "onnxruntime", VERSION, "manylinux_2_28_x86_64", {})
    found = wheels.files("onnxruntime", ARM)
    assert list(found.files) == [f"onnxruntime/capi/libonnxruntime.so.{VERSION}"]
    assert found.facts == {"origin": f"{wheel.name}, SHA-256 {file_sha256(wheel)}"}
    wheel.unlink()
    assert wheels.files("onnxruntime", ARM) == found  # from the cache


def test_the_installed_files_are_taken_where_they_fit(house, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    found = wheels.files("onnxruntime", ARM)
    assert list(found.files) == [f"onnxruntime/capi/libonnxruntime.so.{VERSION}"]
    assert all(file_sha256(found.folder / name) == digest for name, digest in found.files.items())
    assert found.facts == {"origin": "as installed"}


def test_a_wheel_that_cannot_be_had(house):
    wheelhouse.put(house, "onnxruntime", VERSION, "macosx_14_0_arm64", FILES)
    with pytest.raises(WorkFailed, match=f"pip could not fetch onnxruntime {VERSION} for aarch64: ERROR: .*{VERSION}"):
        wheels.files("onnxruntime", ARM)
    assert not list((house.parent / "cache").rglob("*.whl"))


def test_without_pip(house, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkFailed, match="fetching onnxruntime takes pip, which is not here; run: .*-m ensurepip"):
        wheels.files("onnxruntime", ARM)


def test_an_engine_that_is_not_installed(monkeypatch):
    def absent(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(BadInput, match="onnxruntime is not installed here; run: .*-m pip install onnxruntime"):
        wheels.files("onnxruntime", ARM)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other/a": b""}, "holds no part/; it is not the package it is named after"),
        ({"part/../../up": b""}, "holds 'part/../../up', which leads out of its folder"),
        ({"part/..\\up": b""}, "holds 'part/..\\\\\\\\up', which leads out of its folder"),
    ],
)
def test_a_strange_wheel_is_refused(tmp_path, files, message):
    wheel = wheelhouse.put(tmp_path, "a", "1", "any", files)
    (tmp_path / "in").mkdir()
    with pytest.raises(WorkFailed, match=message):
        wheels.unpack(wheel, tmp_path / "in", ("part/",))
    assert not (tmp_path / "up").exists()


def test_a_wheel_that_grows_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "LARGEST", 3)
    with pytest.raises(WorkFailed, match="unpacks to more than 0 MiB"):
        wheels.unpack(wheelhouse.put(tmp_path, "a", "1", "any", {"part/a": b"1234"}), tmp_path, ("part/",))


def test_a_damaged_wheel_is_one_line(tmp_path):
    wheel = wheelhouse.put(tmp_path, "a", "1", "any", {"part/a": b"1234" * 100})
    data = bytearray(wheel.read_bytes())
    for place in range(0, len(data), 7):
        wheel.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            wheels.unpack(wheel, tmp_path, ("part/",))
        except WorkFailed as error:
            assert "\n" not in str(error)
    wheel.write_bytes(data[:-30])
    with pytest.raises(WorkFailed, match=f"{wheel.name} is damaged: "):
        wheels.unpack(wheel, tmp_path, ("part/",))
