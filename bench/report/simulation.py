"""The report of a simulation: a folder with report.html, report.md, report.csv, report.json and the figures.

    report([run], Path("out"), checks=validation.silicon())

Targets are the paper's and simulated numbers ours; numbers from invented densities are marked SYNTHETIC.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from tprune.base import stamp
from tprune.bench.accel import rows
from tprune.bench.accel.hardware import Hardware
from tprune.bench.accel.layer import Workload
from tprune.bench.accel.simulate import Result
from tprune.bench.accel.storage import Size, worked_example
from tprune.bench.accel.sweep import Setting
from tprune.bench.accel.targets import averages, summary
from tprune.bench.accel.validation import Check
from tprune.bench.report import simulation_figures as figures
from tprune.bench.report import table as tables
from tprune.bench.report.evidence import SIMULATION
from tprune.bench.report.page import Page, Picture, Report, Section, made, write
from tprune.bench.report.palette import Look
from tprune.bench.report.report import simulated, synthetic
from tprune.bench.report.table import Table, column, texts

TITLE = "ESCALATE beside Eyeriss, SCNN and SparTen: simulated"
LANES = "Shares of multiplier-cycles; in ESCALATE's 1x1 layers, which only add, adder-cycles. Eyeriss' zeros count too."


@dataclass(frozen=True)
class Run:
    """One network: results on every design, compressed sizes by (format, shrunk), and the sweep (may be empty)."""

    results: Sequence[Result]
    sizes: dict[tuple[str, bool], Size]
    settings: Sequence[Setting]

    @property
    def workload(self) -> Workload:
        """The network."""
        return self.results[0].workload


def report(runs: Sequence[Run], out: Path | str, *, checks: Sequence[Check]) -> Report:
    """Write the report on `runs` into the new folder `out` and return it. BadInput when `out` is not empty."""
    stamp.check_vacant(out)
    document = _document(runs, checks)
    csv = tables.csv_text(document["rows"], [field.name for field in fields(rows.Row)])
    write(_page(document, runs, checks), out, document, csv)
    command = shlex.join(document["argv"])
    found = [rows.row(result, run.sizes, command) for run in runs for result in run.results]
    return Report(Path(out), found, document, _designs(found))


DESIGNS = (
    column("design", "design", number=False, brief=True),
    column("ms per image", "latency_ms", "{:.3f}".format, brief=True),
    column("cycles", "cycles", "{:,}".format, brief=True),
    column("useful", "utilisation", "{:.1%}".format, brief=True),
    column("energy (µJ)", "energy_pj", lambda energy: f"{energy / 1e6:,.1f}", brief=True),
    column("DRAM (MB)", "dram_bytes", lambda count: f"{count / 1e6:.2f}", brief=True),
    column("weights smaller", "compression", "{:.1f}x".format, brief=True),
)


def _designs(found: Sequence[rows.Row]) -> list[Table]:
    """Return a table for each network."""
    networks = dict.fromkeys((row.network, row.source) for row in found)
    return [
        Table(DESIGNS, [row for row in found if row.network == name], figures.title(name, source))
        for name, source in networks
    ]


def _document(runs: Sequence[Run], checks: Sequence[Check]) -> dict[str, Any]:
    header = stamp.stamp(SIMULATION, {run.workload.network: run.workload.id for run in runs})
    command = shlex.join(header["argv"])
    lines = [line for run in runs for line in summary(run.results, run.sizes[rows.FORMAT].ratio)]
    designs = {result.hardware.name: result.hardware for run in runs for result in run.results}
    return {
        **header,
        "warnings": [f"{run.workload.network}: {run.workload.note}." for run in runs if _synthetic(run)],
        "findings": [sentence for run in runs for sentence in _findings(run)],
        "rows": [asdict(rows.row(result, run.sizes, command)) for run in runs for result in run.results],
        "summary": [{**asdict(line), "ratio": line.ratio} for line in [*lines, *averages(lines)]],
        "sizes": [row for run in runs for row in rows.size_rows(run.workload, run.sizes)],
        "sweep": [{"network": run.workload.network, **asdict(item)} for run in runs for item in run.settings],
        "checks": [{**asdict(check), "ratio": check.ratio, "passed": check.passed} for check in checks],
        "designs": {name: {k: asdict(c) for k, c in one.constants.items()} for name, one in designs.items()},
        "fidelity": {run.workload.network: "exact" if run.results[0].exact else "statistical" for run in runs},
        "layers": [row for run in runs for row in rows.layer_rows(run.results)],
    }


def _synthetic(run: Run) -> bool:
    return run.workload.source == "synthetic"


def _findings(run: Run) -> list[str]:
    """Return the sentences at the top."""
    ours = next((result for result in run.results if result.hardware.model.decomposed), None)
    if ours is None:
        return []
    name = synthetic(run.workload.network, run.workload.source)
    size = run.sizes[rows.FORMAT]
    gains: dict[str, list[str]] = {"latency": [], "energy": []}
    for line in summary(run.results, size.ratio):
        kind, _, rival = line.quantity.partition(" over ")
        if rival:
            gains[kind].append(f"{line.simulated:.2f}x over {rival}")
    text = "".join(f" Simulated {kind} gains: {', '.join(found)}." for kind, found in gains.items() if found)
    stalled = 1 - ours.compute_cycles / ours.cycles
    return [
        f"{name}: ESCALATE simulated at {ours.latency_ms:.3g} ms per image, weights {size.ratio:.1f}x smaller.{text}",
        f"{name}: {stalled:.0%} of ESCALATE's time is spent waiting for DRAM, "
        f"and DRAM takes {ours.energy['dram'] / sum(ours.energy.values()):.0%} of its energy.",
    ]


def _page(document: Mapping[str, Any], runs: Sequence[Run], checks: Sequence[Check]) -> Page:
    lines = [line for run in runs for line in summary(run.results, run.sizes[rows.FORMAT].ratio)]
    designs = {result.hardware.name: result.hardware for run in runs for result in run.results}
    sections = [simulated("Target, simulated, ratio", [*lines, *averages(lines)])]
    for run in runs:
        sections += _network(run)
    sections += [_sizes(runs), *_checks(checks), _constants(list(designs.values()))]
    sections.append(Section("Command", code=shlex.join(document["argv"])))
    fidelity = ", ".join(dict.fromkeys(document["fidelity"].values()))
    return Page(
        TITLE, made(document, f"fidelity: {fidelity}", "batch 1"), document["warnings"], document["findings"], sections
    )


def _network(run: Run) -> list[Section]:
    results, workload = run.results, run.workload
    name, slug = figures.note(results), re.sub(r"[^\w.-]", "_", workload.network)
    ours = next((result for result in results if result.hardware.model.decomposed), results[0])
    cells = [
        [
            result.hardware.name,
            f"{result.latency_ms:.3f}",
            f"{result.latency_ms / ours.latency_ms:.2f}x",
            f"{result.cycles:,}",
            f"{result.compute_cycles:,}",
            f"{result.utilisation:.1%}",
            f"{sum(result.energy.values()) / 1e6:,.1f}",
            f"{result.dram_bytes / 1e6:.2f}",
            f"{(run.sizes[rows.FORMAT].ratio if result.hardware.model.decomposed else rows.kept(result)):.1f}x",
            "–" if result.accuracy is None else f"{result.accuracy:.2%}",
        ]
        for result in results
    ]
    headings = ["design", "ms per image", f"over {ours.hardware.name}'s", "cycles", "without DRAM stalls"]
    headings += ["useful", "energy (µJ)", "DRAM (MB)", "weights smaller", "accuracy"]
    sections = [
        Section(f"Designs: {name}", table=texts(headings, cells), under=_ran(workload)),
        Section(f"Where the arithmetic's time goes: {name}", table=_losses(results), under=LANES),
        Section(
            f"Time by layer: {name}",
            pictures=[
                _picture(f"layers-{slug}", "Latency of each layer, logarithmic", partial(figures.layers, results))
            ],
        ),
        Section(
            f"Energy by component: {name}",
            pictures=[_picture(f"energy-{slug}", "Energy of an image by component", partial(figures.energy, results))],
            table=_energy(results),
        ),
    ]
    if run.settings:
        draw = partial(figures.sensitivity, run.settings, name)
        pictures = [
            _picture(f"sensitivity-{kind}-{slug}", f"{kind} gain by assumption", partial(draw, quantity=kind))
            for kind in ("latency", "energy")
        ]
        heading = f"Which assumptions carry the result: {name}"
        sections.append(Section(heading, pictures=pictures, table=_settings(run.settings)))
    return sections


def _ran(workload: Workload) -> str:
    """Return which networks the designs ran, as far as the workload says."""
    plain = workload.plain
    if plain is None:  # the note of a synthetic network is among the warnings
        return f"{workload.note}." if workload.note and workload.source == "trained" else ""
    return f"ESCALATE runs {workload.network}: {workload.note}. The others run {plain.network}: {plain.note}."


def _picture(name: str, caption: str, draw: Callable[[Look], bytes]) -> Picture:
    return Picture(name, caption, cache(draw))


def _losses(results: Sequence[Result]) -> Table:
    cells = [
        [result.hardware.name, f"{result.utilisation:.1%}"]
        + [", ".join(f"{cause} {share:.1%}" for cause, share in result.losses.items() if share >= 0.0005) or "–"]
        for result in results
    ]
    return texts(["design", "useful", "lost to (DRAM stalls not counted)"], cells, 3)


def _energy(results: Sequence[Result]) -> Table:
    components = list(results[0].energy)
    cells = [
        [result.hardware.name, *(f"{result.energy[part] / 1e6:,.2f}" for part in components)]
        + [f"{sum(result.energy.values()) / 1e6:,.2f}"]
        for result in results
    ]
    return texts(["design", *(f"{part} (µJ)" for part in components), "all (µJ)"], cells)


def _settings(settings: Sequence[Setting]) -> Table:
    cells = [
        [item.parameter, f"{item.value}" + (" (as in the tables)" if item.usual else "")]
        + [f"{gain:.2f}x" for gain in (item.latency_dense, item.latency_sparse, item.energy_dense, item.energy_sparse)]
        for item in settings
    ]
    return texts(
        ["assumption", "value", "latency over dense", "latency over sparse", "energy over dense", "energy over sparse"],
        cells,
        2,
    )


def _sizes(runs: Sequence[Run]) -> Section:
    cells = [
        [synthetic(run.workload.network, run.workload.source), name, "yes" if shrink else "no"]
        + [f"{bits / 8e3:,.1f}" for bits in (size.places + size.signs, size.bases + size.scales, size.weights)]
        + [f"{size.norms / 8e3:,.1f}", f"{size.compressed / 8e3:,.1f}", f"{size.ratio:.1f}x"]
        + ["–" if size.decomposed_ratio is None else f"{size.decomposed_ratio:.1f}x"]
        for run in runs
        for (name, shrink), size in run.sizes.items()
    ]
    headings = ["network", "index format", "channels shrunk", "coefficients (kB)", "bases, scales (kB)"]
    headings += ["plain 8-bit layers (kB)", "norms (kB)", "all (kB)", "over 32-bit floats", "decomposed layers alone"]
    example = ", ".join(
        f"M = {bases}{' shrunk' if shrink else ''}: {worked_example(bases, shrink=shrink):.0f}x"
        for shrink in (True, False)
        for bases in (5, 6)
    )
    under = f"The same accounting on the convolutions of PENNI's released VGG16, bit mask: {example}."
    return Section("Compressed sizes of ESCALATE's weights", table=texts(headings, cells, 3), under=under)


def _checks(checks: Sequence[Check]) -> list[Section]:
    if not checks:
        return []
    cells = [
        [check.what, f"{check.published:g}", check.source, f"{check.simulated:.4g}", f"{check.ratio:.2f}"]
        + [f"{check.within[0]:g}–{check.within[1]:g}", "yes" if check.passed else f"misses: {check.ratio - 1:+.0%}"]
        for check in checks
    ]
    table = texts(["what", "published", "where", "simulated (ours)", "ratio", "band", "inside"], cells, 1)
    under = (
        "Eyeriss' latency is compute only. The abstracts' averages are of networks and densities that are not "
        "published; ours are AlexNet's and VGG16's convolutions with recalled densities (SYNTHETIC)."
    )
    return [Section("How far the models can be trusted", table=table, under=under)]


def _constants(designs: Sequence[Hardware]) -> Section:
    cells = [
        [design.name, field, constant.source, constant.confidence, f"{constant.value:g}"]
        for design in designs
        for field, constant in design.constants.items()
    ]
    table = texts(["design", "constant", "source", "confidence", "value"], cells, 4)
    under = (
        "seen: in a published text or code; inferred from one; recalled: not verified; chosen: by us; given: a file."
    )
    return Section("The designs' constants", table=table, under=under)
