"""Open an artefact in Python with the runtime that its manifest names."""

from __future__ import annotations

from pathlib import Path

from export import runtime
from export.manifest import Manifest
from export.runtime import Artefact


def open_translator(folder: str | Path, threads: int = 1) -> Artefact:
    """Open an artefact of any runtime. Raises BadInput for a damaged one and for a runtime that is not installed."""
    if Manifest.read(folder).runtime == "executorch":
        from export.executorch_runtime import open as open_executorch  # only here: it loads torch

        return open_executorch(folder, threads)
    return runtime.open(folder, threads)
