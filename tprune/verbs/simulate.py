"""The verb `tprune simulate` as a library function: networks on ESCALATE and on the designs it is compared with."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.bench.accel import designs

if TYPE_CHECKING:
    from tprune.bench.accel.hardware import Hardware
    from tprune.bench.accel.layer import Workload
    from tprune.bench.accel.rows import Row
    from tprune.bench.report.simulation import Run

FIDELITIES = ("auto", "exact", "statistical")
Watch = Callable[[str, int, int], None]  # (network, layers done, in all)


@dataclass(frozen=True)
class Simulation:
    """The runs of each network, a row per network and design, and the report's document if one was written."""

    runs: Sequence[Run] = field(repr=False)
    rows: Sequence[Row] = field(repr=False)
    document: dict[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        shown = ", ".join(f"{row.network} on {row.design} {row.latency_ms:.3g} ms" for row in self.rows)
        return f"Simulation({shown})"

    def _repr_html_(self) -> str:
        heads = ("network", "design", "ms per image", "energy (µJ)", "DRAM (MB)", "weights smaller")
        lines = [
            (row.network, row.design, f"{row.latency_ms:.3f}", f"{row.energy_pj / 1e6:,.1f}",
             f"{row.dram_bytes / 1e6:.2f}", f"{row.compression:.1f}x")
            for row in self.rows
        ]  # fmt: skip
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
        return "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + f"</tr>{body}</table>"


def read(workloads: Sequence[str | Path | Workload]) -> list[Workload]:
    """Return the workloads of named networks, workload.json and ONNX files."""
    return [_workload(str(one)) if isinstance(one, (str, Path)) else one for one in workloads]


def chosen(names: Sequence[str] | None = None, hardware: Sequence[Path] = ()) -> list[Hardware]:
    """Return designs by name (default: the usual ones) and from TOML files; BadInput if none, or two of one name."""
    # There are many small matrix products, for which a second BLAS thread costs more than it saves.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    named = designs.usual() if names is None else dict.fromkeys(names)
    found = [*map(designs.design, named), *map(designs.from_toml, hardware)]
    if not found:
        raise BadInput("--design is empty; name at least one, for example escalate,sparten")
    called = [one.name for one in found]
    if twice := [name for name in called if called.count(name) > 1]:
        raise BadInput(f"two designs are called {twice[0]!r}; give the one of the TOML file another name")
    return found


def simulate(
    workloads: str | Path | Workload | Sequence[str | Path | Workload],
    designs: Sequence[Hardware | str] | None = None,
    *,
    out: Path | str | None = None,
    fidelity: str = "auto",
    validate: bool = False,
    results: Path | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Simulation:
    """Simulate networks on designs at batch 1; with `out`, write a report.

    workloads: named networks, paths of workload.json or ONNX files, or `Workload`s; validate: also compare SCNN and
    SparTen with their abstracts; results: file for the rows alone; seed: of drawn masks.
    """
    given = designs or chosen()
    held = [chosen([one])[0] if isinstance(one, str) else one for one in given]
    from tprune.bench.accel import rows, storage, validation
    from tprune.bench.accel.simulate import simulate_all
    from tprune.bench.accel.sweep import sweep
    from tprune.bench.report import results as files
    from tprune.bench.report import simulation

    if fidelity not in FIDELITIES:
        raise BadInput(f"--fidelity {fidelity!r}: must be {' or '.join(FIDELITIES)}")
    many = isinstance(workloads, Sequence) and not isinstance(workloads, str)
    nets = read(workloads if many else [workloads])  # type: ignore[arg-type, list-item]
    if out is not None:
        stamp.check_vacant(out)
    runs = []
    for net in nets:
        exact = fidelity == "exact" or (fidelity == "auto" and net.masked)
        progress = (lambda done, total, net=net: watch(net.network, done, total)) if watch else None
        found = simulate_all(net, held, exact=exact, seed=seed, progress=progress)
        sizes = storage.sizes(net, exact=exact, seed=seed)
        runs.append(simulation.Run(found, sizes, sweep(found, seed=seed)))
    made = [rows.row(one, run.sizes, shlex.join(stamp.argv())) for run in runs for one in run.results]
    if out is None:
        return Simulation(runs, made)
    checks = validation.silicon() + (validation.abstracts() if validate else [])
    document = simulation.report(runs, out, checks=checks)
    if results:
        files.write(results, document["rows"], inputs=document["inputs"])
    return Simulation(runs, made, document)


def _workload(name: str) -> Workload:
    from tprune.bench.accel import networks, onnx_file, workload

    path = Path(name)
    if name not in networks.NETWORKS and path.suffix == ".onnx":
        return onnx_file.read(path)
    if name not in networks.NETWORKS and (path.suffix == ".json" or path.is_file()):
        return workload.read(path)
    return networks.named(name)
