"""The header of every JSON file that the toolkit writes, and the two safe ways to write: a file and a folder.

Standard library only, so that every package may import it. A file or folder appears under its final name only when it
is complete: it is written to a temporary sibling `.NAME.*.part` and renamed. The sibling is locked while its process
lives; one that is left by a killed process is removed when the same name is written again.
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
    """Return the header of a JSON document of `kind`, with the ids of what it was made from.

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
    """Return the command line of this process, without the folder of the program."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that affect results."""
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
    """Write a file so that `path` holds either what it held before or all of `content`, even after a kill."""
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
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write `document` as indented JSON, whole or not at all. NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_vacant(out: Path | str) -> Path:
    """Return `out` as a path if it may become a new folder: it does not exist, or it is an empty folder.

    Raises BadInput otherwise, for the current folder or a mount point, which cannot be replaced, and for a place that
    cannot be written.
    """
    out = Path(out)
    if os.path.lexists(out) and not out.is_dir():
        raise BadInput(f"output {str(out)!r} is a file; name a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"output folder {str(out)!r} exists and is not empty; name a new one or remove it first")
    if out.is_dir() and (out.is_symlink() or out.is_mount() or out.resolve() == Path.cwd()):
        raise BadInput(f"output folder {str(out)!r} is a link, a mount point or the current folder; name one inside it")
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"output folder {str(out)!r} cannot be made: {str(above)!r} is not writable; name another place")
    return out


@contextlib.contextmanager
def new_folder(out: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; rename it to `out` if the block succeeds, and remove it otherwise.

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
    """Remove leftovers of killed processes that tried to write `out`; live processes hold a lock."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(handle)
