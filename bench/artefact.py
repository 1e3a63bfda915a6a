"""`Artefact`: what a benchmark and a report need to know of an artefact folder, read from its manifest.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.errors import BadInput


@dataclass(frozen=True)
class Artefact:
    """A folder of graphs: who it is, how large (`bytes` of all its listed files), how long its sentences may be."""

    folder: Path
    id: str
    model: Mapping[str, Any]
    runtime: str
    precision: str
    bytes: int
    max_source: int
    max_target: int
    versions: Mapping[str, str]
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def read(folder: Path | str) -> Artefact:
    """Return the artefact in `folder`; BadInput says what is missing. The runtime that opens it checks the rest."""
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{str(folder)!r} is no artefact: it has no manifest.json; `tprune export MODEL` makes one")
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")), folder)
    except (ValueError, OSError) as error:
        raise BadInput(f"manifest {str(path)!r}: {error}") from None


def parse(document: Any, folder: Path) -> Artefact:
    """Return the artefact that the manifest `document` of `folder` describes; ValueError names what is missing."""
    if not isinstance(document, dict) or document.get("kind") != "artefact":
        raise ValueError("not the manifest of an artefact (kind is not 'artefact')")
    try:
        return Artefact(
            folder=folder,
            id=document["id"],
            model=document["model"],
            runtime=document["runtime"],
            precision=document["precision"],
            bytes=sum(int(file["bytes"]) for file in document["files"].values()),
            max_source=int(document["limits"]["source"]),
            max_target=int(document["limits"]["target"]),
            versions=document.get("versions", {}),
            argv=tuple(document.get("argv", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"incomplete: {error}") from None
