"""Join what was measured into one folder: report.html, report.md, report.csv, report.json and pareto.png.

`report(["runs/"], Path("report"))`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.bench.report import evidence, page, simulated, table
from tprune.bench.report import figures as figure
from tprune.bench.report import method as measured
from tprune.bench.report.evidence import Evidence
from tprune.bench.report.findings import findings, labels, warnings
from tprune.bench.report.join import join
from tprune.bench.report.page import Contents
from tprune.bench.report.row import Joined, row_documents

TITLE = "Pruned Marian models: quality and speed"
IMAGES_TITLE = "Compressed image networks: accuracy and speed"


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
    timed = [item for item in joined if item.functional is None]
    emulated = [item for item in joined if item.functional is not None]
    inputs = {f"artefact {item.artefact}": item.session for session in found.sessions for item in session}
    inputs |= {
        f"quality {quality['model']['name']} beams {quality['beams']} {quality['precision']}": quality["model"]["id"]
        for quality in found.qualities
    }
    inputs |= {f"simulation {name}": found_id for one in found.simulations for name, found_id in one["inputs"].items()}
    compared = any(item.row.speedup is not None for item in timed)
    return {
        **stamp.stamp("report", inputs),
        "warnings": [*warnings(joined), *(told for one in found.simulations for told in one["warnings"])],
        "findings": [
            *(findings(timed) if joined else ()),
            *(told for one in found.simulations for told in one["findings"]),
        ],
        "rows": row_documents(timed),
        "functional": [
            {**row, **item.functional}
            for row, item in zip(row_documents(emulated), emulated, strict=True)
            if item.functional is not None
        ],
        "notes": [*_notes(joined), *found.remarks],
        "measured": measured.shared(found, compared=compared),
        "devices": measured.devices(found),
        "details": [
            {"name": name, **item.details} for name, item in zip(labels(timed), timed, strict=True) if item.details
        ],
        "simulated": [line for one in found.simulations for line in one["summary"]],
        "commands": _commands(found),
    }


def _notes(joined: Sequence[Joined]) -> list[str]:
    return [f"{name}: {note}." for name, item in zip(labels(joined), joined, strict=True) for note in item.notes]


def _commands(found: Evidence) -> list[str]:
    """Return every command behind the report once: exports, evaluations, benchmarks, in that order."""
    told = [
        *(list(subject.argv) for subject in found.artefacts),
        *(quality.get("argv", []) for quality in found.qualities),
        *(item.argv for session in found.sessions for item in session),
        *(one["argv"] for one in found.simulations),
        stamp.stamp("report")["argv"],
    ]
    return list(dict.fromkeys(shlex.join(argv) for argv in told if argv))


def _contents(document: Mapping[str, Any], joined: Sequence[Joined]) -> Contents:
    rows, functional = document["rows"], document["functional"]
    devices = ", ".join(dict.fromkeys(row["device"] for row in [*rows, *functional] if row["device"])) or "no device"
    images = all(row["accuracy"] is not None for row in [*rows, *functional])
    return Contents(
        title=page.SIMULATED if not (rows or functional) else IMAGES_TITLE if images else TITLE,
        made=f"{document['created'].replace('T', ' ').replace('+00:00', ' UTC')} · {devices} · "
        f"tprune {document['versions'].get('tprune', 'from source')}",
        warnings=document["warnings"],
        findings=document["findings"],
        rows=rows,
        figures=_figures(rows),
        functional=functional,
        notes=document["notes"],
        measured=document["measured"],
        devices=document["devices"],
        details=[_told_details(details) for details in document["details"]],
        simulated=simulated.cells(simulated.lines({"summary": document["simulated"]})),
        commands=document["commands"],
    )


def _figures(rows: Sequence[table.RowData]) -> dict[str, list[table.RowData]]:
    """Return the groups of rows that get a figure each: one device, one setting, scored on the same sentences."""
    groups: dict[str, list[table.RowData]] = {}
    for row in rows:
        if row["speedup"] is not None:
            images = row["accuracy"] is not None
            beams = "one image at a time" if images else "greedy" if row["beams"] == 1 else f"{row['beams']} beams"
            threads = table.counted(row["threads"], "thread")
            mode = "" if row["mode"] == "warm" else f", {row['mode']}"
            what = f"accuracy of {row['scored']} images" if images else f"BLEU of {row['scored']} sentences"
            scored = f", {what}" if row["scored"] else ""
            name = f"{row['device']}, {row['runtime']} {row['precision']}, {threads}, {beams}{mode}{scored}"
            groups.setdefault(name, []).append(row)
    drawn = {name: own for name, own in groups.items() if len(figure.points(own)) > 1}
    return dict(sorted(drawn.items(), key=lambda entry: -len(entry[1])))


def _told_details(details: Mapping[str, Any]) -> dict[str, str | None]:
    """Return one row of the details table, rounded, under headings with units."""

    def told(key: str, pattern: str) -> str | None:
        return None if details[key] is None else pattern.format(details[key])

    return {
        "model": details["name"],
        "load (ms)": told("load_ms", "{:.0f}"),
        "first run (ms)": told("first_ms", "{:.1f}"),
        "encoder median (ms)": told("encoder_ms", "{:.2f}"),
        "decoder step mean (ms)": told("step_ms", "{:.3f}"),
        "p99 (ms)": told("p99_ms", "{:.2f}"),
        "tokens a sentence": told("tokens", "{:.1f}"),
        "tokens/s": told("tokens_per_s", "{:.0f}"),
        "outside engine": told("overhead_percent", "{:.1f} %"),
        **_told_endurance(details["endurance"]),
        "speed by threads": _told_sweep(details["sweep"]),
        "threads in process": told("threads_got", "{}"),
        "CPUs used by others": told("others", "{:.1f}"),
        "least CPU share": None if details["cpu_share"] is None else f"{100 * details['cpu_share']:.0f} %",
        "as on the host": None if details["identical"] is None else _of(details),
        "before opening (MiB)": told("base_mib", "{:.0f}"),
        "anonymous (MiB)": told("anon_mib", "{:.0f}"),
        "file-backed (MiB)": told("file_mib", "{:.0f}"),
    }


def _told_endurance(ends: Mapping[str, float] | None) -> dict[str, str | None]:
    headings = {"first minute (ms)": "first_ms", "last minute (ms)": "last_ms", "last / first": "ratio"}
    return {heading: f"{ends[key]:.2f}" if ends else None for heading, key in headings.items()}


def _told_sweep(gain: Mapping[str, Any] | None) -> str | None:
    if gain is None:
        return None
    return f"{gain['ratio']:.2f}x ({gain['low']:.2f}–{gain['high']:.2f}) of {table.counted(gain['threads'], 'thread')}"


def _of(details: Mapping[str, Any]) -> str:
    return f"{details['identical']} of {details['sentences']}"


def _markdown(contents: Contents, figures: Sequence[str]) -> str:
    parts = [f"# {contents.title}", contents.made, *(f"**{sentence}**" for sentence in contents.warnings)]
    parts.append("\n".join(f"- {sentence}" for sentence in contents.findings))
    headings = [page.figure_heading(rows) for rows in contents.figures.values()]
    parts += [f"![{heading}]({name})" for heading, name in zip(headings, figures, strict=True)]
    for name, rows in table.groups(contents.rows).items():
        parts += [f"## {page.table_heading(name)}", table.markdown(rows, table.columns(rows))]
        parts.append(table.context_line(rows, mark="`"))
    if contents.functional:
        parts += [f"## {page.FUNCTIONAL}", page.FUNCTIONAL_ONLY]
        parts.append(table.markdown(contents.functional, table.functional_columns(contents.functional)))
    if contents.notes:
        parts += ["## What is missing, and why", "\n".join(f"- {note}" for note in contents.notes)]
    if contents.details:
        headings = [key for key in contents.details[0] if any(row[key] is not None for row in contents.details)]
        lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
        lines += ["| " + " | ".join(row[key] or table.BLANK for key in headings) + " |" for row in contents.details]
        parts += ["## Where the time goes", "\n".join(lines)]
    if contents.simulated:
        lines = ["| " + " | ".join(row) + " |" for row in [simulated.HEADINGS, *contents.simulated]]
        lines.insert(1, "|" + "---|" * simulated.TEXTS + "---:|" * (len(simulated.HEADINGS) - simulated.TEXTS))
        parts += [f"## {page.SIMULATED}", "\n".join(lines), simulated.UNDER]
    if contents.measured:
        parts += ["## How it was measured", _pairs(contents.measured)]
    for name, facts in contents.devices.items():
        parts += [f"### {name}", _pairs(facts)]
    parts += ["## Commands", "```\n" + "\n".join(contents.commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _pairs(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())
