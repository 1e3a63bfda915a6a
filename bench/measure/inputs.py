"""What artefacts are measured on, one at a time: sentences as token ids, or labelled images.

All that differs between the two is here and in the runner's tasks; a block, a place and a session know only `Inputs`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tprune.base.errors import BadInput
from tprune.base.pixels import Pixels
from tprune.bench.measure.artefact import Artefact
from tprune.bench.runner.contract import CLASSIFY, SEQ2SEQ, Ids, write_ids
from tprune.export.manifest import IMAGES, TRANSLATION

Inputs: TypeAlias = "Ids | Pixels"
RUNNER_TASKS = {TRANSLATION: SEQ2SEQ, IMAGES: CLASSIFY}  # what an artefact is for -> the runner's task


def task(inputs: Inputs) -> str:
    """Return what an artefact must be for to be measured on these."""
    return IMAGES if isinstance(inputs, Pixels) else TRANSLATION


def name(inputs: Inputs) -> str:
    """Return what one of them is called."""
    return "image" if isinstance(inputs, Pixels) else "sentence"


def common_task(subjects: Sequence[Artefact]) -> str:
    """Return what all these artefacts are for; BadInput when they are not all for the same."""
    first = subjects[0]
    for subject in subjects:
        if subject.task != first.task:
            raise BadInput(
                f"{str(subject.folder)!r} is an artefact for {subject.task}, {str(first.folder)!r} one for "
                f"{first.task}: measure them in two calls"
            )
    return first.task


def check(subjects: Sequence[Artefact], inputs: Inputs) -> None:
    """Raise BadInput unless every artefact takes all of these."""
    if (wanted := common_task(subjects)) != task(inputs):
        raise BadInput(
            f"{str(subjects[0].folder)!r} is an artefact for {wanted}; it cannot be measured on {name(inputs)}s"
        )
    if not len(inputs):
        raise BadInput(
            "there is no image to classify" if isinstance(inputs, Pixels) else "there is no sentence to translate"
        )
    if isinstance(inputs, Pixels):
        for subject in subjects:
            _check_images(subject, inputs)
    else:
        _check_sentences(inputs, min(subject.max_source for subject in subjects))


def _check_sentences(sentences: Ids, longest: int) -> None:
    for number, sentence in enumerate(sentences, start=1):
        if not 0 < len(sentence) <= longest:
            raise BadInput(f"sentence {number} has {len(sentence)} tokens; legal are 1 to {longest}")


def _check_images(subject: Artefact, images: Pixels) -> None:
    if images.data.shape[1:] != subject.image:
        here, wanted = (" x ".join(map(str, one)) for one in (images.data.shape[1:], subject.image))
        raise BadInput(f"{images.name}: images are {here} (channels, height, width); {subject.name} takes {wanted}")
    if int(images.labels.max()) >= subject.classes:
        raise BadInput(
            f"{images.name} has a label {images.labels.max()}; {subject.name} knows {subject.classes} classes"
        )


def told(inputs: Inputs) -> dict[str, Any]:
    """Return how many these are, their id and, of images, where they are from, as a record's settings have them."""
    found = inputs.id if isinstance(inputs, Pixels) else sentences_id(inputs)
    source = {"data": inputs.name} if isinstance(inputs, Pixels) else {}
    return {f"{name(inputs)}s": len(inputs), f"{name(inputs)}s_id": found, **source}


def sentences_id(sentences: Ids) -> str:
    """Return the first 16 hex digits of the SHA-256 over the sentences' token ids."""
    return hashlib.sha256(json.dumps([list(ids) for ids in sentences]).encode()).hexdigest()[:16]


def heaviest(inputs: Inputs, count: int) -> Inputs:
    """Return the `count` that need the most memory: the longest sentences, any images."""
    if isinstance(inputs, Pixels):
        return Pixels(inputs.data[:count], inputs.labels[:count], inputs.classes, inputs.name)
    return sorted(inputs, key=len, reverse=True)[:count]


def labels(inputs: Inputs) -> list[int]:
    """Return the right class of every image; sentences have none."""
    return inputs.labels.tolist() if isinstance(inputs, Pixels) else []


def write(inputs: Inputs, folder: Path) -> Path:
    """Write the file that the runner reads into `folder` and return its path."""
    if isinstance(inputs, Pixels):
        path = folder / "images.npy"
        np.save(path, inputs.data, allow_pickle=False)
    else:
        path = folder / "sentences.ids"
        write_ids(path, inputs)
    return path
