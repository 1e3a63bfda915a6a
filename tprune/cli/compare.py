"""The verb `compare`: the same sentences through what a user would run instead, and through our artefacts."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.base import stamp
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.threads import use_threads
from tprune.cli import terminal
from tprune.cli.options import Dry, Json, Source, Target, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tprune.bench.compare.rivals import Rival
    from tprune.bench.measure.artefact import Artefact
    from tprune.bench.measure.record import Record
    from tprune.bench.measure.settings import Settings
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus

    Show = Callable[[str, int, int, str], None]

REAL, MADE_UP = 200, 20  # sentences where no --limit says how many
CHECKED = 20  # sentences of the parity check of an export


def compare(
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub id of a Marian checkpoint, stock or pruned.", metavar="MODEL")
    ] = None,
    artefacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Exported artefacts; without any, MODEL as ONNX fp32 and int8.", metavar="[ARTEFACT...]"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Parallel text, as for the other verbs.", metavar="DATA")] = None,
    rivals: Annotated[
        str | None, typer.Option(help="Of hf, ctranslate2; without the flag those that are installed.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="No MODEL and no DATA: random weights of this size (opus-mt), for speed alone.")
    ] = None,
    length: Annotated[int, typer.Option(help="Of --size: tokens of every source and every translation.", min=2)] = 20,
    source: Source = "en",
    target: Target = "de",
    split: str = "test",
    beams: Annotated[int, typer.Option(help="1 is greedy.", min=1)] = 1,
    blocks: Annotated[int, typer.Option(help="Passes over all sentences, systems interleaved.", min=1)] = 5,
    warmup: Annotated[int, typer.Option(help="Sentences thrown away before each pass.", min=0)] = 10,
    limit: Annotated[
        int | None, typer.Option(help="Sentences: the first 200, or of --size 20.", min=1, show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="compare.json; raw samples, Markdown and CSV beside it.")] = Path(
        "compare.json"
    ),
    threads: Threads = 1,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure HuggingFace transformers, CTranslate2 and our artefacts side by side: same sentences, batch 1.

    Token ids in and token ids out for everybody, each system in processes of its own, blocks interleaved. BLEU is of
    what was measured, its p-value against transformers.
    """
    from tprune.bench.compare import rivals as others
    from tprune.bench.compare import roofline
    from tprune.bench.compare import rows as comparison
    from tprune.bench.compare import table as compare_table
    from tprune.bench.measure.settings import Settings
    from tprune.marian import corpus as texts

    asked = others.chosen(rivals)
    _check_call(model, artefacts, data, size, out)
    use_threads(threads)
    sides: Any = {"source": source, "target": target}
    count = limit or (MADE_UP if size else REAL)
    settings = Settings(threads=threads, blocks=blocks, warmup=warmup, beams=beams, split=split, limit=count)
    if dry_run:
        systems = [rival.name for rival in asked] + (list(map(str, artefacts or [])) or ["onnx fp32", "onnx int8"])
        told = f"would compare {', '.join(systems)}: {count} sentences, {blocks} blocks, {threads} threads"
        return terminal.answer({"dry_run": True, "systems": systems, **asdict(settings)}, as_json=json, lines=[told])
    with terminal.bar() as show, tempfile.TemporaryDirectory(prefix="tprune-") as name:
        if size:
            work = _made_up(size, length, count)
        else:
            work = _real(str(model), texts.load(str(data), split=split, limit=count, **sides))
        subjects = _subjects(work, artefacts or [], asked, Path(name), threads, show)
        _check_tokens(subjects, work)
        bandwidth = roofline.read_bandwidth(threads)
        records, failed = _measured(subjects, work, asked, out, settings, show)
        said = comparison.translations(records)
        bound = partial(roofline.Roofline, bandwidth=max(bandwidth, roofline.read_bandwidth(threads)))
        rooflines = {
            subject.id: bound(roofline.step_bytes(subject.folder), cache_bytes=roofline.cache_bytes())
            for subject in subjects
            if subject.runtime == "onnxruntime" and subject.id in said  # a damaged one is named below
        }
    work.check(said, {subject.id: subject.name for subject in subjects})
    scores = _scores(work, said, comparison.reference(records))
    rows = comparison.rows(records, scores=scores, rooflines=rooflines)
    inputs = {"model": work.checkpoint.id, **({"corpus": work.corpus.id} if work.corpus else {})}
    document = comparison.document(rows, inputs=inputs, facts={**work.facts, **_facts(work, asked, rows)})
    stamp.write_json(out, document)
    stamp.write_text(out.with_suffix(".md"), compare_table.as_markdown(document))
    stamp.write_text(out.with_suffix(".csv"), compare_table.as_csv(rows))
    lines = [f"{name}: {text}" for name, text in document["measured"].items()]
    lines.append(f"wrote {out}, {out.with_suffix('.md')}, {out.with_suffix('.csv')} and raw samples in {_raw(out)}")
    terminal.answer(document, as_json=json, table=compare_table.terminal(rows), lines=lines)
    if failed:
        raise WorkFailed(failed)


