"""The cache of downloaded, built and assembled folders: `$XDG_CACHE_HOME/tprune`, else `~/.cache/tprune`.

An entry is a folder whose JSON document lists the SHA-256 of every file in it. It is created atomically, by one process
at a time, and created again when a file has changed or is missing. A new entry replaces the entries of its family that
have not been used for a week. It is always safe to delete the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import WorkFailed
from tprune.base.stamp import file_sha256, new_folder, stamp, write_json

UNUSED = 7 * 86400.0  # seconds without use after which an entry may be deleted


@dataclass(frozen=True)
class Entry:
    """A complete folder of the cache: its files (name -> SHA-256), and facts about their origin."""

    folder: Path
    files: Mapping[str, str]
    facts: Mapping[str, str]


def folder() -> Path:
    """Return the folder of the cache; it may not exist yet."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache") / "tprune"


def find(kind: str, name: str) -> Entry | None:
    """Return an entry if it exists and all its files are unchanged, else None."""
    place = folder() / f"{kind}s" / name
    try:
        document = json.loads((place / f"{kind}.json").read_text(encoding="utf-8"))
        entry = Entry(place, dict(document["files"]), dict(document["facts"]))
        whole = all(file_sha256(place / file) == digest for file, digest in entry.files.items())
    except (OSError, ValueError, LookupError, TypeError):
        return None
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(place / f"{kind}.json")  # the time of its last use
    return entry if whole else None


def keep(kind: str, name: str, fill: Callable[[Path], Mapping[str, str]], family: str | None = None) -> Entry:
    """Return an entry; if it is missing or damaged, `fill(folder)` first writes its files and returns its facts.

    A second process that wants the same entry waits. If `fill` raises, nothing is kept. After a new entry is created,
    other entries whose names match the pattern `family` are deleted if they have not been used for a week. Raises
    WorkFailed if the cache cannot be written.
    """
    if found := find(kind, name):
        return found
    place = folder() / f"{kind}s" / name
    with writing():
        place.parent.mkdir(parents=True, exist_ok=True)
        (place.parent / f".{place.name}.lock").touch()
    with _alone(place):
        found = find(kind, name)
        if found:
            return found
        shutil.rmtree(place, ignore_errors=True)
        with new_folder(place) as temporary:
            facts = dict(fill(temporary))
            files = {
                path.relative_to(temporary).as_posix(): file_sha256(path)
                for path in sorted(temporary.rglob("*"))
                if path.is_file()
            }
            write_json(temporary / f"{kind}.json", {**stamp(kind), "files": files, "facts": facts})
    for other in sorted(place.parent.glob(family)) if family else ():
        if other != place and other.is_dir():
            _remove_unused(other, other / f"{kind}.json")
    return Entry(place, files, facts)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """In the block, turn an OSError into WorkFailed, which names the cache and XDG_CACHE_HOME."""
    try:
        yield
    except OSError as error:
        words = "set XDG_CACHE_HOME to a folder that can"
        raise WorkFailed(f"cache folder {str(folder())!r} cannot be written: {error.strerror}; {words}") from None


def _remove_unused(place: Path, document: Path) -> None:
    """Remove an entry that has not been used for a week and that no process is creating."""
    with contextlib.suppress(OSError), _alone(place, wait=False):
        used = (document if document.exists() else place).stat().st_mtime
        if time.time() - used > UNUSED:
            shutil.rmtree(place)


@contextlib.contextmanager
def _alone(place: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an entry; the kernel releases it when the process ends.

    Raises BlockingIOError if another process holds it and `wait` is False.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place.parent / f".{place.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
