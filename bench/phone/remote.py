"""`Remote`: our folder on a device. What is kept in it is named by its content; what a run leaves goes with the run.

    l-<12 hex>/  a C library    b-<12 hex>/  an engine and our program    m-<12 hex>/  an artefact
    s-<12 hex>/  sentences                                                (whole once `.complete` is in it)
    r-<nonce>/   one run: `pid`, and `out/` with its report
    undo         commands that put back what a session changed on the device

Nothing outside the folder is written or removed, and everything is kept to these names.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.base.stamp import file_sha256
from tprune.bench.phone.adb import AdbFailed, Device, Progress, quote

ROOT = "/data/local/tmp/tprune"
COMPLETE = ".complete"
SLOWEST = 200_000  # bytes a second: a device that copies or reads more slowly than this is given up
PATIENCE = 60.0  # seconds on top

# Ends what earlier runs left running, and removes what they left. A process is ours when it was told our nonce.
_END_RUNS = """
for r in r-*; do
  [ -d "$r" ] || continue
  pid=; read -r pid <"$r/pid"
  case $pid in ''|*[!0-9]*) ;; *) grep -q "${r#r-}" "/proc/$pid/cmdline" && kill -9 "$pid" ;; esac
  rm -rf "./$r"
done 2>/dev/null
"""
_UNDO = """
[ ! -f undo ] || { sh ./undo && rm -f undo; } || echo "what a session changed could not be put back" >&2
"""


@dataclass(frozen=True)
class Parcel:
    """Files that a device keeps together: `kind` is the letter of their folder, `files` their names and places."""

    kind: str
    files: Mapping[str, Path]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse names that are more than a file's own (BadInput)."""
        for name in self.files:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
                raise BadInput(f"file name {name!r}: only letters, digits and _ . + - may reach a device")

    @property
    def folder(self) -> str:
        """Its folder's name: it changes with any name and any byte."""
        lines = "".join(f"{self.digests[name]} {name}\n" for name in sorted(self.files))
        return f"{self.kind}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"

    @property
    def bytes(self) -> int:
        """How much there is to copy."""
        return sum(path.stat().st_size for path in self.files.values())


def parcel(kind: str, folder: Path, names: Sequence[str]) -> Parcel:
    """Return these files of a folder as a parcel."""
    files = {name: folder / name for name in names}
    return Parcel(kind, files, {name: file_sha256(path) for name, path in files.items()})


