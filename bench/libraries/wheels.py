"""The engines' libraries for another machine, from their Python packages: `wheels.files("onnxruntime", abi)`.

pip downloads the wheel, so the user's index, mirror, proxy and cache settings apply and the index's hashes are checked.
The version is the installed one: the phone runs the same release that exported the artefact.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
import zlib
from importlib import metadata
from pathlib import Path, PurePosixPath

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256
from tprune.bench.libraries import cache
from tprune.bench.libraries.abi import Abi

INSTALL = {"onnxruntime": "onnxruntime", "executorch": "'tprune[executorch]'"}  # package -> what `pip install` takes

# package -> the needed parts of its wheel: the library alone, or libraries, headers and version to build against.
PARTS = {
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so",),
    "executorch": ("executorch/lib/", "executorch/include/", "executorch/version.py"),
}
GLIBC = range(17, 40)  # the minor versions 2.N of glibc that a wheel may be built for; pip needs each one named
LARGEST = 1 << 29  # bytes unpacked; the needed parts are below 30 MB


def installed(package: str) -> str:
    """Return the installed version of a package. Raises BadInput if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        words = f"{sys.executable} -m pip install {INSTALL.get(package, package)}"
        raise BadInput(f"{package} is not installed here; run: {words}") from None


def is_installed(package: str) -> bool:
    """Return whether a package is installed here."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def name(package: str, abi: Abi) -> str:
    """Return the name of the cache entry of an installed package for `abi`."""
    return f"{package}-{installed(package)}-{abi.name}"


def files(package: str, abi: Abi) -> cache.Entry:
    """Return the needed files of a package for `abi`: the installed ones if they fit, else downloaded into the cache.

    The fact `origin` names their wheel. Raises WorkFailed if pip cannot download it.
    """
    version = installed(package)

    def fill(folder: Path) -> dict[str, str]:
        with tempfile.TemporaryDirectory(dir=folder) as downloads:
            wheel = _download(package, version, abi, Path(downloads))
            unpack(wheel, folder, PARTS[package])
            return {"origin": f"{wheel.name}, SHA-256 {file_sha256(wheel)}"}

    return _of_this_machine(package, abi) or cache.keep("wheel", name(package, abi), fill, f"{package}-*-{abi.name}")


def unpack(wheel: Path, folder: Path, parts: tuple[str, ...]) -> None:
    """Write the members of a wheel whose names begin with one of `parts` to `folder`.

    Raises WorkFailed if there are none, if a name leads out of the folder, or if the archive is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            chosen = [each for each in archive.infolist() if each.filename.startswith(parts) and not each.is_dir()]
            if not chosen:
                raise WorkFailed(f"{wheel.name} holds no {' or '.join(parts)}; it is not the package it is named after")
            if sum(each.file_size for each in chosen) > LARGEST:
                raise WorkFailed(f"{wheel.name} unpacks to more than {LARGEST >> 20} MiB")
            for member in chosen:
                if ".." in PurePosixPath(member.filename).parts or "\\" in member.orig_filename:
                    raise WorkFailed(f"{wheel.name} holds {member.filename!r}, which leads out of its folder")
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
    except WorkFailed:
        raise  # from above; it is a RuntimeError, and so is zipfile's error for an encrypted member
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise WorkFailed(f"{wheel.name} is damaged: {error}") from None


def _of_this_machine(package: str, abi: Abi) -> cache.Entry | None:
    """Return the installed files, if this machine has that ABI and the package lists its files."""
    found = metadata.distribution(package)
    names = [str(file) for file in found.files or () if str(file).startswith(PARTS[package])] if abi.native else []
    folder = Path(str(found.locate_file("")))
    if not names:
        return None
    return cache.Entry(folder, {each: file_sha256(folder / each) for each in names}, {"origin": "as installed"})


def _download(package: str, version: str, abi: Abi, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise WorkFailed(f"fetching {package} takes pip, which is not here; run: {sys.executable} -m ensurepip")
    platforms = [f"manylinux_2_{minor}_{abi.machine}" for minor in GLIBC] + [f"manylinux2014_{abi.machine}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", *(f"--platform={each}" for each in platforms)]
    command += ["--dest", str(folder), f"{package}=={version}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["it gave no wheel"]
        raise WorkFailed(f"pip could not fetch {package} {version} for {abi.machine}: {errors[-1]}")
    return wheels[0]
