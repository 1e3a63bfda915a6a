"""The verb `simulate`: a network on ESCALATE and on the designs that it is held against."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.cli import terminal
from tprune.cli.options import Dry, Json, Out, Seed

if TYPE_CHECKING:
    from tprune.bench.accel.hardware import Hardware
    from tprune.bench.accel.layer import Workload


def simulate(
    workloads: Annotated[
        list[str], typer.Argument(help="A workload.json, an ONNX file, or a named network.", metavar="WORKLOAD|NET...")
    ],
    out: Out,
    design: Annotated[
        str, typer.Option(help="Designs, separated by commas.")
    ] = "escalate,eyeriss,eyeriss-168,scnn,sparten",
    hardware: Annotated[
        list[Path] | None, typer.Option(help="A design whose constants a TOML file overrides; may be repeated.")
    ] = None,
    fidelity: Annotated[
        str, typer.Option(help="exact, statistical, or auto: exact where there are masks, else statistical.")
    ] = "auto",
    validate: Annotated[
        bool, typer.Option("--validate", help="Also hold SCNN and SparTen against their abstracts (seconds).")
    ] = False,
    results: Annotated[Path | None, typer.Option(help="Also write the rows alone to this file.")] = None,
    seed: Seed = 0,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Simulate ESCALATE beside Eyeriss, SCNN and SparTen: cycles, energy, DRAM traffic, compressed size."""
    # Matrix products here are many and small: a second BLAS thread waits for the first far longer than it helps.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tprune.bench.accel import simulate as models
    from tprune.bench.accel import storage, validation
    from tprune.bench.accel.hardware import design as named
    from tprune.bench.accel.hardware import from_toml
    from tprune.bench.accel.sweep import sweep
    from tprune.bench.report import results as rows
    from tprune.bench.report import simulation as accel_report

    terminal.one_of("--fidelity", fidelity, ("auto", "exact", "statistical"))
    designs = [*map(named, dict.fromkeys(filter(None, design.split(",")))), *map(from_toml, hardware or ())]
    _check(designs)
    nets = [_workload(name) for name in workloads]
    stamp.check_vacant(out)
    if dry_run:
        plan = {"dry_run": True, "networks": {net.network: len(net.layers) for net in nets}}
        told = ", ".join(f"{net.network} ({len(net.layers)} layers, {net.source})" for net in nets)
        told += f" on {', '.join(one.name for one in designs)}"
        return terminal.answer(
            {**plan, "designs": [one.name for one in designs]}, as_json=json, lines=[f"would simulate {told}"]
        )
    runs = []
    with terminal.bar() as show:
        for net in nets:
            exact = fidelity == "exact" or (fidelity == "auto" and net.masked)
            progress: Any = lambda done, total, net=net: show(net.network, done, total, "")  # noqa: E731
            found = models.simulate_all(net, designs, exact=exact, seed=seed, progress=progress)
            sizes = storage.sizes(net, exact=exact, seed=seed)
            runs.append(accel_report.Run(found, sizes, sweep(found, seed=seed)))
    checks = validation.silicon() + (validation.abstracts() if validate else [])
    report = accel_report.report(runs, out, checks=checks)
    document = report.document
    if results:
        rows.write(results, document["rows"], inputs=document["inputs"])
    lines = [*document["warnings"], *document["findings"], f"report: {out / 'report.html'}"]
    terminal.answer(document, as_json=json, table=report.terminal(), lines=lines)


def _check(designs: list[Hardware]) -> None:
    if not designs:
        raise BadInput("--design is empty; name at least one, for example escalate,sparten")
    names = [one.name for one in designs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"two designs are called {twice[0]!r}; give the one of the TOML file another name")


def _workload(name: str) -> Workload:
    from tprune.bench.accel import networks, onnx_file, workload

    if name in networks.NETWORKS:
        return networks.named(name)
    path = Path(name)
    if path.suffix == ".onnx":
        return onnx_file.read(path)
    return workload.read(path) if path.suffix == ".json" or path.is_file() else networks.named(name)
