"""`run` and `simulate`: the benchmark and the accelerator simulator as functions of Python objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tprune.base import html
from tprune.base.errors import BadInput
from tprune.base.fields import chosen
from tprune.bench.accel import networks, onnx_file, storage, workload
from tprune.bench.accel import rows as table
from tprune.bench.accel import simulate as models
from tprune.bench.accel.hardware import COMPARED, Hardware, design
from tprune.bench.accel.layer import Workload
from tprune.bench.measure import host, tokens
from tprune.bench.measure.inputs import Inputs
from tprune.bench.measure.record import Record
from tprune.bench.measure.settings import Settings
from tprune.bench.phone import fleet
from tprune.bench.phone.station import WARMUP_MS, Handling

FIDELITIES = ("auto", "exact", "statistical")

Artefact = str | os.PathLike[str]
Watch = Callable[[str, int, int, str], None]
"""watch(device, blocks done, total blocks, what runs now)"""


class Text(Protocol):
    """A corpus: sentences that are not tokenised yet."""

    @property
    def source(self) -> Sequence[str]: ...

    @property
    def split(self) -> str: ...

    @property
    def limit(self) -> int | None: ...


def run(
    artefacts: Sequence[Artefact],
    inputs: Text | Inputs,
    *,
    out: str | Path = "records.jsonl",
    on: str = "host",
    settings: Settings | Sequence[Settings] | None = None,
    phone: Handling | None = None,
    adb: str | None = None,
    watch: Watch | None = None,
    **fields: Any,
) -> list[Record]:
    """Measure artefacts side by side and return the records, which are also appended to the file `out`.

    `inputs` is a corpus, sentences as token ids, or labelled images. `on` is "host", "adb" or "adb:SERIAL[,SERIAL...]";
    `phone` and `adb` (the program) are for phones. `fields` are those of `tprune.bench.Settings`, such as `threads=2`.
    The same call resumes a benchmark that was interrupted. Raises BadInput for a wrong call, WorkFailed when a device
    or an artefact fails, TypeError for an unknown field.
    """
    if not artefacts or isinstance(artefacts, str):
        raise BadInput(f"artefacts {artefacts!r}: give a list of artefact folders, at least one")
    folders = [Path(artefact) for artefact in artefacts]
    if not isinstance(settings, Sequence):
        own: dict[str, Any] = {} if on == "host" else {"warmup_ms": WARMUP_MS}
        if text := _text(inputs):
            own |= {"split": text.split, "limit": text.limit}
        settings = chosen(Settings, settings, {**({} if settings else own), **fields})
    elif fields:
        raise TypeError(f"{', '.join(fields)}: give either several settings or fields of one")
    encoded = _encoded(folders[0], inputs)
    if on == "host":
        progress = None if watch is None else partial(watch, "host")
        return host.run(folders, encoded, out=out, settings=settings, progress=progress)
    serials = fleet.serials(on)
    return fleet.run(
        folders, encoded, out=out, serials=serials, settings=settings, handling=phone, adb=adb, progress=watch
    )


def _text(inputs: Any) -> Text | None:
    return inputs if hasattr(inputs, "source") else None


def _encoded(folder: Path, inputs: Any) -> Inputs:
    if (text := _text(inputs)) is None:
        found: Inputs = inputs
        return found
    encode = tokens.read(folder).encode
    return [encode(sentence) for sentence in text.source]


@dataclass(frozen=True, repr=False)
class Simulation:
    """Networks on accelerator designs: one row and one detailed result for each network and design."""

    rows: tuple[table.Row, ...]
    results: tuple[models.Result, ...]

    def __repr__(self) -> str:
        found = ", ".join(f"{row.network} on {row.design} {row.latency_ms:.3g} ms" for row in self.rows[:3])
        return f"Simulation({found}{f' and {len(self.rows) - 3} more' if len(self.rows) > 3 else ''})"

    def _repr_html_(self) -> str:
        headings = ("network", "design", "ms per image", "cycles", "energy (µJ)", "DRAM (MB)", "weights smaller")
        cells = (
            (
                f"{row.network} (SYNTHETIC)" if row.source == "synthetic" else row.network,
                row.design,
                f"{row.latency_ms:.3f}",
                f"{row.cycles:,}",
                f"{row.energy_pj / 1e6:,.1f}",
                f"{row.dram_bytes / 1e6:.2f}",
                f"{row.compression:.1f}x",
            )
            for row in self.rows
        )
        return html.table("Simulated, batch 1", headings, cells)


def simulate(
    workloads: str | Path | Workload | Sequence[str | Path | Workload],
    *,
    designs: Sequence[str | Hardware] = COMPARED,
    fidelity: str = "auto",
    seed: int = 0,
    watch: Callable[[str, int, int], None] | None = None,
) -> Simulation:
    """Simulate networks on accelerator designs: cycles, energy, DRAM traffic and compressed size.

    A network is a name such as "resnet18-32", a workload.json, an ONNX file or a `Workload`. `fidelity` is "exact",
    "statistical" or "auto": exact where the network has masks. `watch(network, layers done, total layers)`. Raises
    BadInput for an unknown network or design.
    """
    if fidelity not in FIDELITIES:
        raise BadInput(f"fidelity {fidelity!r}: must be {' or '.join(FIDELITIES)}")
    if not designs:
        raise BadInput("designs is empty; name at least one, for example escalate")
    hardware = [design(one) if isinstance(one, str) else one for one in designs]
    given = [workloads] if isinstance(workloads, str | Path | Workload) else workloads
    rows: list[table.Row] = []
    results: list[models.Result] = []
    for net in map(read_network, given):
        exact = fidelity == "exact" or (fidelity == "auto" and net.masked)
        progress = None if watch is None else partial(watch, net.network)
        found = models.simulate_all(net, hardware, exact=exact, seed=seed, progress=progress)
        sizes = storage.sizes(net, exact=exact, seed=seed)
        rows += [table.row(result, sizes, command="") for result in found]
        results += found
    return Simulation(tuple(rows), tuple(results))


def read_network(source: str | Path | Workload) -> Workload:
    """Return a network by its name, or from a workload.json or an ONNX file."""
    if isinstance(source, Workload):
        return source
    path = Path(source)
    if str(source) in networks.NETWORKS or not (path.suffix in (".json", ".onnx") or path.is_file()):
        return networks.named(str(source))
    return onnx_file.read(path) if path.suffix == ".onnx" else workload.read(path)
