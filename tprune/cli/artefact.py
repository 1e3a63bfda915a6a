"""The verbs that measure: evaluate, export, bench, report. Each parses, calls the library and shows the result."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.base.threads import use_threads
from tprune.cli import terminal
from tprune.cli.options import Data, Dry, Json, Limit, Model, Out, Source, Target, TargetCpu, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from tprune.bench.measure.inputs import Inputs
    from tprune.bench.measure.record import Record
    from tprune.marian.corpus import Corpus


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="A checkpoint, an exported artefact, or records.jsonl.", metavar="MODEL|ARTEFACT|RECORDS"),
    ],
    data: Data,
    source: Source = "en",
    target: Target = "de",
    split: Annotated[
        str | None, typer.Option(help="Split to score: test, or what the records were measured on.")
    ] = None,
    beams: Annotated[int, typer.Option(help="1 is greedy.", min=1)] = 1,
    baseline: Annotated[Path | None, typer.Option(help="quality.json of the model to compare with.")] = None,
    artefact: Annotated[Path | None, typer.Option(help="Of records: the artefact whose translations to score.")] = None,
    device: Annotated[str | None, typer.Option(help="Of records: the device, where there are several.")] = None,
    out: Annotated[Path | None, typer.Option(help="quality.json to write.")] = None,
    limit: Limit = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Of an artefact: sentences at once.", min=1, show_default="by precision")
    ] = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Translate a test set; BLEU and chrF with their signatures, and the p-value against a baseline.

    RECORDS of `tprune bench` are not translated again: what the device itself said is scored.
    """
    from tprune.marian import corpus as texts
    from tprune.marian.quality import evaluate as measure

    if out and out.is_dir():
        raise BadInput(f"--out {str(out)!r} is a folder; name a file, for example {str(out / 'quality.json')!r}")
    use_threads(threads)
    load: Any = partial(texts.load, data, source=source, target=target)
    options: Any = {"beams": beams, "baseline": baseline}
    exported = (Path(model) / "manifest.json").is_file()
    if not exported:
        terminal.only_for("an exported artefact", {"--batch-size": batch_size})
    if Path(model).suffix == ".jsonl":
        quality = _of_records(Path(model), load, artefact, device, split, limit, options)
    else:
        terminal.only_for("records.jsonl", {"--artefact": artefact, "--device": device})
        corpus = load(split=split or "test", limit=limit)
        with terminal.bar() as show:
            options["progress"] = lambda done, n: show("translate", done, n, "")
            if exported:
                from tprune.export.marian.quality import evaluate as of_artefact

                quality = of_artefact(Path(model), corpus, threads=threads, batch_size=batch_size, **options)
            else:
                from tprune.marian.checkpoint import load as load_checkpoint

                quality = measure(load_checkpoint(model), corpus, **options)
    if out:
        stamp.write_json(out, quality)
    lines = [
        f"BLEU {quality['bleu']:.2f}  {quality['signature']}",
        f"chrF {quality['chrf']:.2f}  {quality['chrf_signature']}",
    ]
    if truncated := quality["truncated"]:
        lines.append(
            f"{truncated} of {quality['sentences']} sentences were longer than the model takes and were truncated"
        )
    if versus := quality["baseline"]:
        search = "" if versus["beams"] == quality["beams"] else f" with {versus['beams']} beams"
        lines.append(f"baseline {versus['name']}{search}: BLEU {versus['bleu']:.2f}, p = {versus['p_value']:.4f}")
    if said := quality.get("device"):
        emulated = ", emulated" if said["emulated"] else ""
        lines.append(f"of what {said['model']} ({said['abi']}{emulated}) said, {quality['sentences']} sentences")
    terminal.answer(quality, as_json=json, lines=lines)


