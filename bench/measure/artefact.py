"""`Artefact`: the few facts of an artefact folder that a benchmark and a report need, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tprune.export import targets
from tprune.export.images.manifest import ImageManifest
from tprune.export.manifest import IMAGES, TRANSLATION, Manifest, read_document, task_of


@dataclass(frozen=True)
class Artefact:
    """A folder of graphs: who it is, how large (`bytes` of its graphs), and what it is for (`task`).

    Of translation: how long its sentences may be (in tokens). Of images: their channels, height and width, and how many
    classes there are.
    """

    folder: Path
    id: str
    model: Mapping[str, Any]
    runtime: str
    precision: str
    bytes: int
    max_source: int
    max_target: int
    argv: tuple[str, ...]
    task: str = TRANSLATION
    image: tuple[int, ...] = ()
    classes: int = 0
    target_cpu: str = targets.ALL

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def read(folder: Path | str) -> Artefact:
    """Return the artefact in `folder`; BadInput says what is wrong with its manifest. Its files are not opened."""
    images = task_of(read_document(folder)) == IMAGES
    manifest = ImageManifest.read(folder) if images else Manifest.read(folder)
    longest = manifest.limits if isinstance(manifest, Manifest) else None
    return Artefact(
        folder=Path(folder),
        id=manifest.id,
        model=asdict(manifest.model),
        runtime=manifest.runtime,
        precision=manifest.precision,
        bytes=sum(file.bytes for file in manifest.files.values()),
        max_source=longest.source if longest else 0,
        max_target=longest.target if longest else 0,
        argv=tuple(manifest.header.get("argv", ())),
        task=IMAGES if images else TRANSLATION,
        image=manifest.image if isinstance(manifest, ImageManifest) else (),
        classes=len(manifest.classes) if isinstance(manifest, ImageManifest) else 0,
        target_cpu=manifest.target_cpu,
    )
