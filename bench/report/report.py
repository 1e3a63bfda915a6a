"""Join what was measured into one folder: report.html, report.md, report.csv, report.json and pareto.png.

`report(["runs/"], Path("report"))`.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from difflib import SequenceMatcher
from functools import cache, partial
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.base.errors import BadInput, Caution
from tprune.bench.accel.targets import Line
from tprune.bench.report import figures, method, metrics, table
from tprune.bench.report.evidence import Evidence, collect
from tprune.bench.report.findings import recommended
from tprune.bench.report.findings import summary as summarise
from tprune.bench.report.join import dense_qualities, join
from tprune.bench.report.page import Page, Picture, Report, Section, Translation, Words, made, write
from tprune.bench.report.row import FIELDS, Row, counted

FUNCTIONAL = "Functional only: emulated devices"
FUNCTIONAL_ONLY = (
    "These runs show that the artefacts and the runner work on these devices, and what they output. An emulator's "
    "times say nothing about a phone, so this report leaves them out."
)
SIMULATED = "Simulated, not measured: ESCALATE beside other accelerators"
SIMULATED_HEADINGS = (
    "network", "quantity", "target (the paper's)", "target is", "simulated (ours)", "simulated / target"
)  # fmt: skip
SIMULATED_UNDER = (
    "A compression target is the paper's best of any network on images of this size. eyeriss has 1,024 multipliers "
    "and the others' buffer, eyeriss-168 the published chip's array and buffer; both run at the others' clock, "
    "precision and DRAM. Several designs or networks: geometric mean."
)
TRANSLATIONS = 8  # sentences to show side by side


def report(runs: Sequence[str | os.PathLike[str]], out: Path | str, *, split: str | None = None) -> Report:
    """Write the report on `runs` (files or folders) into the new folder `out` and return it.

    Raises BadInput when there is nothing to report, a file is damaged, several splits are mixed or `out` is not empty.
    Warns (`errors.Caution`) about files that were left out.
    """
    if not runs:
        raise BadInput("nothing to report on: name at least one folder or file")
    stamp.check_vacant(out)
    found = collect(runs, split=split)
    for remark in found.remarks:
        warnings.warn(remark, Caution, stacklevel=2)
    rows = join(found)
    document = _document(found, rows)
    write(_page(found, rows, document), out, document, table.csv_text(document["rows"], FIELDS))
    return Report(Path(out), rows, document, table.tables(rows))


def _document(found: Evidence, rows: Sequence[Row]) -> dict[str, Any]:
    """Return report.json."""
    summary = summarise(rows)
    timed = [row for row in rows if row.functional is None]
    inputs = {f"artefact {item.artefact}": item.session for item in found.records}
    for one in found.qualities:
        inputs[f"quality {one.model.name} beams {one.beams} {one.precision}"] = str(one.model.id)
    inputs |= {f"simulation {name}": made_from for one in found.simulations for name, made_from in one.inputs}
    measured, devices = method.measured(found, compared=any(row.speedup is not None for row in timed))
    return {
        **stamp.stamp("report", inputs),
        "verdict": list(summary.verdict),
        "warnings": [*summary.warnings, *(text for one in found.simulations for text in one.warnings)],
        "findings": [*summary.findings, *(text for one in found.simulations for text in one.findings)],
        "rows": [row.document() for row in timed],
        "functional": [row.functional_document() for row in rows if row.functional is not None],
        "notes": [*(f"{row.label}: {note}." for row in rows for note in row.notes), *found.remarks],
        "measured": measured,
        "devices": devices,
        "details": [{"name": row.label, **asdict(row.details)} for row in timed if row.details],
        "simulated": [{**asdict(line), "ratio": line.ratio} for one in found.simulations for line in one.summary],
        "commands": _commands(found),
    }


def _commands(found: Evidence) -> list[str]:
    """Return every command behind the report once: exports, evaluations, benchmarks, in that order."""
    calls = [
        *(subject.argv for subject in found.artefacts),
        *(quality.argv for quality in found.qualities),
        *(item.argv for item in found.records),
        *(one.argv for one in found.simulations),
        stamp.argv(),
    ]
    return list(dict.fromkeys(shlex.join(argv) for argv in calls if argv))


def _page(found: Evidence, rows: Sequence[Row], document: dict[str, Any]) -> Page:
    timed = [row for row in rows if row.functional is None]
    lines = [line for one in found.simulations for line in one.summary]
    sections = [*_figure(timed)]
    for row_table in table.tables(rows):
        if row_table.title == table.EMULATED:
            sections.append(Section(FUNCTIONAL, FUNCTIONAL_ONLY, table=row_table))
        else:
            heading = f"Table: {row_table.title}" if row_table.title else "Table"
            sections.append(Section(heading, table=row_table, under=row_table.caption))
    details = table.details(timed)
    sections += [
        *_translations(found, timed),
        *([Section("What is missing, and why", items=document["notes"])] if document["notes"] else []),
        *([Section("Where the time goes", table=details)] if details.rows else []),
        *([simulated(SIMULATED, lines)] if lines else []),
        *([Section("How it was measured", facts=document["measured"])] if document["measured"] else []),
        *(Section(name, facts=facts, level=3) for name, facts in document["devices"].items()),
        Section("Commands", code="\n".join(document["commands"])),
    ]
    devices = ", ".join(dict.fromkeys(row.device for row in rows if row.device)) or "no device"
    title = metrics.of(rows).title if rows else SIMULATED
    heads = (document["warnings"], document["findings"])
    return Page(title, made(document, devices), *heads, sections, document["verdict"])


def _figure(rows: Sequence[Row]) -> list[Section]:
    """Return the figure: on the page one for all rows, as PNG one for each setting, the largest first."""
    groups: dict[str, list[Row]] = {}
    for row in figures.points(rows):
        scored = f", {row.metric.label} of {row.scored} {row.metric.item}s" if row.scored else ""
        threads = counted(row.threads, "thread")
        name = f"{row.device}, {row.runtime} {row.precision}, {threads}, {row.search}{scored}"
        groups.setdefault(name, []).append(row)
    drawn = sorted((own for own in groups.items() if len(own[1]) > 1), key=lambda entry: -len(entry[1]))
    if not drawn:
        return []
    heading = f"{metrics.of(rows).axis.removesuffix(' (%)')} against speed-up"
    heading = heading[0].upper() + heading[1:]
    pictures = [
        Picture(
            "pareto" if number == 1 else f"pareto-{number}",
            heading + (f": {name}" if len(drawn) > 1 else ""),
            cache(partial(figures.pareto, own)),
        )
        for number, (name, own) in enumerate(drawn, start=1)
    ]
    alone = [own[0].label for own in groups.values() if len(own) == 1]
    why = "no other row of the same device, runtime, precision, threads and search has both a score and a speed-up."
    under = f"Not drawn: {'; '.join(alone)}, since {why}" if alone else ""
    return [Section(heading, chart=figures.chart([own for _, own in drawn]), pictures=pictures, under=under)]


def _translations(found: Evidence, rows: Sequence[Row]) -> list[Section]:
    """Return the sentences that the recommended model translates most unlike the dense one, or else the fastest."""
    pruned = sorted((row for row in rows if not row.dense), key=lambda row: -(row.speedup or 0))
    for row in filter(None, [recommended(rows), *pruned]):
        for quality in found.qualities:
            same = (quality.model.name, quality.precision, quality.beams) == (row.name, row.precision, row.beams)
            dense = dense_qualities(found, quality) if same and not quality.dense_fp32 else []
            if len(dense) == 1 and len(dense[0].hypotheses) == len(quality.hypotheses):
                pairs = _most_changed(dense[0].hypotheses, quality.hypotheses)
                sides = (dense[0].model.name, row.label)
                under = "Words that differ are marked. The number is the line of the scored split, where the source is."
                heading = "Translations that changed most"
                return [Section(heading, translations=pairs, sides=sides, under=under)] if pairs else []
    return []


def _most_changed(dense: Sequence[str], other: Sequence[str]) -> list[Translation]:
    changed = []
    for number, texts in enumerate(zip(dense, other, strict=True), start=1):
        one, two = (text.split() for text in texts)
        matcher = SequenceMatcher(None, one, two, autojunk=False)
        if (ratio := matcher.ratio()) < 1:
            changed.append((ratio, number, one, two, matcher.get_opcodes()))
    found = []
    for _, number, one, two, codes in sorted(changed, key=lambda entry: entry[:2])[:TRANSLATIONS]:
        left: Words = [(" ".join(one[a:b]), code != "equal") for code, a, b, _, _ in codes if b > a]
        right: Words = [(" ".join(two[c:d]), code != "equal") for code, _, _, c, d in codes if d > c]
        found.append(Translation(number, left, right))
    return found


def simulated(heading: str, lines: Sequence[Line]) -> Section:
    """Return the paper's targets beside our simulated numbers; those from invented densities are marked SYNTHETIC."""
    cells = [
        [synthetic(line.network, line.source), line.quantity, f"{line.target.value:g}x", line.target.standing]
        + [f"{line.simulated:.2f}x", f"{line.ratio:.2f}"]
        for line in lines
    ]
    return Section(heading, table=table.texts(SIMULATED_HEADINGS, cells, 2), under=SIMULATED_UNDER)


def synthetic(network: str, source: str) -> str:
    """Return the display name of a simulated network."""
    return f"{network} (SYNTHETIC)" if source == "synthetic" else network
