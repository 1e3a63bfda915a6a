"""The verb `simulate`: a network on ESCALATE and on the designs that it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tprune.base import stamp
from tprune.bench.accel.designs import DESIGNS, usual
from tprune.cli import terminal
from tprune.cli.options import Dry, Json, Out, Seed


def simulate(
    workloads: Annotated[
        list[str], typer.Argument(help="A workload.json, an ONNX file, or a named network.", metavar="WORKLOAD|NET...")
    ],
    out: Out,
    design: Annotated[str, typer.Option(help=f"Designs, separated by commas: {', '.join(DESIGNS)}.")] = ",".join(
        usual()
    ),
    hardware: Annotated[
        list[Path] | None, typer.Option(help="A design whose constants a TOML file overrides; may be repeated.")
    ] = None,
    fidelity: Annotated[
        str, typer.Option(help="exact, statistical, or auto: exact where there are masks, else statistical.")
    ] = "auto",
    validate: Annotated[
        bool, typer.Option("--validate", help="Also compare SCNN and SparTen with their abstracts (takes seconds).")
    ] = False,
    results: Annotated[Path | None, typer.Option(help="Also write the rows alone to this file.")] = None,
    seed: Seed = 0,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Simulate ESCALATE beside Eyeriss, SCNN and SparTen: cycles, energy, DRAM traffic, compressed size."""
    from tprune.verbs import simulate as verbs

    terminal.one_of("--fidelity", fidelity, verbs.FIDELITIES)
    designs = verbs.chosen(list(filter(None, design.split(","))), hardware or ())
    nets = verbs.read(workloads)
    stamp.check_vacant(out)
    if dry_run:
        plan = {"dry_run": True, "networks": {net.network: len(net.layers) for net in nets}}
        would = ", ".join(f"{net.network} ({len(net.layers)} layers, {net.source})" for net in nets)
        names = [one.name for one in designs]
        lines = [f"would simulate {would} on {', '.join(names)}"]
        return terminal.answer({**plan, "designs": names}, as_json=json, lines=lines)
    with terminal.bar() as show:
        done = verbs.simulate(
            nets, designs, out=out, fidelity=fidelity, validate=validate, results=results, seed=seed,
            watch=lambda net, layers, total: show(net, layers, total, ""),
        )  # fmt: skip
    from tprune.bench.report import simulation_table

    document = done.document or {}
    lines = [*document["warnings"], *document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=simulation_table.terminal(document["rows"]), lines=lines)
