"""Open an artefact in Python with the runtime that its manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tprune.base.errors import BadInput, WorkFailed
from tprune.export.manifest import Manifest
from tprune.export.ort import runtime
from tprune.export.search.translator import Translator


@contextmanager
def engine_errors(folder: str | Path) -> Iterator[None]:
    """Turn any error of an engine inside the block into a one-line WorkFailed.

    A manifest may not fit its files even if they are undamaged, and engines raise errors of many types.
    """
    try:
        yield
    except (BadInput, WorkFailed, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no other common type
        said = next(iter(str(error).splitlines()), "")[:200]
        raise WorkFailed(
            f"artefact {str(folder)!r} does not run here: {type(error).__name__}: {said}; its manifest and its graphs "
            "do not agree, or the engine is too old: export it again"
        ) from error


def open_translator(folder: str | Path, threads: int = 1) -> Translator:
    """Open an artefact of any runtime. Raises BadInput if it is damaged or its runtime is not installed."""
    if Manifest.read(folder).runtime == "executorch":
        from tprune.export.et.runtime import open as open_executorch  # imported here because it loads torch

        return open_executorch(folder, threads)
    return runtime.open(folder, threads)
