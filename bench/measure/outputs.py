"""`Output`: the tokens that a device generated, from its records; quality is scored on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.bench.measure import record, tokens
from tprune.bench.measure.record import DeviceFacts, Record, place_name
from tprune.bench.measure.tasks import TRANSLATION, Subject, read_subject, sentences_id
from tprune.bench.runner.contract import Ids


@dataclass(frozen=True)
class Output:
    """Token ids, one list per sentence, and their origin. `sentences_id` identifies the source sentences."""

    ids: Ids
    artefact: Subject
    device: DeviceFacts
    beams: int
    split: str
    limit: int | None
    sentences_id: str
    session: str

    def check_sources(self, sentences: Sequence[str]) -> None:
        """Raise BadInput unless the device translated these sentences."""
        encode = tokens.read(self.artefact.folder).encode
        if sentences_id([encode(sentence) for sentence in sentences]) != self.sentences_id:
            where = f"split {self.split!r}, limit {self.limit}"
            raise BadInput(f"the records were measured on other sentences than those of this data ({where})")


def read(path: Path, folder: Path, *, device: str | None = None, beams: int = 1) -> Output:
    """Return what the artefact in `folder` generated on `device` (a serial; None: the only one).

    Raise BadInput when the records hold no finished run of it, runs of several devices, or contradicting tokens.
    """
    subject = read_subject(folder)
    if subject.task != TRANSLATION.name:
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
        sentences_id=first.inputs_id or "",
        session=first.session,
    )


def _on_device(own: Sequence[Record], path: Path, device: str | None) -> list[Record]:
    places = {place_name(item.device): item for item in own}
    if device is None and len(places) > 1:
        raise BadInput(f"{str(path)!r} holds runs of several devices; choose one by --device: {', '.join(places)}")
    if device is not None and device not in places:
        raise BadInput(f"device {device!r}: {str(path)!r} holds runs of {', '.join(places)}")
    return [item for item in own if device in {None, place_name(item.device)}]
