"""Open an artefact in Python with the runtime that its manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tprune.base.errors import BadInput, WorkFailed
from tprune.export.manifest import Manifest
from tprune.export.ort.runtime import Artefact
from tprune.export.runtimes import RUNTIMES


@contextmanager
def engine_errors(folder: str | Path) -> Iterator[None]:
    """Raise WorkFailed, in one line, for whatever an engine says of an artefact in the block.

    Its files may be whole and its manifest may still lie about them, and engines have errors of many types.
    """
    try:
        yield
    except (BadInput, WorkFailed, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no type in common but this one
        said = next(iter(str(error).splitlines()), "")[:200]
        raise WorkFailed(
            f"artefact {str(folder)!r} does not run here: {type(error).__name__}: {said}; its manifest and its graphs "
            "do not agree, or the engine is too old: export it again"
        ) from error


def open_translator(folder: str | Path, threads: int = 1) -> Artefact:
    """Open an artefact of any runtime. Raises BadInput for a damaged one and for a runtime that is not installed."""
    opened: Artefact = RUNTIMES[Manifest.read(folder).runtime].load("open_translator")(folder, threads)
    return opened
