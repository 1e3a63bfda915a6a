"""Join what was measured into one folder: report.html, report.md, report.csv, report.json and pareto.png.

`report(["runs/"], Path("report"))`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import evidence, figure, page, table
from bench.evidence import Evidence
from bench.findings import findings, labels
from bench.join import Joined, join, row_documents
from bench.page import Contents
from tprune import stamp
from tprune.errors import BadInput

TITLE = "Pruned Marian models: quality and speed"
STATISTIC = (
    "Batch 1, one process per artefact, warm-up thrown away. Blocks of all artefacts ran back to back in turn. "
    "Times are of a whole sentence, token ids in to token ids out; tokenisation is not in them. {ratio}"
    "Peak memory is that of a fresh process over the longest sentences, Python and ONNX Runtime included."
)
RATIO = (
    "The speed-up is the ratio of the summed times of the same sentences in the same blocks; its 95 % interval comes "
    "from 2,000 draws over sentences and blocks. "
)


def report(runs: Sequence[Path | str], out: Path | str, *, split: str | None = None) -> dict[str, Any]:
    """Write the report on everything found in `runs` (files or folders) into the new folder `out`; return report.json.

    Raises BadInput when nothing is found, a file is damaged, several splits are mixed or `out` is not empty.
    """
    if not runs:
        raise BadInput("nothing to report on: name at least one folder or file")
    stamp.check_vacant(out)
    found = evidence.collect(runs, split=split)
    joined = join(found)
    document = _document(found, joined)
    contents = _contents(document, joined)
    with stamp.new_folder(out) as folder:
        stamp.write_json(folder / "report.json", document)
        stamp.write_text(folder / "report.csv", table.csv_text(document["rows"]))
        names = []
        for number, rows in enumerate(contents.figures.values(), start=1):
            names.append("pareto.png" if number == 1 else f"pareto-{number}.png")
            (folder / names[-1]).write_bytes(figure.pareto(rows))
        stamp.write_text(folder / "report.md", _markdown(contents, names))
        stamp.write_text(folder / "report.html", page.html(contents))
    return document


def _document(found: Evidence, joined: Sequence[Joined]) -> dict[str, Any]:
    names = labels(joined)
    inputs = {f"artefact {item.artefact}": item.nonce for session in found.sessions for item in session}
    inputs |= {
        f"quality {quality['model']['name']} beams {quality['beams']} {quality['precision']}": quality["model"]["id"]
        for quality in found.qualities
    }
    return {
        **stamp.stamp("report", inputs),
        "findings": findings(joined),
        "rows": row_documents(joined),
        "notes": [f"{name}: {note}." for name, item in zip(names, joined, strict=True) for note in item.notes]
        + list(found.remarks),
        "measured": _measured(found, joined),
        "details": [{"name": name, **item.details} for name, item in zip(names, joined, strict=True) if item.details],
        "commands": _commands(found),
    }


def _measured(found: Evidence, joined: Sequence[Joined]) -> dict[str, str]:
    """Return how everything was measured, heading -> text; a text lists every value where there are several."""
    records = [item for session in found.sessions for item in session if item.valid and item.samples_ns]
    facts: dict[str, list[Any]] = {
        "device": [f"{item.device['model']} ({item.device['abi']}, {item.device['kind']})" for item in records],
        "threads": [item.threads for item in records],
        "CPUs allowed": [_cpus(item.affinity) for item in records],
        "blocks": [item.blocks for item in records],
        "sentences": [len(item.samples_ns) for item in records],
        "warm-up sentences per block": [item.settings.get("warmup", "not recorded") for item in records],
        "split": [item.split for item in records] or [quality["split"] for quality in found.qualities],
        "sentences scored": [quality.get("sentences") for quality in found.qualities],
        "sacreBLEU signature": [quality["signature"] for quality in found.qualities],
        "chrF signature": [quality.get("chrf_signature") for quality in found.qualities],
        "load average before a block": [_loads([item.conditions["before"]["loadavg"][0] for item in records])],
        "governor": [item.conditions["before"].get("governor") or "not readable" for item in records],
        "Python": [item.versions.get("python") for item in records],
        "ONNX Runtime": [item.versions.get("onnxruntime") for item in records],
        "PyTorch (quality)": [quality.get("versions", {}).get("torch") for quality in found.qualities],
    }
    texts = {name: ", ".join(dict.fromkeys(str(v) for v in values if v)) for name, values in facts.items()}
    measured = {name: text for name, text in texts.items() if text}
    if records:
        compared = any(item.row.speedup is not None for item in joined)
        measured["method"] = STATISTIC.format(ratio=RATIO if compared else "")
    return measured


def _cpus(affinity: Mapping[str, list[int] | None]) -> str:
    got = affinity["got"] or []
    return f"{' '.join(map(str, got))} ({'pinned' if affinity['asked'] else 'not pinned'})"


def _loads(loads: Sequence[float]) -> str:
    return f"{min(loads):.2f} to {max(loads):.2f}" if loads else ""


def _commands(found: Evidence) -> list[str]:
    """Return every command behind the report once: exports, evaluations, benchmarks, in that order."""
    told = [
        *(list(subject.argv) for subject in found.artefacts),
        *(quality.get("argv", []) for quality in found.qualities),
        *(item.argv for session in found.sessions for item in session),
        stamp.stamp("report")["argv"],
    ]
    return list(dict.fromkeys(shlex.join(argv) for argv in told if argv))


def _contents(document: Mapping[str, Any], joined: Sequence[Joined]) -> Contents:
    rows = document["rows"]
    groups: dict[str, list[table.RowData]] = {}
    for row in rows:
        if row["speedup"] is not None:
            beams = "greedy" if row["beams"] == 1 else f"{row['beams']} beams"
            threads = f"{row['threads']} thread{'s' if row['threads'] != 1 else ''}"
            name = f"{row['runtime']} {row['precision']}, {row['device']}, {threads}, {beams}"
            groups.setdefault(name, []).append(row)
    drawn = {name: own for name, own in groups.items() if len(figure.points(own)) > 1}
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows if row["device"])) or "no device"
    return Contents(
        title=TITLE,
        made=f"{document['created'].replace('T', ' ').replace('+00:00', ' UTC')} · {devices} · "
        f"tprune {document['versions'].get('tprune', 'from source')}",
        findings=document["findings"],
        rows=rows,
        figures=dict(sorted(drawn.items(), key=lambda entry: -len(entry[1]))),
        notes=document["notes"],
        measured=document["measured"],
        details=[_told_details(details) for details in document["details"]],
        commands=document["commands"],
    )


def _told_details(details: Mapping[str, Any]) -> dict[str, str | None]:
    """Return one row of the details table, rounded, under headings with units."""

    def told(key: str, pattern: str) -> str | None:
        return None if details[key] is None else pattern.format(details[key])

    return {
        "model": details["name"],
        "load (ms)": told("load_ms", "{:.0f}"),
        "first sentence (ms)": told("first_ms", "{:.1f}"),
        "encoder median (ms)": told("encoder_ms", "{:.2f}"),
        "decoder step mean (ms)": told("step_ms", "{:.3f}"),
        "p99 (ms)": told("p99_ms", "{:.2f}"),
        "tokens/s": told("tokens_per_s", "{:.0f}"),
        "outside runtime": told("overhead_percent", "{:.1f} %"),
        "least CPU share": None if details["cpu_share"] is None else f"{100 * details['cpu_share']:.0f} %",
        "process before opening (MiB)": told("base_mib", "{:.0f}"),
    }


def _markdown(contents: Contents, figures: Sequence[str]) -> str:
    parts = [f"# {contents.title}", contents.made, "\n".join(f"- {sentence}" for sentence in contents.findings)]
    parts += [f"![BLEU against speed-up]({name})" for name in figures]
    parts += ["## Table", table.markdown(contents.rows).rstrip()]
    if contents.notes:
        parts += ["## What is missing, and why", "\n".join(f"- {note}" for note in contents.notes)]
    if contents.details:
        headings = list(contents.details[0])
        lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
        lines += ["| " + " | ".join(row[key] or table.BLANK for key in headings) + " |" for row in contents.details]
        parts += ["## Where the time goes", "\n".join(lines)]
    if contents.measured:
        parts += ["## How it was measured", "\n".join(f"- {name}: {text}" for name, text in contents.measured.items())]
    parts += ["## Commands", "```\n" + "\n".join(contents.commands) + "\n```"]
    return "\n\n".join(parts) + "\n"