@dataclass(frozen=True)
class Work:
    """What everybody translates, token ids, and by which model; `corpus` is None for made-up sentences."""

    checkpoint: Checkpoint
    sentences: list[list[int]]
    corpus: Corpus | None
    length: int | None  # that every translation must have
    facts: Mapping[str, str]

    def check(self, said: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, str]) -> None:
        """Raise WorkFailed where a translation has not the length that all were told to give."""
        for artefact, output in said.items():
            lengths = sorted(set(map(len, output)))
            if self.length is not None and lengths != [self.length]:
                raise WorkFailed(f"{names[artefact]} gave {lengths} tokens where every system must give {self.length}")


def _check_call(
    model: str | None, artefacts: Sequence[Path] | None, data: str | None, size: str | None, out: Path
) -> None:
    from tprune.marian.synthetic import SIZES

    if size is None and (model is None or data is None):
        lacks = "no MODEL is named" if model is None else "--data is missing"
        raise BadInput(
            f"nothing to compare, {lacks}: tprune compare MODEL [ARTEFACT...] --data DATA, or --size opus-mt"
        )
    if size is not None:
        terminal.one_of("--size", size, tuple(SIZES))
        if model is not None or artefacts or data is not None:
            raise BadInput("--size makes its own model and sentences: leave MODEL, ARTEFACT and --data out")
    if out.is_dir() or out.suffix != ".json":
        raise BadInput(f"--out {str(out)!r}: must be a file named *.json, for example compare.json")


def _real(model: str, corpus: Corpus) -> Work:
    from tprune.marian.checkpoint import load
    from tprune.marian.translate import encode

    checkpoint = load(model)
    sentences, cut = encode(checkpoint.tokenizer, corpus.source, limit=checkpoint.model.config.max_position_embeddings)
    facts = {"sentences": f"the first {len(corpus)} of split {corpus.split} of {corpus.name}"}
    if cut:
        facts["truncated"] = f"{cut} sentences were longer than the model takes and were cut for all"
    return Work(checkpoint, sentences, corpus, None, facts)


def _made_up(size: str, length: int, count: int) -> Work:
    from tprune.marian import synthetic

    checkpoint = synthetic.make(size, length=length)
    sentences = synthetic.sources(count, length, checkpoint.model.config.vocab_size)
    told = f"random weights, {count} random sources of {length} tokens, every translation {length} tokens: no BLEU"
    return Work(checkpoint, sentences, None, length, {"sentences": told})


def _subjects(
    work: Work, artefacts: Sequence[Path], rivals: Sequence[Rival], folder: Path, threads: int, show: Show
) -> list[Artefact]:
    """Write the checkpoint as each rival reads it, and as ONNX where no artefact is named; return all to measure."""
    from tprune.bench.compare import rivals as others
    from tprune.bench.measure import artefact
    from tprune.export.graphs.precision import FP32, INT8
    from tprune.export.marian.publish import ungated
    from tprune.export.ort.export import to_onnx
    from tprune.rivals.write import write_ctranslate2, write_hf

    ours = [artefact.read(path) for path in artefacts]  # a wrong folder is noticed before anything is converted
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
        show("prepare", done, len(steps), name)
        write(folder / name)
        read = artefact.read if name.startswith("onnx") else others.read
        made.append(read(folder / name))
    show("prepare", len(steps), len(steps), "")
    return [*made, *ours]


