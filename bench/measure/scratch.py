"""Temporary folders of runs. A folder is removed after its run; one left by a kill is removed by the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX, SUFFIX = ".tprune-run-", ".part"
YOUNG = 60.0  # seconds; a younger folder is kept, because its process may not have locked it yet


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty temporary folder, locked while this process lives."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, suffix=SUFFIX) as name:
        lock = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(lock)


def _remove_abandoned(place: Path) -> None:
    for left in place.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):  # of another user, in use, or just removed by another process
            if time.time() - left.lstat().st_mtime < YOUNG:
                continue
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(handle)
