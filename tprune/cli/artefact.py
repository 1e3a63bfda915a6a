"""The verbs that export and measure: evaluate, export, bench, report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tprune.base.significance import p_text
from tprune.bench.measure.settings import MODES, Settings
from tprune.cli import terminal
from tprune.cli.options import (
    Beams,
    Blocks,
    Data,
    Dry,
    Json,
    Limit,
    Model,
    Out,
    PrecisionName,
    Source,
    Target,
    TargetCpu,
    Threads,
    To,
    Warmup,
    values,
)
from tprune.export.graphs.precision import COMPONENTS, MAX_BLEU_DROP, PARITY
from tprune.verbs.inputs import Text

if TYPE_CHECKING:
    from tprune.verbs.bench import Benchmark


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
    beams: Beams = 1,
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

    RECORDS of `tprune bench` are not translated again: the device's own translations are scored.
    """
    from tprune.verbs import evaluate as verb

    text = Text(data, source, target, limit=limit)
    with terminal.bar() as show:
        found = verb.evaluate(
            model, text, split=split, beams=beams, baseline=baseline, artefact=artefact, device=device, out=out,
            batch_size=batch_size, threads=threads, watch=show,
        )  # fmt: skip
    quality = found.document
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
        lines.append(f"baseline {versus['name']}{search}: BLEU {versus['bleu']:.2f}, {p_text(versus['p_value'])}")
    if device_facts := quality.get("device"):
        emulated = ", emulated" if device_facts["emulated"] else ""
        place = f"{device_facts['model']} ({device_facts['abi']}{emulated})"
        lines.append(f"translated on {place}, {quality['sentences']} sentences")
    terminal.answer(quality, as_json=json, lines=lines)


def export(
    model: Model,
    out: Out,
    data: Data,
    to: To = "onnx",
    precision: PrecisionName = "fp32",
    keep_float: Annotated[
        str | None,
        typer.Option(help="Of int8: what stays fp32, of encoder, decoder, output, embedding.", metavar="COMPONENT,..."),
    ] = None,
    max_bleu_drop: Annotated[
        float | None,
        typer.Option(
            help="Of int8: largest BLEU loss on --split, in per cent of fp32's; components that would cost "
            f"more stay fp32. Default {MAX_BLEU_DROP}."
        ),
    ] = None,
    target_cpu: TargetCpu = None,
    source: Source = "en",
    target: Target = "de",
    split: str = "val",
    limit: Annotated[int, typer.Option(help="Sentences of the parity check.", min=1)] = PARITY,
    trim_vocabulary: Annotated[
        str | None, typer.Option(help="Leave out the tokens that the target side of this split never uses.")
    ] = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a checkpoint, checked to translate like PyTorch token for token (fp32) or with little BLEU loss (int8)."""
    from tprune.verbs import export as verb

    settings = verb.Settings(to, precision, keep_float, max_bleu_drop, target_cpu, limit, threads)
    text = Text(data, source, target, split)
    with terminal.bar() as show:
        manifest = verb.export(model, text, out, settings, vocabulary=trim_vocabulary, watch=show)
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
            f"{cost.fp32_bleu:.2f}, {p_text(cost.p_value)}; {cost.identical} of {cost.sentences} sentences the same"
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
    split: str = Settings.split,
    blocks: Blocks = Settings.blocks,
    warmup: Warmup = Settings.warmup,
    warmup_ms: Annotated[
        int | None, typer.Option(help="Milliseconds of warm-up at least: 0, on phones 500.", min=0)
    ] = None,
    mode: Annotated[
        str,
        typer.Option(help="warm, cold, spaced (rests between sentences) or sustained.", autocompletion=values(*MODES)),
    ] = Settings.mode,
    minutes: Annotated[
        float | None, typer.Option(help="Of the mode sustained: how long each artefact runs, instead of --blocks.")
    ] = None,
    beams: Beams = Settings.beams,
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
    from tprune.verbs import bench as verb

    place = verb.Place(on, cpus, adb, keep_awake, fixed_performance)
    least = place.warmup_ms if warmup_ms is None else warmup_ms
    settings = Settings(
        blocks=blocks, warmup=warmup, warmup_ms=least, mode=mode, minutes=minutes, beams=beams, split=split, limit=limit
    )
    if clean:
        cleaned = verb.clean(place)
        line = f"nothing of ours is left on {', '.join(cleaned)}"
        return terminal.answer({"cleaned": cleaned}, as_json=json, lines=[line])
    text = None if data is None else Text(data, source, target, split, limit)
    folders = artefacts or []
    with terminal.bar() as show:
        made = verb.bench(folders, text, out, settings, place=place, threads=threads, dry_run=dry_run, watch=show)
    if dry_run:
        return _would_measure(made, list(map(str, folders)), threads, on, json)
    answer = {"out": str(out), "records": len(made.records)}
    terminal.answer(answer, as_json=json, lines=[_measured(made, out), *made.remarks])


def _measured(made: Benchmark, out: Path) -> str:
    """Say how many records were written, and what to do next."""
    from tprune.bench.measure.record import MEMORY_BLOCK

    quality = "" if made.task.labelled else " QUALITY.json..."  # records of labelled inputs hold the quality themselves
    memory = sum(record.block == MEMORY_BLOCK for record in made.records)
    counts = f"{made.new} new records to {out}; {len(made.records)} in all, {memory} of them memory passes"
    return f"wrote {counts}; next: tprune report {out}{quality} --out report"


def _would_measure(made: Benchmark, names: list[str], threads: str, on: str, json: bool) -> None:
    """Print the plan of a dry run."""
    own = made.settings
    long = f"{own.blocks} blocks" if own.minutes is None else f"{own.minutes:g} minutes"
    plan = {"dry_run": True, "artefacts": names, **made.facts, **asdict(own)}
    plan["threads"] = list(map(int, threads.split(",")))
    what = f"{made.count} {made.task.noun}s, {long}, threads {threads}, {own.mode}, on {on}"
    terminal.answer(plan, as_json=json, lines=[f"would measure {', '.join(names)}: {what}"])


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
    from tprune.verbs import report as verb

    made = verb.report(runs, out, split=split, results=results)
    document = made.document
    lines = [*document["verdict"], *document["warnings"], *document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=made.terminal(), lines=lines)
