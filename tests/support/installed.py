"""Wheels built from a copy of the sources, and installed where nothing of this clone can be imported."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "tprune", "cnn", "export", "bench", "android_runner")
LEFT_OUT = ("__pycache__", "build", "prebuilt")


@dataclass(frozen=True)
class Installed:
    """An environment with tprune in it; the packages of the tests' own environment can be imported too."""

    python: Path

    def run(self, *words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `tprune *words` in `folder`. PATH is empty unless `environment` names another."""
        return self.call(self.python.with_name("tprune"), *words, folder=folder, **environment)

    def call(self, *command: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in `folder`."""
        kept = {name: os.environ[name] for name in ("HOME", "HF_HUB_OFFLINE", "TMPDIR") if name in os.environ}
        kept |= {"PATH": "", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
        return subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def copy_sources(folder: Path) -> Path:
    """Copy what a distribution is made of to the new `folder`."""
    folder.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel of the sources in `source`, without any network."""
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(source: Path, folder: Path) -> Path:
    """Build the source distribution, unpack it, and return the unpacked folder."""
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=source, capture_output=True, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def install(folder: Path, *what: object) -> Installed:
    """Make an environment in `folder` and install `what` into it, without any network."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile", *what)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    shared = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    (Path(own) / "shared.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(shared)), encoding="utf-8")
    return Installed(python)


def pip(python: Path | str, verb: str, *words: object) -> None:
    """Call the tests' own pip for an environment."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, verb, *words]
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}  # setuptools, for an editable install
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
