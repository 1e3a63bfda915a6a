"""`Artefact`: the few facts of an artefact folder that a benchmark and a report need, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.manifest import Manifest


@dataclass(frozen=True)
class Artefact:
    """A folder of graphs: who it is, how large (`bytes` of its graphs), how long its sentences may be (in tokens)."""

    folder: Path
    id: str
    model: Mapping[str, Any]
    runtime: str
    precision: str
    bytes: int
    max_source: int
    max_target: int
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def read(folder: Path | str) -> Artefact:
    """Return the artefact in `folder`; BadInput says what is wrong with its manifest. Its files are not opened."""
    manifest = Manifest.read(folder)
    return Artefact(
        folder=Path(folder),
        id=manifest.id,
        model=asdict(manifest.model),
        runtime=manifest.runtime,
        precision=manifest.precision,
        bytes=sum(file.bytes for file in manifest.files.values()),
        max_source=manifest.limits.source,
        max_target=manifest.limits.target,
        argv=tuple(manifest.header.get("argv", ())),
    )
