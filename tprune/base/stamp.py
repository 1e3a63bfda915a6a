"""The header of every JSON file that the toolkit writes, and atomic writing of files and folders.

Standard library only, so every package may import it. A file or folder appears under its final name only when it is
complete: it is written to a temporary sibling `.NAME.*.part` and renamed. The sibling is locked while its process
runs. If that process is killed, the next write to the same name removes the leftover.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput

SCHEMA = 1
PACKAGES = ("tprune", "torch", "transformers", "onnx", "onnxruntime", "executorch", "ctranslate2", "sacrebleu", "numpy")


def stamp(kind: str, inputs: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the header of a JSON document of `kind`; `inputs` are the ids of the data it was made from.

    Fields: `schema, kind, created` (UTC, ISO 8601), `inputs` (name -> id), `versions` (package -> version), `argv`.
    """
    return {
        "schema": SCHEMA,
        "kind": kind,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "inputs": dict(inputs or {}),
        "versions": versions(),
        "argv": argv(),
    }


def argv() -> list[str]:
    """Return the command line of this process, with the program name only instead of its path."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results; packages not installed are left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(file.read())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically: after a kill, `path` holds either its old content or all of `content`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write `document` as indented JSON, atomically. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_vacant(out: Path | str) -> Path:
    """Return `out` as a path if a new folder can be created there: it does not exist, or is an empty folder.

    Raises BadInput otherwise, and for a link, a mount point, the current folder or a location without write access.
    """
    out = Path(out)
    if os.path.lexists(out) and not out.is_dir():
        raise BadInput(f"output {str(out)!r} is a file; name a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"output folder {str(out)!r} exists and is not empty; name a new one or remove it first")
    if out.is_dir() and (out.is_symlink() or out.is_mount() or out.resolve() == Path.cwd()):
        raise BadInput(f"output folder {str(out)!r} is a link, a mount point or the current folder; name one inside it")
    _check_creatable("output folder", out)
    return out


def check_file(flag: str, path: Path | None) -> None:
    """Raise BadInput when the flag names an output file that cannot be written; None is accepted."""
    if path is None:
        return
    if path.is_dir():
        raise BadInput(f"{flag} {str(path)!r} is a folder; name a file in it")
    _check_creatable(flag, path)


def _check_creatable(what: str, path: Path) -> None:
    """Raise BadInput unless the nearest existing folder above `path` is writable."""
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    fault = "is not writable" if above.is_dir() else "is not a folder"
    try:
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            Path(tempfile.mkdtemp(dir=above, prefix=".tprune.")).rmdir()  # root may write everywhere, but not in /proc
            return
    except OSError as error:
        fault = f"is not writable ({error.strerror})"
    raise BadInput(f"{what} {str(path)!r} cannot be created: {str(above)!r} {fault}; choose another location")


@contextlib.contextmanager
def new_folder(out: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; rename it to `out` on success, remove it on an exception.

    Raises BadInput when `out` exists and is not empty.
    """
    out = check_vacant(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    lock = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield temporary
        temporary.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _remove_abandoned(out: Path) -> None:
    """Remove leftovers of killed processes that were writing `out`; folders of running processes are locked."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the other process runs
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(handle)