def export(
    model: Model,
    out: Out,
    data: Data,
    to: Annotated[str, typer.Option(help="Runtime: onnx or executorch.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    keep_float: Annotated[
        str | None,
        typer.Option(help="Of int8: what stays fp32, of encoder, decoder, output, embedding.", metavar="COMPONENT,..."),
    ] = None,
    max_bleu_drop: Annotated[
        float | None,
        typer.Option(
            help="Of int8: largest BLEU loss on --split, in per cent of fp32's. What costs more stays fp32; 0.5."
        ),
    ] = None,
    target_cpu: TargetCpu = None,
    source: Source = "en",
    target: Target = "de",
    split: str = "val",
    limit: Annotated[int, typer.Option(help="Sentences of the parity check.", min=1)] = 50,
    trim_vocabulary: Annotated[
        str | None, typer.Option(help="Leave out the tokens that the target side of this split never uses.")
    ] = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a checkpoint; the artefact appears only if it translates token for token like PyTorch (fp32), or with
    hardly less BLEU (int8)."""
    from tprune.export import targets
    from tprune.export.graphs.precision import COMPONENTS
    from tprune.marian import corpus as texts
    from tprune.marian.checkpoint import load
    from tprune.marian.vocabulary import trim

    terminal.one_of("--to", to, ("onnx", "executorch"))
    terminal.one_of("--precision", precision, ("fp32", "int8"))
    if precision == "fp32":
        terminal.only_for("--precision int8", {"--keep-float": keep_float, "--max-bleu-drop": max_bleu_drop})
    targets.check(target_cpu, to=to, precision=precision)
    if to == "onnx":
        from tprune.export.ort.export import to_onnx as write
    else:
        from tprune.export.et.export import to_executorch as write
    stamp.check_vacant(out)
    sides: Any = {"source": source, "target": target}
    if precision == "int8":
        from tprune.export.graphs.precision import INT8
        from tprune.export.marian.gate import Gate, quantize

        kept = [name.strip() for name in (keep_float or "").split(",") if name.strip()]
        if keep_float is not None and not kept:
            raise BadInput("--keep-float names no component; an export has encoder, decoder, output, embedding")
        wanted = replace(INT8.without(kept), target_cpu=target_cpu or targets.ALL)
        gate = Gate(texts.load(data, split=split, **sides), 0.5 if max_bleu_drop is None else max_bleu_drop, wanted)
    else:
        sentences = texts.load(data, split=split, limit=limit, **sides).source
    checkpoint = load(model)
    if trim_vocabulary:
        words = texts.load(data, split=trim_vocabulary, **sides)
        limit_ids = checkpoint.model.config.max_position_embeddings
        checkpoint = trim(checkpoint, texts.tokenise(words, checkpoint.tokenizer, limit_ids).target)
    if precision == "int8":
        with terminal.bar() as show:
            told: Any = {"parity": limit, "threads": threads, "watch": lambda name, done, n: show(name, done, n, "")}
            manifest = quantize(checkpoint, out, write, gate, **told)
    else:
        manifest = write(checkpoint, out, sentences=sentences, threads=threads)
    size = sum(entry.bytes for entry in manifest.files.values())
    parity = manifest.parity
    lines = [
        f"wrote {out}: {size / 1e6:.1f} MB, {parity.identical} of {parity.sentences} sentences token for token as in "
        f"PyTorch, logits within {parity.max_abs_logit_diff:.1e}"
    ]
    answer = {"out": str(out), "id": manifest.id, "bytes": size, **asdict(parity)}
    if cost := manifest.cost:
        answer |= {"int8": list(manifest.int8), "target_cpu": manifest.target_cpu, "cost": asdict(cost)}
        stayed = ", ".join(name for name in COMPONENTS if name not in manifest.int8) or "nothing"
        lines.append(
            f"int8: {', '.join(manifest.int8)}; fp32: {stayed}. {cost.split}: BLEU {cost.bleu:.2f}, fp32 "
            f"{cost.fp32_bleu:.2f}, p = {cost.p_value:.3f}; {cost.identical} of {cost.sentences} sentences the same"
        )
    if delegation := manifest.delegation:
        answer["delegation"] = asdict(delegation)
        lines.append(delegation.told)
    terminal.answer(answer, as_json=json, lines=lines)


def bench(
    artefacts: Annotated[
        list[Path] | None, typer.Argument(help="Exported artefacts, the dense one among them.", metavar="ARTEFACT...")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Parallel text, as for the other verbs; of image networks: images.", metavar="DATA"),
    ] = None,
    on: Annotated[str, typer.Option(help="Where to measure: host, adb or adb:SERIAL[,SERIAL...].")] = "host",
    out: Annotated[Path, typer.Option(help="records.jsonl to write or to continue.")] = Path("records.jsonl"),
    source: Source = "en",
    target: Target = "de",
    split: str = "test",
    blocks: Annotated[int, typer.Option(help="Passes over all sentences or images, artefacts interleaved.", min=1)] = 5,
    warmup: Annotated[int, typer.Option(help="Sentences or images thrown away before each pass.", min=0)] = 10,
    warmup_ms: Annotated[
        int | None, typer.Option(help="Milliseconds of warm-up at least: 0, on phones 500.", min=0)
    ] = None,
    mode: Annotated[str, typer.Option(help="warm, cold, spaced (rests between sentences) or sustained.")] = "warm",
    minutes: Annotated[
        float | None, typer.Option(help="Of the mode sustained: how long each artefact runs, instead of --blocks.")
    ] = None,
    beams: Annotated[int, typer.Option(help="1 is greedy.", min=1)] = 1,
    cpus: Annotated[
        str | None, typer.Option(help="CPUs to pin the runner to, such as 4,6-7; on phones also all, or big (default).")
    ] = None,
    adb: Annotated[str | None, typer.Option(help="The adb program, where it is not found by itself.")] = None,
    keep_awake: Annotated[bool, typer.Option("--keep-awake", help="Keep a phone's screen on meanwhile.")] = False,
    fixed_performance: Annotated[
        bool, typer.Option("--fixed-performance", help="Bound a phone's clocks meanwhile (Android 11).")
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Measure nothing: remove what we left on the phone.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use only the first N sentences or images.", min=1)] = 200,
    threads: Annotated[str, typer.Option(help="CPU threads; several to compare, such as 1,2,4.")] = "1",
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure artefacts side by side: batch 1, real sentences or images, interleaved blocks, raw samples kept."""
    from tprune.bench.measure import artefact, host, inputs
    from tprune.bench.measure.settings import Settings, parse_cpus, parse_threads, sweep
    from tprune.bench.phone import fleet as session
    from tprune.bench.phone.station import WARMUP_MS, Handling

    measure: Callable[..., list[Record]]
    least = warmup_ms if warmup_ms is not None else 0 if on == "host" else WARMUP_MS
    chosen: dict[str, Any] = {"mode": mode, "minutes": minutes, "beams": beams, "split": split, "limit": limit}
    settings = Settings(blocks=blocks, warmup=warmup, warmup_ms=least, **chosen)
    numbers = parse_threads(threads)
    if on == "host":
        phones = {"--adb": adb, "--keep-awake": keep_awake, "--fixed-performance": fixed_performance, "--clean": clean}
        terminal.only_for("--on adb", {flag: value or None for flag, value in phones.items()})
        settings = replace(settings, cpus=None if cpus is None else parse_cpus(cpus))
        measure = host.run
    else:
        serials = session.serials(on)
        if clean:
            cleaned = session.clean(serials, adb)
            return terminal.answer(
                {"cleaned": cleaned}, as_json=json, lines=[f"nothing of ours is left on {', '.join(cleaned)}"]
            )
        pinned = cpus or "big"
        handling = Handling(pinned if pinned in {"big", "all"} else parse_cpus(pinned), keep_awake, fixed_performance)
        measure = partial(session.run, serials=serials, handling=handling, adb=adb)
    if not artefacts or data is None:
        lacks = "--data is missing" if artefacts else "no artefact is named"
        raise BadInput(f"nothing to measure, {lacks}: tprune bench ARTEFACT... --data DATA")
    if inputs.common_task([artefact.read(folder) for folder in artefacts]) == "images":
        from tprune.base import pixels

        given: Inputs = pixels.load(data, split=split, limit=limit)
    else:
        given = _sentences(artefacts[0], data, split=split, source=source, target=target, limit=limit)
    asked = sweep(settings, numbers)
    if dry_run:
        plan = {"dry_run": True, "artefacts": list(map(str, artefacts)), **inputs.told(given)}
        plan |= {**asdict(settings), "threads": list(numbers)}
        names, long = ", ".join(map(str, artefacts)), f"{blocks} blocks" if minutes is None else f"{minutes:g} minutes"
        told = f"would measure {names}: {len(given)} {inputs.name(given)}s, {long}, threads {threads}, {mode}, on {on}"
        return terminal.answer(plan, as_json=json, lines=[told])
    with terminal.bar() as show:
        progress: Any = partial(show, "bench") if on == "host" else show
        records = measure(artefacts, given, out=out, settings=asked, progress=progress)
    quality = "" if inputs.task(given) == "images" else " QUALITY.json..."  # images are scored by what was answered
    lines = [f"wrote {len(records)} records to {out}; next: tprune report {out}{quality} --out report"]
    if any(found.loop == "python" for found in records):
        lines.append("measured by a loop in Python, because no C++ compiler is here to build the runner: tprune doctor")
    lines += session.remarks(records)
    terminal.answer({"out": str(out), "records": len(records)}, as_json=json, lines=lines)


def _sentences(folder: Path, data: str, **options: Any) -> Inputs:
    from tprune.bench.measure import tokens
    from tprune.marian import corpus as texts

    encode = tokens.read(folder).encode
    return [encode(sentence) for sentence in texts.load(data, **options).source]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Files and folders: quality.json, records.jsonl, artefacts, simulations.", metavar="RUN..."
        ),
    ],
    out: Out,
    split: Annotated[str | None, typer.Option(help="The split to report, where the runs hold several.")] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the rows alone to this file.")] = None,
    json: Json = False,
) -> None:
    """Join quality and records into report.html, .md, .csv, .json and the Pareto figure."""
    from tprune.bench.report import report as reports
    from tprune.bench.report import results as rows
    from tprune.bench.report import table

    document = reports.report(runs, out, split=split)
    if results:
        rows.write(results, document["rows"], inputs=document["inputs"])
    lines = [*document["warnings"], *document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=table.terminal(document), lines=lines)


def _of_records(
    path: Path,
    load: Callable[..., Corpus],
    artefact: Path | None,
    device: str | None,
    split: str | None,
    limit: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Score what a device said; the records know which sentences those were."""
    from tprune.bench.measure import outputs
    from tprune.export.marian.quality import of_output

    if artefact is None:
        raise BadInput("--artefact is missing: name the folder of the artefact whose translations are to be scored")
    said = outputs.read(path, artefact, device=device, beams=options["beams"])
    for flag, asked, measured in (("--split", split, said.split), ("--limit", limit, said.limit)):
        if asked not in {None, measured}:
            raise BadInput(f"{flag} {asked}: the records were measured with {measured}; leave it out")
    corpus = load(split=said.split, limit=said.limit)
    said.check_sources(corpus.source)
    return of_output(artefact, said.ids, corpus, device=said.device, whole=load(split=said.split), **options)