def _check_tokens(subjects: Sequence[Artefact], work: Work) -> None:
    """Raise BadInput for an artefact of another vocabulary: its ids would mean other words."""
    from tprune.bench.compare import rivals as others
    from tprune.bench.measure import tokens

    if work.corpus is None:
        return
    for subject in subjects:
        if not (subject.folder / others.FILE).is_file():
            encode = tokens.read(subject.folder).encode
            pairs = zip(work.corpus.source, work.sentences, strict=True)
            if any(encode(text)[: len(ids) - 1] != ids[:-1] for text, ids in pairs):  # a long one was cut before </s>
                raise BadInput(f"artefact {str(subject.folder)!r} splits the sentences into other tokens than MODEL")


def _measured(
    subjects: Sequence[Artefact], work: Work, rivals: Sequence[Rival], out: Path, settings: Settings, show: Show
) -> tuple[list[Record], str | None]:
    """Return the records, and in one line which systems failed; WorkFailed when none of them came to an end."""
    from tprune.bench.compare import rivals as others
    from tprune.bench.measure import host, record

    runtimes = {subject.runtime for subject in subjects} - {rival.package for rival in rivals}
    programs = {**others.programs(rivals), **host.find_programs(runtimes, beams=settings.beams)}
    path = _raw(out)
    try:
        progress: Any = partial(show, "measure")
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
    work: Work, said: Mapping[str, Sequence[Sequence[int]]], reference: str | None
) -> dict[str, dict[str, Any]]:
    """Return, by artefact id, BLEU and chrF of what was said, and the p-value of the difference to the reference."""
    from tprune.marian import quality as evaluate
    from tprune.marian.translate import decode

    corpus = work.corpus
    if corpus is None:
        return {}
    texts = {artefact: decode(work.checkpoint.tokenizer, ids) for artefact, ids in said.items()}
    scores = {}
    for artefact, own in texts.items():
        scores[artefact] = asdict(evaluate.score(own, corpus.target, language=corpus.language))
        if reference in texts and artefact != reference:
            versus = texts[reference]
            scores[artefact]["p_value"] = evaluate.compare(own, versus, corpus.target, language=corpus.language)
    return scores


def _facts(work: Work, rivals: Sequence[Rival], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return how the rivals were run, which of them are missing, and what bounds our decoder steps."""
    from tprune.bench.compare.rivals import RIVALS
    from tprune.bench.measure.conditions import BUSY_CPUS

    versions = stamp.versions()
    facts = {rival.name: f"{rival.package} {versions[rival.package]}, {rival.how}" for rival in rivals}
    if work.checkpoint.facts and "ctranslate2" in facts:
        facts["ctranslate2"] += "; it knows no pruned models, so this one has zeros in place of what was cut"
    if missing := [rival.name for rival in RIVALS if not rival.installed]:
        facts["not installed"] = f"{', '.join(missing)}: pip install 'tprune[rivals]'"
    if (busy := max(row["others"] or 0 for row in rows)) > BUSY_CPUS:
        facts["caution"] = f"other programs kept up to {busy:.1f} CPUs busy meanwhile: times are of a busy machine"
    bounds = {row["name"]: row["roofline"] for row in rows if row["roofline"]}
    for name, bound in bounds.items():
        facts[f"roofline of {name}"] = (
            f"a step reads {bound['step_bytes'] / 1e6:.1f} MB of weights in {bound['step_us']:,.0f} us, "
            + (
                "all of them may stay in the largest cache, where memory is no bound"
                if bound["cached"] == 1
                else f"{bound['share']:.0%} of the {bound['bandwidth'] / 1e9:.1f} GB/s that memory gives; "
                f"{bound['cached']:.0%} of them may stay in the largest cache, where memory is no bound"
            )
        )
    return facts
