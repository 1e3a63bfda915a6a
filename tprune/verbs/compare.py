"""Compare other runtimes with exported artefacts on the same sentences."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import stamp
from tprune.base.errors import BadInput, WorkFailed, one_of
from tprune.base.threads import use_threads
from tprune.bench.compare import rivals as others
from tprune.bench.compare import roofline, table
from tprune.bench.compare import rows as comparison
from tprune.bench.measure import host, record, tokens
from tprune.bench.measure.conditions import BUSY_CPUS
from tprune.bench.measure.settings import Settings
from tprune.bench.measure.tasks import read_subject
from tprune.marian import folder
from tprune.verbs.inputs import Text, Watch, open_model, silent

if TYPE_CHECKING:
    from tprune.bench.compare.rivals import Rival
    from tprune.bench.compare.rows import System
    from tprune.bench.measure.record import Record
    from tprune.bench.measure.tasks import Subject
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus

REAL, MADE_UP = 200, 20  # sentences without a limit
CHECKED = 20  # sentences of the parity check of an export


@dataclass(frozen=True)
class Comparison:
    """The systems to compare and the settings; what was measured is in `rows` and `document`, empty in a dry run.

    `failed` names the systems that could not be measured.
    """

    systems: Sequence[str]
    settings: Settings
    rows: Sequence[System] = ()
    document: Mapping[str, Any] | None = None
    failed: str | None = None


def compare(
    model: str | None,
    artefacts: Sequence[Path],
    text: Text | None,
    out: Path,
    settings: Settings,
    *,
    rivals: str | None = None,
    size: str | None = None,
    length: int = 20,
    dry_run: bool = False,
    watch: Watch = silent,
) -> Comparison:
    """Measure `model` in other runtimes and as `artefacts`, and write `out` with .md, .csv and .jsonl beside it.

    With a `size`, model and sentences are random, and every translation has `length` tokens.
    """
    asked = others.chosen(rivals)
    _check_call(model, artefacts, text, size, out)
    ours = [read_subject(path) for path in artefacts]
    settings = settings if settings.limit else replace(settings, limit=MADE_UP if size else REAL)
    systems = [rival.name for rival in asked] + (list(map(str, artefacts)) or ["onnx fp32", "onnx int8"])
    if dry_run:
        return Comparison(systems, settings)
    corpus = replace(text, limit=settings.limit).load() if text else None
    use_threads(settings.threads)
    work = _real(str(model), corpus) if corpus else _made_up(str(size), length, settings.limit or MADE_UP)
    rows, facts, failed = _compared(work, ours, asked, out, settings, watch)
    inputs = {"model": work.checkpoint.id, **({"corpus": work.corpus.id} if work.corpus else {})}
    document = comparison.document(rows, inputs=inputs, facts={**work.facts, **facts})
    stamp.write_json(out, document)
    stamp.write_text(out.with_suffix(".md"), table.as_markdown(rows, document["measured"]))
    stamp.write_text(out.with_suffix(".csv"), table.as_csv(rows))
    return Comparison(systems, settings, rows, document, failed)


def _compared(
    work: Work, ours: Sequence[Subject], asked: Sequence[Rival], out: Path, settings: Settings, watch: Watch
) -> tuple[list[Any], dict[str, str], str | None]:
    """Return the rows of the table, facts about them, and which systems failed."""
    with tempfile.TemporaryDirectory(prefix="tprune-") as name:
        subjects = _subjects(work, ours, asked, Path(name), settings.threads, watch)
        _check_tokens(subjects, work)
        bandwidth = roofline.read_bandwidth(settings.threads)
        records, failed = _measured(subjects, work, asked, out, settings, watch)
        translations = comparison.translations(records)
        bandwidth = max(bandwidth, roofline.read_bandwidth(settings.threads))
        bound = partial(roofline.Roofline, bandwidth=bandwidth, cache_bytes=roofline.cache_bytes())
        rooflines = {
            subject.id: bound(roofline.step_bytes(subject.folder))
            for subject in subjects
            if subject.runtime == "onnxruntime" and subject.id in translations  # a damaged one is named in `failed`
        }
    work.check(translations, {subject.id: subject.name for subject in subjects})
    scores = _scores(work, translations, comparison.reference(records))
    rows = comparison.rows(records, scores=scores, rooflines=rooflines)
    return rows, _facts(work, asked, rows), failed


@dataclass(frozen=True)
class Work:
    """What all systems translate, as token ids, and the model; `corpus` is None for random sentences."""

    checkpoint: Checkpoint
    sentences: list[list[int]]
    corpus: Corpus | None
    length: int | None  # that every translation must have
    facts: Mapping[str, str]

    def check(self, translations: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, str]) -> None:
        """Raise WorkFailed if a translation does not have the required length."""
        for identity, output in translations.items():
            lengths = sorted(set(map(len, output)))
            if self.length is not None and lengths != [self.length]:
                raise WorkFailed(f"{names[identity]} gave {lengths} tokens where every system must give {self.length}")


def _check_call(model: str | None, artefacts: Sequence[Path], text: Text | None, size: str | None, out: Path) -> None:
    from tprune.marian.synthetic import SIZES

    if size is None and (model is None or text is None):
        lacks = "no MODEL is named" if model is None else "--data is missing"
        raise BadInput(
            f"nothing to compare, {lacks}: tprune compare MODEL [ARTEFACT...] --data DATA, or --size opus-mt"
        )
    if size is not None:
        one_of("--size", size, tuple(SIZES))
        if model is not None or artefacts or text is not None:
            raise BadInput("--size makes its own model and sentences: leave MODEL, ARTEFACT and --data out")
    if out.is_dir() or out.suffix != ".json":
        raise BadInput(f"--out {str(out)!r}: must be a file named *.json, for example compare.json")
    stamp.check_file("--out", out)
    if model is not None:
        folder.check(model)


def _real(model: str, corpus: Corpus) -> Work:
    checkpoint = open_model(model)
    from tprune.marian.translate import encode

    sentences, cut = encode(checkpoint.tokenizer, corpus.source, limit=checkpoint.model.config.max_position_embeddings)
    facts = {"sentences": f"the first {len(corpus)} of split {corpus.split} of {corpus.name}"}
    if cut:
        facts["truncated"] = f"{cut} sentences were longer than the model takes and were truncated for all"
    return Work(checkpoint, sentences, corpus, None, facts)


def _made_up(size: str, length: int, count: int) -> Work:
    from tprune.marian import synthetic

    checkpoint = synthetic.make(size, length=length)
    sentences = synthetic.sources(count, length, checkpoint.model.config.vocab_size)
    note = f"random weights, {count} random sources of {length} tokens, every translation {length} tokens: no BLEU"
    return Work(checkpoint, sentences, None, length, {"sentences": note})


def _subjects(
    work: Work, ours: Sequence[Subject], rivals: Sequence[Rival], folder: Path, threads: int, watch: Watch
) -> list[Subject]:
    """Convert the checkpoint for each rival, and to ONNX unless there are artefacts; return all to measure."""
    from tprune.export.graphs.precision import FP32, INT8
    from tprune.export.marian.publish import ungated
    from tprune.export.ort.export import to_onnx
    from tprune.rivals.write import write_ctranslate2, write_hf

    checkpoint = work.checkpoint
    steps: dict[str, Callable[[Path], object]] = {}
    for rival in rivals:
        for name in rival.precisions:
            convert = partial(write_ctranslate2, precision=name) if rival.name == "ctranslate2" else write_hf
            steps[f"{rival.short}-{name}"] = partial(convert, checkpoint)
    if not ours:
        sentences = ["a b c"] if work.corpus is None else work.corpus.source[:CHECKED]
        export = partial(to_onnx, checkpoint, sentences=sentences, threads=threads, judge=ungated)
        steps |= {f"onnx-{one.name}": partial(export, precision=one) for one in (FP32, INT8)}
    made = []
    for done, (name, write) in enumerate(steps.items()):
        watch("prepare", done, len(steps), name)
        write(folder / name)
        read = read_subject if name.startswith("onnx") else others.read
        made.append(read(folder / name))
    watch("prepare", len(steps), len(steps), "")
    return [*made, *ours]


def _check_tokens(subjects: Sequence[Subject], work: Work) -> None:
    """Raise BadInput for an artefact of another vocabulary, whose ids would mean other words."""
    if work.corpus is None:
        return
    for subject in subjects:
        if not (subject.folder / others.FILE).is_file():
            encode = tokens.read(subject.folder).encode
            pairs = zip(work.corpus.source, work.sentences, strict=True)
            if any(encode(text)[: len(ids) - 1] != ids[:-1] for text, ids in pairs):  # a long one was cut before </s>
                raise BadInput(f"artefact {str(subject.folder)!r} splits the sentences into other tokens than MODEL")


def _measured(
    subjects: Sequence[Subject], work: Work, rivals: Sequence[Rival], out: Path, settings: Settings, watch: Watch
) -> tuple[list[Record], str | None]:
    """Return the records, and in one line which systems failed; WorkFailed if all did."""
    runtimes = {subject.runtime for subject in subjects} - {rival.package for rival in rivals}
    programs = {**others.programs(rivals), **host.find_programs(runtimes, beams=settings.beams)}
    path = _raw(out)
    try:
        progress: Any = partial(watch, "measure")
        return host.run(
            subjects, work.sentences, out=path, settings=settings, programs=programs, progress=progress
        ), None
    except WorkFailed as error:
        found = record.newest(record.read(path)) if path.is_file() else []
        if not any(item.complete and item.samples_ns for item in found):
            raise
        return found, str(error)


def _raw(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def _scores(
    work: Work, translations: Mapping[str, Sequence[Sequence[int]]], reference: str | None
) -> dict[str, dict[str, Any]]:
    """Return BLEU, chrF and the p-value against the reference, by artefact id."""
    from tprune.marian import quality as evaluate
    from tprune.marian.translate import decode

    corpus = work.corpus
    if corpus is None:
        return {}
    texts = {identity: decode(work.checkpoint.tokenizer, ids) for identity, ids in translations.items()}
    scores = {}
    for identity, own in texts.items():
        scores[identity] = asdict(evaluate.score(own, corpus.target, language=corpus.language))
        if reference in texts and identity != reference:
            versus = texts[reference]
            scores[identity]["p_value"] = evaluate.compare(own, versus, corpus.target, language=corpus.language)
    return scores


def _facts(work: Work, rivals: Sequence[Rival], rows: Sequence[System]) -> dict[str, str]:
    """Return how the rivals were run, which are not installed, and what bounds our decoder steps."""
    versions = stamp.versions()
    facts = {rival.name: f"{rival.package} {versions[rival.package]}, {rival.method}" for rival in rivals}
    if work.checkpoint.facts and "ctranslate2" in facts:
        facts["ctranslate2"] += "; it has no pruned models, so this one has zeros in place of what was cut"
    if missing := [rival.name for rival in others.RIVALS if not rival.installed]:
        facts["not installed"] = f"{', '.join(missing)}: pip install 'tprune[rivals]'"
    if (busy := max(row.others or 0 for row in rows)) > BUSY_CPUS:
        facts["caution"] = f"other programs kept up to {busy:.1f} CPUs busy meanwhile: times are of a busy machine"
    bounds = {row.name: row.roofline for row in rows if row.roofline}
    for name, bound in bounds.items():
        facts[f"roofline of {name}"] = (
            f"a step reads {bound.step_bytes / 1e6:.1f} MB of weights in {bound.step_us:,.0f} us, "
            + (
                "all of them may stay in the largest cache, where memory is no bound"
                if bound.cached == 1
                else f"{bound.share:.0%} of the {bound.bandwidth / 1e9:.1f} GB/s that memory gives; "
                f"{bound.cached:.0%} of them may stay in the largest cache, where memory is no bound"
            )
        )
    return facts
