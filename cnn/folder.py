"""The folder of a trained network as plain data: `network.json` beside `model.safetensors`. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.errors import BadInput

KIND = "network"
DOCUMENT, WEIGHTS = "network.json", "model.safetensors"
FIELDS = ("net", "classes", "image", "mean", "std")


@dataclass(frozen=True, slots=True)
class Saved:
    """The contents of `network.json`; `history` is the list of steps, oldest first."""

    net: str
    classes: tuple[str, ...]
    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: Mapping[str, Mapping[str, Any]]
    history: list[dict[str, Any]]


def read(path: Path | str) -> Saved:
    """Read the folder of a network, without its weights; raise BadInput when a file is missing or damaged."""
    path = Path(path)
    document = _document(path)
    try:
        known = {name: document[name] for name in ("net", "layers")}
        known |= {name: tuple(document[name]) for name in FIELDS[1:]}
        noted = document["weights"][WEIGHTS]
        saved = Saved(**known, history=list(document["history"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(path / DOCUMENT)!r} is malformed: {error}") from None
    if path.joinpath(WEIGHTS).is_file() and stamp.file_sha256(path / WEIGHTS) != noted:
        raise BadInput(
            f"{str(path / WEIGHTS)!r} is damaged or belongs to another network: its SHA-256 differs from the one in "
            f"{DOCUMENT}"
        )
    return saved


def _document(path: Path) -> Mapping[str, Any]:
    if not (path / DOCUMENT).is_file():
        why = f"it has no {DOCUMENT}" if path.exists() else "it does not exist"
        raise BadInput(f"{str(path)!r} is not the folder of a trained network: {why}; `tprune cnn train` writes one")
    try:
        document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path / DOCUMENT)!r} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema") != stamp.SCHEMA:
        raise BadInput(f"{str(path / DOCUMENT)!r} is not a network (kind must be {KIND!r}, schema {stamp.SCHEMA})")
    return document
