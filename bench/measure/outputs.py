"""`Output`: what a device translated, from the file of its records: the tokens that its quality is scored from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput
from tprune.bench.measure import artefact, inputs, record, tokens
from tprune.bench.measure.artefact import Artefact
from tprune.bench.measure.record import Record, place_name
from tprune.bench.runner.contract import Ids
from tprune.export.manifest import TRANSLATION


@dataclass(frozen=True)
class Output:
    """Token ids, one list a sentence, and where they come from; `sentences_id` is that of the source sentences."""

    ids: Ids
    artefact: Artefact
    device: Mapping[str, Any]
    beams: int
    split: str
    limit: int | None
    sentences_id: str
    session: str

    def check_sources(self, sentences: Sequence[str]) -> None:
        """Raise BadInput unless these are the sentences that the device was given."""
        encode = tokens.read(self.artefact.folder).encode
        if inputs.sentences_id([encode(sentence) for sentence in sentences]) != self.sentences_id:
            where = f"split {self.split!r}, limit {self.limit}"
            raise BadInput(f"the records were measured on other sentences than those of this data ({where})")


def read(path: Path, folder: Path, *, device: str | None = None, beams: int = 1) -> Output:
    """Return what the artefact in `folder` translated on `device` (a serial; None: the only one) with so many beams.

    Raises BadInput when the records hold no finished run of it, those of several devices, or contradict each other.
    """
    subject = artefact.read(folder)
    if subject.task != TRANSLATION:
        raise BadInput(f"{str(folder)!r} is an artefact for {subject.task}: `tprune report` says how accurate it is")
    found = [item for item in record.newest(record.read(path)) if item.output_ids and item.verdict != "WRONG_TOKENS"]
    own = [item for item in found if item.artefact == subject.id]
    if not own:
        names = ", ".join(dict.fromkeys(item.name for item in found)) or "none at all"
        raise BadInput(f"{str(path)!r} holds no finished run of {str(folder)!r} ({subject.id}), but of: {names}")
    chosen = _on_device(own, path, device)
    if not (chosen := [item for item in chosen if item.beams == beams]):
        legal = ", ".join(sorted({str(item.beams) for item in own}))
        raise BadInput(f"beams {beams}: {str(path)!r} was measured with {legal}")
    first = chosen[0]
    if any(item.output_ids != first.output_ids for item in chosen):
        raise BadInput(f"{str(path)!r} holds different tokens of {first.name} on one device: measure it again")
    return Output(
        ids=first.output_ids,
        artefact=subject,
        device=first.device,
        beams=beams,
        split=first.split,
        limit=first.limit,
        sentences_id=first.settings["sentences_id"],
        session=first.session,
    )


def _on_device(own: Sequence[Record], path: Path, device: str | None) -> list[Record]:
    places = {place_name(item.device): item for item in own}
    if device is None and len(places) > 1:
        raise BadInput(f"{str(path)!r} holds runs of several devices; choose one by --device: {', '.join(places)}")
    if device is not None and device not in places:
        raise BadInput(f"device {device!r}: {str(path)!r} holds runs of {', '.join(places)}")
    return [item for item in own if device in {None, place_name(item.device)}]
