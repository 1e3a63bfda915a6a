"""The toolkit's cache of fetched and assembled folders: `$XDG_CACHE_HOME/tprune`, else `~/.cache/tprune`.

An entry is a folder whose JSON document lists the SHA-256 of every file in it. It appears whole or not at all, is made
by one process at a time, and is made again when a file was changed or lost. A new one takes the place of its family's
that nobody has used for a week. Removing the cache loses nothing but time.
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

UNUSED = 7 * 86400.0  # seconds without use after which an entry may go


@dataclass(frozen=True)
class Entry:
    """A complete folder of the cache: its files (name -> SHA-256) and what its maker said of it."""

    folder: Path
    files: Mapping[str, str]
    facts: Mapping[str, str]


def folder() -> Path:
    """Return the folder of the cache, which need not exist yet."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(told) if os.path.isabs(told) else Path.home() / ".cache") / "tprune"


def find(kind: str, name: str) -> Entry | None:
    """Return an entry when it is there and every file of it is as it was written."""
    place = folder() / f"{kind}s" / name
    try:
        document = json.loads((place / f"{kind}.json").read_text(encoding="utf-8"))
        entry = Entry(place, dict(document["files"]), dict(document["facts"]))
        whole = all(file_sha256(place / file) == digest for file, digest in entry.files.items())
    except (OSError, ValueError, LookupError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that is read only stays as it is
        os.utime(place / f"{kind}.json")  # when it was last used
    return entry if whole else None


def keep(kind: str, name: str, fill: Callable[[Path], Mapping[str, str]], family: str | None = None) -> Entry:
    """Return an entry; when it is not there or damaged, `fill(folder)` writes its files and returns its facts first.

    A second process that wants the same entry waits. When `fill` raises, nothing is kept. Once a new entry is there,
    others whose names match the pattern `family` go, unless they were used within a week.
    """
    if found := find(kind, name):
        return found
    place = folder() / f"{kind}s" / name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        (place.parent / f".{place.name}.lock").touch()
    except OSError as error:
        words = "set XDG_CACHE_HOME to a folder that can"
        raise WorkFailed(f"cache folder {str(folder())!r} cannot be written: {error.strerror}; {words}") from None
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


def _remove_unused(place: Path, document: Path) -> None:
    """Remove an entry that nobody has used for a week and nobody makes just now."""
    with contextlib.suppress(OSError), _alone(place, wait=False):
        used = (document if document.exists() else place).stat().st_mtime
        if time.time() - used > UNUSED:
            shutil.rmtree(place)


@contextlib.contextmanager
def _alone(place: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an entry; the kernel releases it with the process, however that ends.

    Raises BlockingIOError when somebody else holds it and `wait` is False.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place.parent / f".{place.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
