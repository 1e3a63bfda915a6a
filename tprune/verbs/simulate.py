"""Simulate networks on ESCALATE and on other accelerators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base import stamp
from tprune.base.errors import BadInput, one_of
from tprune.verbs.inputs import Watch, silent

if TYPE_CHECKING:
    from tprune.bench.accel.hardware import Hardware
    from tprune.bench.accel.layer import Workload
    from tprune.bench.report.page import Report


@dataclass(frozen=True)
class Simulation:
    """The networks, the designs and the report; None in a dry run."""

    networks: Sequence[Workload]
    designs: Sequence[Hardware]
    report: Report | None


def simulate(
    workloads: Sequence[str],
    out: Path,
    *,
    design: str | None = None,
    hardware: Sequence[Path] = (),
    fidelity: str = "auto",
    validate: bool = False,
    results: Path | None = None,
    seed: int = 0,
    dry_run: bool = False,
    watch: Watch = silent,
) -> Simulation:
    """Simulate each workload (a file or a named network) on each design, and write a report to the folder `out`.

    `design` lists designs, separated by commas (default: `designs.usual`); `hardware` adds designs of TOML files. With
    `validate`, SCNN and SparTen are also checked against their publications. `results` receives the rows alone.
    """
    stamp.check_vacant(out)
    stamp.check_file("--results", results)
    # Matrix products here are many and small: a second BLAS thread costs more than it saves.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tprune.bench.accel import simulate as models
    from tprune.bench.accel import storage, validation
    from tprune.bench.accel.designs import design as named
    from tprune.bench.accel.designs import from_toml, usual
    from tprune.bench.accel.sweep import sweep
    from tprune.bench.api import FIDELITIES, read_network
    from tprune.bench.report import results as rows
    from tprune.bench.report import simulation as reports

    one_of("--fidelity", fidelity, FIDELITIES)
    chosen = usual() if design is None else filter(None, design.split(","))
    designs = [*map(named, dict.fromkeys(chosen)), *map(from_toml, hardware)]
    _check(designs)
    nets = [read_network(name) for name in workloads]
    if dry_run:
        return Simulation(nets, designs, None)
    runs = []
    for net in nets:
        exact = fidelity == "exact" or (fidelity == "auto" and net.masked)
        progress = partial(_show, watch, net.network)
        found = models.simulate_all(net, designs, exact=exact, seed=seed, progress=progress)
        sizes = storage.sizes(net, exact=exact, seed=seed)
        runs.append(reports.Run(found, sizes, sweep(found, seed=seed)))
    checks = validation.silicon() + (validation.abstracts() if validate else [])
    made = reports.report(runs, out, checks=checks)
    if results:
        rows.write(results, made["rows"], inputs=made["inputs"])
    return Simulation(nets, designs, made)


def _show(watch: Watch, network: str, done: int, total: int) -> None:
    watch(network, done, total, "")


def _check(designs: list[Hardware]) -> None:
    if not designs:
        raise BadInput("--design is empty; name at least one, for example escalate,sparten")
    names = [one.name for one in designs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"two designs are called {twice[0]!r}; give the one of the TOML file another name")
