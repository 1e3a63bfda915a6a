"""`Remote`: our folder on a device. Folders that stay are named by their content; those of a run are removed with it.

    l-<12 hex>/  a C library    b-<12 hex>/  an engine and our program    m-<12 hex>/  an artefact
    s-<12 hex>/  sentences or images                                      (complete once it has `.complete`)
    r-<nonce>/   one run: `pid`, and `out/` with its report
    undo         commands that restore the settings changed on the device

Nothing outside the folder is written or removed, and nothing but these names inside it.
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
SLOWEST = 200_000  # bytes per second; a device that copies or reads more slowly times out
PATIENCE = 60.0  # seconds in addition

# End runs that earlier benchmarks left, and remove their files. A process is ours when our nonce is in its arguments.
_END_RUNS = """
for r in r-*; do
  [ -d "$r" ] || continue
  pid=; read -r pid <"$r/pid"
  case $pid in ''|*[!0-9]*) ;; *) grep -q "${r#r-}" "/proc/$pid/cmdline" && kill -9 "$pid" ;; esac
  rm -rf "./$r"
done 2>/dev/null
"""
_UNDO = """
[ ! -f undo ] || { sh ./undo && rm -f undo; } || echo "the settings that tprune changed could not be restored" >&2
"""


@dataclass(frozen=True)
class Parcel:
    """Files stored together on a device: `kind` is the letter of their folder, `files` maps names to local paths."""

    kind: str
    files: Mapping[str, Path]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raise BadInput for names other than plain file names."""
        for name in self.files:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
                raise BadInput(f"file name {name!r}: only letters, digits and _ . + - are allowed on a device")

    @property
    def folder(self) -> str:
        """The folder's name, a digest of all names and bytes."""
        lines = "".join(f"{self.digests[name]} {name}\n" for name in sorted(self.files))
        return f"{self.kind}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"

    @property
    def bytes(self) -> int:
        """The total size."""
        return sum(path.stat().st_size for path in self.files.values())


def parcel(kind: str, folder: Path, names: Sequence[str]) -> Parcel:
    """Make a parcel of these files of a folder."""
    files = {name: folder / name for name in names}
    return Parcel(kind, files, {name: file_sha256(path) for name, path in files.items()})


@dataclass(frozen=True)
class Remote:
    """Our folder on one device."""

    device: Device
    root: str

    def open(self, script: str = ":") -> str:
        """Make the folder, clean up after earlier benchmarks, then run `script` in it and return its stdout.

        Raise AdbFailed when the folder cannot be made.
        """
        make = f"mkdir -p {quote([self.root])} && cd {quote([self.root])} || exit 1"
        return self.device.ask("\n".join((self._no_link(), make, _UNDO, _END_RUNS, script)))

    def missing(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Return the parcels that are not complete on the device, with every file at its size."""
        looks = [
            f"echo @@{one.folder}; cd {quote([f'{self.root}/{one.folder}'])} && cat {COMPLETE} && "
            f"stat -c '%s %n' {quote(_here(one.files))}"
            for one in parcels
        ]
        found: dict[str, list[str]] = {}
        for line in self.device.ask(f"{{ {'; '.join(looks)}; }} 2>/dev/null; :").splitlines():
            if line.startswith("@@"):
                lines = found.setdefault(line[2:].strip(), [])
            elif found and line.strip():
                lines.append(line.strip())
        return [one for one in parcels if not _is_complete(one, found.get(one.folder, []))]

    def store(self, parcels: Sequence[Parcel], progress: Progress | None = None) -> None:
        """Copy the missing files of the parcels and verify them; `progress` counts bytes copied.

        A parcel that was copied in part is completed. Raise AdbFailed.
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
                raise AdbFailed(
                    f"device {self.device.serial}: {damaged[0]} did not arrive complete; repeat the command"
                )
            here = quote([f"{self.root}/{one.folder}"])
            names = quote(_here(one.files))
            self.device.ask(f"cd {here} && chmod 755 {names} && echo {one.folder} >.new && mv .new {COMPLETE}")

    def end_run(self, nonce: str, script: str = ":") -> str:
        """End the run with this nonce, remove its files, then run `script` in our folder and return its stdout."""
        end = _END_RUNS.replace("r-*", f"r-{nonce}", 1)
        return self.device.unstoppable().ask(f"cd {quote([self.root])} || exit 1\n{end}\n{script}")

    def remove(self) -> None:
        """Restore changed settings, end runs, and remove our files and the folder."""
        there = quote([self.root])
        ours = " ".join(f"./{letter}-*" for letter in "blmsr")
        enter = f"{self._no_link()}\ncd {there} 2>/dev/null || exit 0"
        self.device.ask(f"{enter}\n{_UNDO}\n{_END_RUNS}\nrm -rf {ours}\ncd / && rmdir {there}")

    def _no_link(self) -> str:
        """Return a script that fails when the folder is a link, since its target is not ours."""
        there = quote([self.root])
        return f"[ ! -L {there} ] || {{ echo {there} is a link: remove it >&2; exit 1; }}"

    def _stale(self, one: Parcel) -> list[str]:
        """Return the files of a parcel that differ on the device by digest, or by size where it has no sha256sum.

        Make the parcel's folder and remove its mark `.complete`.
        """
        here, names = quote([f"{self.root}/{one.folder}"]), quote(_here(one.files))
        output = self.device.ask(
            f"mkdir -p {here} && cd {here} && rm -f {COMPLETE} || exit 1\n"
            f"if command -v sha256sum >/dev/null; then echo sha256; sha256sum {names} 2>/dev/null\n"
            f"else echo size; stat -c '%s %n' {names} 2>/dev/null; fi; :",
            timeout=PATIENCE + one.bytes / SLOWEST,
        )
        how, *lines = output.split("\n")
        found = {name.strip().removeprefix("./"): word for word, _, name in (line.partition(" ") for line in lines)}
        sizes = {name: str(path.stat().st_size) for name, path in one.files.items()}
        wanted = one.digests if how.strip() == "sha256" else sizes
        return [name for name in one.files if found.get(name) != wanted[name]]


def root() -> str:
    """Return our folder's path on a device: $TPRUNE_REMOTE, or the default. Raise BadInput for an illegal path."""
    path = os.environ.get("TPRUNE_REMOTE") or ROOT
    if not path.startswith("/") or posixpath.normpath(path) != path or path.count("/") < 2 or "\n" in path:
        raise BadInput(f"TPRUNE_REMOTE {path!r}: must be an absolute path on the device, for example {ROOT!r}")
    return path


def _here(names: Mapping[str, Path]) -> list[str]:
    return [f"./{name}" for name in names]


def _is_complete(one: Parcel, lines: Sequence[str]) -> bool:
    """Return whether the mark and, where the device has `stat`, the sizes are right."""
    wanted = sorted(f"{path.stat().st_size} ./{name}" for name, path in one.files.items())
    return bool(lines) and lines[0] == one.folder and (len(lines) == 1 or sorted(lines[1:]) == wanted)
