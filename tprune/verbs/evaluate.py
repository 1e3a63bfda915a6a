"""Measure the translation quality of a checkpoint, of an exported artefact, or of what a device translated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import stamp
from tprune.base.errors import BadInput, only_for
from tprune.base.threads import use_threads
from tprune.marian import folder
from tprune.verbs.inputs import Text, Watch, check_readable, open_model, silent

if TYPE_CHECKING:
    from tprune.marian.quality import Quality


def evaluate(
    model: str,
    text: Text,
    *,
    split: str | None = None,
    beams: int = 1,
    baseline: Path | None = None,
    artefact: Path | None = None,
    device: str | None = None,
    out: Path | None = None,
    batch_size: int | None = None,
    threads: int = 2,
    watch: Watch = silent,
) -> Quality:
    """Return the quality of a checkpoint, an artefact or what records.jsonl holds, and write it to `out`.

    Without `split`, records are scored on the split that was measured, anything else on that of `text`. Records need
    the folder of their `artefact`, and the name of the `device` if they hold several.
    """
    stamp.check_file("--out", out)
    path = Path(model)
    options: dict[str, Any] = {"beams": beams, "baseline": baseline}
    exported = (path / "manifest.json").is_file()
    if not exported:
        only_for("an exported artefact", {"--batch-size": batch_size})
    check_readable("baseline", baseline)
    if path.suffix == ".jsonl":
        quality = _of_records(path, replace(text, split=split or ""), artefact, device, options)
    else:
        only_for("records.jsonl", {"--artefact": artefact, "--device": device})
        if not exported:
            folder.check(model)
        corpus = replace(text, split=split or text.split).load()
        options["progress"] = lambda done, total: watch("translate", done, total, "")
        if exported:
            use_threads(threads)
            from tprune.export.marian.quality import evaluate as of_artefact

            quality = of_artefact(path, corpus, threads=threads, batch_size=batch_size, **options)
        else:
            checkpoint = open_model(model, threads=threads)
            from tprune.marian.quality import evaluate as of_checkpoint

            quality = of_checkpoint(checkpoint, corpus, **options)
    from tprune.marian.quality import Quality

    found = Quality(quality)
    if out:
        found.write(out)
    return found


def _of_records(
    path: Path, text: Text, artefact: Path | None, device: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Score what a device translated; its records name the sentences."""
    from tprune.bench.measure import outputs

    if artefact is None:
        raise BadInput("--artefact is missing: name the folder of the artefact whose translations are to be scored")
    answers = outputs.read(path, artefact, device=device, beams=options["beams"])
    for flag, asked, measured in (("--split", text.split, answers.split), ("--limit", text.limit, answers.limit)):
        if asked and asked != measured:
            raise BadInput(f"{flag} {asked}: the records were measured with {measured}; leave it out")
    text = replace(text, split=answers.split, limit=answers.limit)
    corpus = text.load()
    answers.check_sources(corpus.source)
    from tprune.export.marian.quality import of_output

    return of_output(artefact, answers.ids, corpus, device=answers.device, whole=text.whole(), **options)
