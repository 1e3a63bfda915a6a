"""The parts of the double: packages fetched by apt, unpacked and laid out as a device's root; nothing is installed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .missing import Missing

PACKAGES = ("adbd", "mksh", "toybox")
LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = "lib/x86_64-linux-gnu"  # where that loader looks by itself
SOURCES = "$(REPO_URI) $(RELEASE) $(COMPONENT)"  # a line for each index that apt uses here


def cached() -> Path:
    """Return the folder of the device's root as `fetch` laid it out; Missing when it is not there."""
    place = _place()
    if not place.is_dir():
        raise Missing("the device double's parts are not here: python -m tests.double fetch")
    return place


def fetch() -> Path:
    """Fetch the parts unless they are there, and return the folder of the device's root; Missing says why not."""
    place = _place()
    if place.is_dir():
        return place
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Missing(f"the device double needs Linux on x86_64, this is {platform.system()} on {platform.machine()}")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"the device double's parts come through apt, and there is no {tool} here")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        work = Path(name)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        for archive in _download(work / "apt"):
            _run("dpkg-deb", "--extract", str(archive), str(unpacked))
        root = _lay_out(unpacked, work / "root")
        try:
            root.rename(place)
        except OSError:  # somebody else was faster
            if not place.is_dir():
                raise
    return place


def _place() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # another recipe lays out another root
    return cache / "tprune" / "double" / recipe


def _download(folder: Path) -> Iterable[Path]:
    """Download the packages and all that they depend on, down to the C library, whatever is installed here."""
    lines = Path("/etc/os-release").read_text().splitlines()
    system = dict(line.split("=", 1) for line in lines if "=" in line)
    codename = system.get("VERSION_CODENAME", "").strip('"')
    indexes = [line.split() for line in _run("apt-get", "indextargets", "--format", SOURCES).splitlines()]
    here = [(index[0], index[2]) for index in indexes if len(index) == 3 and index[1] == codename]
    if not here:
        raise Missing(f"apt has no source for the release {codename or '(unnamed)'} of this machine")
    mirror, components = here[0][0], " ".join(sorted({component for uri, component in here if uri == here[0][0]}))
    keyring = Path(f"/usr/share/keyrings/{system.get('ID', '')}-archive-keyring.gpg")
    signed = f"[signed-by={keyring}] " if keyring.is_file() else ""
    for sub in ("lists/partial", "cache/archives/partial"):
        (folder / sub).mkdir(parents=True)
    suites = (codename, f"{codename}-backports")  # Debian 12 has adbd in its backports only
    (folder / "sources.list").write_text("".join(f"deb {signed}{mirror} {suite} {components}\n" for suite in suites))
    (folder / "preferences").write_text(f"Package: *\nPin: release n={suites[1]}\nPin-Priority: 500\n")
    (folder / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": folder / "preferences",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",  # apt's own user may not enter our folder
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
    }
    apt = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items()))
    _run(*apt, "update")
    _run(*apt, "--yes", "--download-only", "--no-install-recommends", "install", *PACKAGES)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _lay_out(unpacked: Path, root: Path) -> Path:
    """Copy out of the unpacked packages what the device has: the shell, the tools, adbd, and each one's libraries."""
    binaries, libraries = root / "system" / "bin", root / LIBRARIES
    for folder in (binaries, libraries, root / "lib64", root / "adbd"):
        folder.mkdir(parents=True)
    loader = _first(unpacked, f"lib64/{LOADER}", f"usr/lib64/{LOADER}", f"{LIBRARIES}/{LOADER}")
    shutil.copy(loader, root / "lib64" / LOADER)
    programs = {
        _first(unpacked, "usr/bin/mksh", "bin/mksh"): (binaries / "sh", libraries),
        _first(unpacked, "usr/bin/toybox", "bin/toybox"): (binaries / "toybox", libraries),
        _first(unpacked, "usr/lib/android-sdk/platform-tools/adbd"): (root / "adbd" / "adbd", root / "adbd"),
    }
    path = ":".join(str(unpacked / sub) for sub in (LIBRARIES, f"usr/{LIBRARIES}", f"usr/{LIBRARIES}/android"))
    for program, (copy, folder) in programs.items():
        shutil.copy(program, copy)
        for line in _run(str(loader), "--library-path", path, "--list", str(program)).splitlines():
            name, arrow, found = line.strip().partition(" => ")
            if arrow and "/" not in name:  # the loader lists itself too, by its path
                shutil.copy(found.partition(" (")[0], folder / name)
    tools = _run(str(loader), "--library-path", path, str(_first(unpacked, "usr/bin/toybox", "bin/toybox")))
    for tool in tools.split():
        if not (binaries / tool).exists():
            (binaries / tool).symlink_to("toybox")
    (root / "bin").symlink_to("system/bin")
    return root


def _first(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise Missing(f"the packages of this release have no {names[0]}")


def _run(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise Missing(f"{Path(command[0]).name} ended with {done.returncode} and said: {said[-1]}")
    return done.stdout
