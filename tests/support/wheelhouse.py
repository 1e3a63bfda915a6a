"""A folder of made-up wheels, and pip told by its own settings to know nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def only(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Let pip find wheels in this new folder alone, and the toolkit keep what it unpacks in a new cache beside it."""
    folder.mkdir()
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder))
    patch.setenv("PIP_CONFIG_FILE", "/dev/null")
    patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    return folder


def put(folder: Path, package: str, version: str, tag: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel for any Python and the platform `tag` that holds these files."""
    wheel, about = folder / f"{package}-{version}-py3-none-{tag}.whl", f"{package}-{version}.dist-info"
    facts = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n".encode(),
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, **facts}.items():
            archive.writestr(name, content)
    return wheel
