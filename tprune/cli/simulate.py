"""The verb `simulate`: networks on ESCALATE and on other accelerators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tprune.bench.accel.designs import DESIGNS, usual
from tprune.cli import terminal
from tprune.cli.options import Dry, Json, Out, Seed, values
from tprune.verbs.simulate import simulate as verb


def _networks(incomplete: str) -> list[str]:
    from tprune.bench.accel.networks import NETWORKS

    return values(*NETWORKS)(incomplete)


def simulate(
    workloads: Annotated[
        list[str],
        typer.Argument(
            help="A workload.json, an ONNX file, or a named network.",
            metavar="WORKLOAD|NET...",
            autocompletion=_networks,
        ),  # fmt: skip
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
    with terminal.bar() as show:
        made = verb(
            workloads, out, design=design, hardware=hardware or (), fidelity=fidelity, validate=validate,
            results=results, seed=seed, dry_run=dry_run, watch=show,
        )  # fmt: skip
    if made.report is None:
        names = [one.name for one in made.designs]
        line = ", ".join(f"{net.network} ({len(net.layers)} layers, {net.source})" for net in made.networks)
        plan = {"dry_run": True, "networks": {net.network: len(net.layers) for net in made.networks}, "designs": names}
        return terminal.answer(plan, as_json=json, lines=[f"would simulate {line} on {', '.join(names)}"])
    document = made.report.document
    lines = [*document["warnings"], *document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=made.report.terminal(), lines=lines)
