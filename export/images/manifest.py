"""`ImageManifest`: the description of an image network's artefact folder. Torch-free; related to `Manifest`.

manifest = ImageManifest.read("artefacts/resnet20")
manifest.check_files("artefacts/resnet20")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.base.stamp import stamp, write_json
from tprune.export import targets
from tprune.export.manifest import (
    FILE,
    IMAGES,
    KIND,
    PRECISIONS,
    Delegation,
    FileEntry,
    Tensors,
    artefact_id,
    check_files,
    check_task,
    complete,
    read_document,
    read_files,
    read_tensors,
)
from tprune.export.runtimes import RUNTIMES

GRAPH = "forward"  # the one graph: its name among the tensors, and the method of an executorch program
FILES = {name: runtime.image_file for name, runtime in RUNTIMES.items()}


@dataclass(frozen=True)
class NetworkFacts:
    """The network behind the artefact. `criterion` is the method that it was compressed with, or `dense`; `params` are
    its weights that are not zero and `keep` their share of the dense network's, where that is known by its name `net`;
    `macs` is as `tprune.cnn.count` has it, for one image."""

    id: str
    name: str
    net: str
    criterion: str
    seed: int | None
    keep: float | None
    params: int
    macs: int


@dataclass(frozen=True)
class ImageParity:
    """Images compared with PyTorch and where they came from, how many got the same class, the largest difference of a
    logit, and what was legal, as a share of the largest logit (None in int8, where `ImageCost` decides)."""

    images: int
    source: str
    identical: int
    max_abs_logit_diff: float
    tolerance: float | None


@dataclass(frozen=True)
class ImageCost:
    """What 8 bits cost on labelled images: PyTorch's accuracy in fp32 and the artefact's (0 to 1), McNemar's p, and by
    how many percentage points it was allowed to fall."""

    images: int
    source: str
    accuracy_fp32: float
    accuracy: float
    p_value: float
    most: float


@dataclass(frozen=True)
class ImageManifest:
    """One artefact: its file, the graph `image` -> `logits`, the class names, source network and parity result.

    `image` is float32 (1, channels, height, width), 0 to 1; further normalisation is part of the graph.
    """

    id: str
    runtime: str
    precision: str
    files: Mapping[str, FileEntry]
    tensors: Mapping[str, Tensors]
    classes: tuple[str, ...]
    image: tuple[int, int, int]  # channels, height, width
    model: NetworkFacts
    parity: ImageParity
    delegation: Delegation | None = None  # of an executorch artefact
    cost: ImageCost | None = None  # of an int8 artefact
    target_cpu: str = targets.ALL  # for which processors, see tprune.export.targets
    header: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        targets.named(self.target_cpu)
        if self.runtime not in RUNTIMES:
            raise BadInput(f"ImageManifest.runtime: {self.runtime!r} is not one of {', '.join(RUNTIMES)}")
        if self.precision not in PRECISIONS:
            raise BadInput(f"ImageManifest.precision: {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.id != artefact_id(self.files):
            raise BadInput(f"ImageManifest.id: {self.id!r} does not belong to its files ({artefact_id(self.files)!r})")

    @classmethod
    def read(cls, folder: Path | str) -> ImageManifest:
        """Read `folder/manifest.json`; raises BadInput as `Manifest.read` does."""
        document = read_document(folder)
        check_task(folder, document, IMAGES)
        with complete(folder):
            return _parse(document)

    def write(self, folder: Path | str) -> None:
        """Write `folder/manifest.json`, whole or not at all."""
        header = dict(self.header) or stamp(KIND, {"network": self.model.id})
        body = asdict(self)
        body.pop("header")
        write_json(Path(folder) / FILE, {**header, "task": IMAGES, **body})

    def check_files(self, folder: Path | str) -> None:
        """Raise BadInput for every graph file that is missing or differs from the manifest."""
        check_files(folder, self.files)


def _parse(document: Mapping[str, Any]) -> ImageManifest:
    body = {entry.name for entry in fields(ImageManifest)} | {"task"}
    delegation, cost = document["delegation"], document.get("cost")
    size = document["image"]
    return ImageManifest(
        id=document["id"],
        runtime=document["runtime"],
        precision=document["precision"],
        files=read_files(document),
        tensors=read_tensors(document),
        classes=tuple(document["classes"]),
        image=(size[0], size[1], size[2]),
        model=NetworkFacts(**document["model"]),
        parity=ImageParity(**document["parity"]),
        delegation=None if delegation is None else Delegation(**delegation),
        cost=None if cost is None else ImageCost(**cost),
        target_cpu=targets.of_document(document),
        header={key: value for key, value in document.items() if key not in body},
    )
