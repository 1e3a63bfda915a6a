"""`Task`: all that a benchmark does differently for TRANSLATION and for CLASSIFICATION.

    subject = read_subject("onnx/dense")
    task = TASKS[subject.task]
    task.check([subject], sentences)
    task.write(sentences, folder)      # the file that the runner reads

The measuring code calls the functions of a task and never compares its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from tprune.base.errors import BadInput
from tprune.base.pixels import Pixels
from tprune.bench.runner.contract import CLASSIFY, SEQ2SEQ, Ids, write_ids
from tprune.export import manifest as manifests
from tprune.export import targets
from tprune.export.images.manifest import ImageManifest
from tprune.export.manifest import Manifest

Inputs: TypeAlias = "Ids | Pixels"
Input = TypeVar("Input")
Scalars: TypeAlias = "dict[str, int | str | None]"


@dataclass(frozen=True)
class Subject:
    """What a benchmark and a report need of an artefact, from its manifest. `bytes` is the size of its graphs.

    Of translation: the most tokens of a sentence (`max_source`, `max_target`). Of classification: the images' channels,
    height and width, and the number of classes.
    """

    folder: Path
    id: str
    model: Mapping[str, Any]
    runtime: str
    precision: str
    bytes: int
    max_source: int = 0
    max_target: int = 0
    argv: tuple[str, ...] = ()
    task: str = manifests.TRANSLATION
    image: tuple[int, ...] = ()
    classes: int = 0
    target_cpu: str = targets.ALL

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


@dataclass(frozen=True)
class Task(Generic[Input]):
    """One task. `name` is its name in manifests and records, `verb` the runner's word for it.

    `noun` names one input, `outputs` what a run returns, `metric` the quality score. A task that `searches` decodes
    step by step: it has beams, a limit of length and times of encoder and steps. Inputs that are `labelled` come with
    the right outputs.
    """

    name: str
    verb: str
    noun: str
    activity: str  # "translate": what is done with one input
    outputs: str
    metric: str
    searches: bool
    labelled: bool
    inputs: type
    read: Callable[[Path], Subject]
    check: Callable[[Sequence[Subject], Input], None]  # raise BadInput unless every subject takes all inputs
    identify: Callable[[Input], str]  # 16 hex digits that change with any input
    source: Callable[[Input], Mapping[str, str]]  # where the inputs are from, as records have it
    heaviest: Callable[[Input, int], Input]  # so many inputs that need the most memory
    labels: Callable[[Input], list[int]]
    write: Callable[[Input, Path], Path]  # into a folder, as the runner reads them

    @property
    def count_field(self) -> str:
        """The field of a record's settings that holds the number of inputs."""
        return f"{self.noun}s"

    @property
    def id_field(self) -> str:
        """The field of a record's settings that holds the id of the inputs."""
        return f"{self.noun}s_id"

    def facts(self, inputs: Input) -> Scalars:
        """Return number, id and source of the inputs, as a record's settings hold them."""
        count = len(inputs)  # type: ignore[arg-type]
        return {self.count_field: count, self.id_field: self.identify(inputs), **self.source(inputs)}


def read_subject(folder: Path | str) -> Subject:
    """Return the artefact in `folder`. Raise BadInput when its manifest is wrong; no other file is opened."""
    return TASKS[manifests.task_of(manifests.read_document(folder))].read(Path(folder))


def common_task(subjects: Sequence[Subject]) -> Task[Any]:
    """Return the task that all subjects share. Raise BadInput when there are two."""
    first = subjects[0]
    for subject in subjects:
        if subject.task != first.task:
            raise BadInput(
                f"{str(subject.folder)!r} is an artefact for {subject.task}, {str(first.folder)!r} one for "
                f"{first.task}: measure them in two calls"
            )
    return TASKS[first.task]