@dataclass(frozen=True)
class Remote:
    """Our folder on one device."""

    device: Device
    root: str

    def open(self, script: str = ":") -> str:
        """Make the folder, clear what earlier sessions left undone, then run `script` in it and return its stdout.

        Raises AdbFailed when the folder cannot be made.
        """
        make = f"mkdir -p {quote([self.root])} && cd {quote([self.root])} || exit 1"
        return self.device.ask("\n".join((self._no_link(), make, _UNDO, _END_RUNS, script)))

    def missing(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Return the parcels that are not on the device as they should be: complete, each file with its size."""
        looks = [
            f"echo @@{one.folder}; cd {quote([f'{self.root}/{one.folder}'])} && cat {COMPLETE} && "
            f"stat -c '%s %n' {quote(_here(one.files))}"
            for one in parcels
        ]
        told: dict[str, list[str]] = {}
        for line in self.device.ask(f"{{ {'; '.join(looks)}; }} 2>/dev/null; :").splitlines():
            if line.startswith("@@"):
                lines = told.setdefault(line[2:].strip(), [])
            elif told and line.strip():
                lines.append(line.strip())
        return [one for one in parcels if not _is_complete(one, told.get(one.folder, []))]

    def store(self, parcels: Sequence[Parcel], progress: Progress | None = None) -> None:
        """Copy what is missing of the parcels and prove that it arrived; `progress` counts bytes of what is copied.

        A parcel that was half copied before goes on. Raises AdbFailed.
        """
        jobs = [(one, name) for one in parcels for name in self._stale(one)]
        total, done = sum(one.files[name].stat().st_size for one, name in jobs), 0
        for one, name in jobs:
            size = one.files[name].stat().st_size
            shown = None if progress is None else lambda part, _, done=done: progress(done + part, total)
            there = f"{self.root}/{one.folder}/{name}"
            self.device.push(one.files[name], there, progress=shown, timeout=PATIENCE + size / SLOWEST)
            done += size
        for one in parcels:
            if damaged := self._stale(one):
                raise AdbFailed(f"device {self.device.serial}: {damaged[0]} did not arrive whole; repeat the command")
            here = quote([f"{self.root}/{one.folder}"])
            names = quote(_here(one.files))
            self.device.ask(f"cd {here} && chmod 755 {names} && echo {one.folder} >.new && mv .new {COMPLETE}")

    def end_run(self, nonce: str, script: str = ":") -> str:
        """End the run with this nonce if it still goes on, remove what it left, and do with `script` as `open` does."""
        end = _END_RUNS.replace("r-*", f"r-{nonce}", 1)
        return self.device.unstoppable().ask(f"cd {quote([self.root])} || exit 1\n{end}\n{script}")

    def remove(self) -> None:
        """Put back what sessions changed, end their runs, and remove all that is ours, the folder included."""
        there = quote([self.root])
        ours = " ".join(f"./{letter}-*" for letter in "blmsr")
        enter = f"{self._no_link()}\ncd {there} 2>/dev/null || exit 0"
        self.device.ask(f"{enter}\n{_UNDO}\n{_END_RUNS}\nrm -rf {ours}\ncd / && rmdir {there}")

    def _no_link(self) -> str:
        """Return a script that ends when the folder is a link: what lies behind it is not ours."""
        there = quote([self.root])
        return f"[ ! -L {there} ] || {{ echo {there} is a link: remove it >&2; exit 1; }}"

    def _stale(self, one: Parcel) -> list[str]:
        """Return the files of a parcel that are not on the device with the right bytes (its sizes where that is all).

        Makes the parcel's folder; its mark `.complete` is taken away until it is earned.
        """
        here, names = quote([f"{self.root}/{one.folder}"]), quote(_here(one.files))
        told = self.device.ask(
            f"mkdir -p {here} && cd {here} && rm -f {COMPLETE} || exit 1\n"
            f"if command -v sha256sum >/dev/null; then echo sha256; sha256sum {names} 2>/dev/null\n"
            f"else echo size; stat -c '%s %n' {names} 2>/dev/null; fi; :",
            timeout=PATIENCE + one.bytes / SLOWEST,
        )
        how, *lines = told.split("\n")
        found = {name.strip().removeprefix("./"): word for word, _, name in (line.partition(" ") for line in lines)}
        sizes = {name: str(path.stat().st_size) for name, path in one.files.items()}
        wanted = one.digests if how.strip() == "sha256" else sizes
        return [name for name in one.files if found.get(name) != wanted[name]]


def root() -> str:
    """Return our folder's path on a device: $TPRUNE_REMOTE, or the usual one. Raises BadInput for a bad one."""
    told = os.environ.get("TPRUNE_REMOTE") or ROOT
    if not told.startswith("/") or posixpath.normpath(told) != told or told.count("/") < 2 or "\n" in told:
        raise BadInput(f"TPRUNE_REMOTE {told!r}: must be a whole path on the device, for example {ROOT!r}")
    return told


def _here(names: Mapping[str, Path]) -> list[str]:
    return [f"./{name}" for name in names]


def _is_complete(one: Parcel, lines: Sequence[str]) -> bool:
    """Return whether the mark and, where the device has `stat`, the sizes are as they should be."""
    wanted = sorted(f"{path.stat().st_size} ./{name}" for name, path in one.files.items())
    return bool(lines) and lines[0] == one.folder and (len(lines) == 1 or sorted(lines[1:]) == wanted)