def check(subjects: Sequence[Subject], inputs: Inputs) -> None:
    """Raise BadInput unless every subject takes all inputs."""
    task = common_task(subjects)
    if not isinstance(inputs, task.inputs):
        given = next(other for other in TASKS.values() if isinstance(inputs, other.inputs))
        raise BadInput(
            f"{str(subjects[0].folder)!r} is an artefact for {task.name}; it cannot be measured on {given.noun}s"
        )
    if not len(inputs):
        raise BadInput(f"there is no {task.noun} to {task.activity}")
    task.check(subjects, inputs)


def sentences_id(sentences: Ids) -> str:
    """Return the first 16 hex digits of the SHA-256 over the sentences' token ids."""
    return hashlib.sha256(json.dumps([list(ids) for ids in sentences]).encode()).hexdigest()[:16]


def _subject(folder: Path, manifest: Manifest | ImageManifest, task: str, **facts: Any) -> Subject:
    return Subject(
        folder=folder,
        id=manifest.id,
        model=asdict(manifest.model),
        runtime=manifest.runtime,
        precision=manifest.precision,
        bytes=sum(file.bytes for file in manifest.files.values()),
        argv=tuple(manifest.header.get("argv", ())),
        target_cpu=manifest.target_cpu,
        task=task,
        **facts,
    )


def _read_translator(folder: Path) -> Subject:
    manifest = Manifest.read(folder)
    limits = manifest.limits
    return _subject(folder, manifest, TRANSLATION.name, max_source=limits.source, max_target=limits.target)


def _read_classifier(folder: Path) -> Subject:
    manifest = ImageManifest.read(folder)
    return _subject(folder, manifest, CLASSIFICATION.name, image=manifest.image, classes=len(manifest.classes))


def _check_sentences(subjects: Sequence[Subject], sentences: Ids) -> None:
    longest = min(subject.max_source for subject in subjects)
    for number, sentence in enumerate(sentences, start=1):
        if not 0 < len(sentence) <= longest:
            raise BadInput(f"sentence {number} has {len(sentence)} tokens; legal are 1 to {longest}")


def _check_images(subjects: Sequence[Subject], images: Pixels) -> None:
    for subject in subjects:
        if images.data.shape[1:] != subject.image:
            here, wanted = (" x ".join(map(str, one)) for one in (images.data.shape[1:], subject.image))
            raise BadInput(f"{images.name}: images are {here} (channels, height, width); {subject.name} takes {wanted}")
        if int(images.labels.max()) >= subject.classes:
            raise BadInput(
                f"{images.name} has a label {images.labels.max()}; {subject.name} knows {subject.classes} classes"
            )


def _write_sentences(sentences: Ids, folder: Path) -> Path:
    path = folder / "sentences.ids"
    write_ids(path, sentences)
    return path


def _write_images(images: Pixels, folder: Path) -> Path:
    path = folder / "images.npy"
    np.save(path, images.data, allow_pickle=False)
    return path


TRANSLATION: Task[Ids] = Task(
    name=manifests.TRANSLATION,
    verb=SEQ2SEQ,
    noun="sentence",
    activity="translate",
    outputs="tokens",
    metric="BLEU",
    searches=True,
    labelled=False,
    inputs=Sequence,
    read=_read_translator,
    check=_check_sentences,
    identify=sentences_id,
    source=lambda sentences: {},
    heaviest=lambda sentences, count: sorted(sentences, key=len, reverse=True)[:count],
    labels=lambda sentences: [],
    write=_write_sentences,
)
CLASSIFICATION: Task[Pixels] = Task(
    name=manifests.IMAGES,
    verb=CLASSIFY,
    noun="image",
    activity="classify",
    outputs="classes",
    metric="accuracy",
    searches=False,
    labelled=True,
    inputs=Pixels,
    read=_read_classifier,
    check=_check_images,
    identify=lambda images: images.id,
    source=lambda images: {"data": images.name},
    heaviest=lambda images, count: Pixels(images.data[:count], images.labels[:count], images.classes, images.name),
    labels=lambda images: images.labels.tolist(),
    write=_write_images,
)
TASKS: Mapping[str, Task[Any]] = {task.name: task for task in (TRANSLATION, CLASSIFICATION)}
