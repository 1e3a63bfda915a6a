"""`tprune cnn`: the verbs that leave a network unchanged. Each parses its flags, calls one function, and shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.cli import terminal
from tprune.cli.options import (
    Batch,
    Dry,
    ImageData,
    Json,
    NetworkDir,
    Out,
    PrecisionName,
    TargetCpu,
    Threads,
    To,
    use_threads,
)
from tprune.cnn.settings import BATCH, HELD_OUT, INT8_IMAGES, PACE_ROUNDS, PARITY_IMAGES, SAMPLED

if TYPE_CHECKING:
    from tprune.export.images.manifest import ImageManifest


def evaluate(
    networks: Annotated[
        list[Path],
        typer.Argument(help="Networks; the first is the baseline of the others.", metavar="NETWORK..."),
    ],
    data: ImageData,
    split: str = "test",
    records: Annotated[
        list[Path] | None, typer.Option(help="Records of `tprune bench` on their artefacts: latency and memory.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the rows to this file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw accuracy against what is left to this PNG.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.", min=1)] = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Report accuracy, size and products of networks on a split, relative to the first one."""
    from tprune.verbs import images_measure as verbs

    call = verbs.Evaluate(networks, data, split, limit, records or (), results, figure)
    use_threads(threads)
    from tprune.cnn import rows

    with terminal.bar() as show:
        done = verbs.evaluate(call, _watch(show))
    lines = [
        f"{name} gets no more of {done.data} right than chance: it is not trained, or was trained on other labels"
        for name in done.untrained
    ]
    terminal.answer({"rows": done.rows}, as_json=json, table=rows.table(done.rows), lines=lines)


def pace(
    net: Annotated[str, typer.Option(help="Network, such as resnet20.")],
    data: ImageData,
    split: str = "train",
    rounds: Annotated[int, typer.Option(help="Steps of each kind, in turn.", min=1)] = PACE_ROUNDS,
    batch: Batch = BATCH,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Measure the cost of a training step of each method relative to the dense network's, interleaved."""
    from tprune.verbs import images_measure as verbs

    call = verbs.PaceOf(net, data, split, rounds, batch)
    use_threads(threads)
    with terminal.bar() as show:
        rows = verbs.pace(call, lambda done, steps: show("step", done, steps, ""))
    lines = [
        f"{row.name:<22}{1000 * row.seconds:9.2f} ms  {row.ratio:.3f}x ({row.low:.3f}-{row.high:.3f})" for row in rows
    ]
    terminal.answer({"net": net, "rounds": rounds, "rows": [asdict(row) for row in rows]}, as_json=json, lines=lines)


def workload(
    start: NetworkDir,
    data: ImageData,
    out: Annotated[Path, typer.Option(help="File WORKLOAD.json, or new folder for workload.json.")],
    name: Annotated[str | None, typer.Option(help="Its name in the simulator; by default its folder's name.")] = None,
    plain: Annotated[
        Path | None,
        typer.Option(help="Pruned network, not decomposed, that designs other than ESCALATE run.", metavar="NETWORK"),
    ] = None,
    split: str = "test",
    limit: Annotated[int, typer.Option(help="Images that the network is run on.", min=1)] = SAMPLED,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure the sparsity of a network's weights and activations, layer by layer, for `tprune simulate`."""
    from tprune.verbs import images_measure as verbs

    call = verbs.Measure(start, data, out, name, plain, split, limit)
    if dry_run:
        plan = f"would measure {call.net} on {limit} images"
        return terminal.answer({"dry_run": True, "net": call.net, "limit": limit}, as_json=json, lines=[plan])
    call.check()
    use_threads(threads)
    with terminal.bar() as show:
        made = verbs.workload(call, _watch(show))
    facts = {"network": made.network, "accuracy": made.accuracy, "note": made.note}
    densities = {of.name: [of.weights.density, of.activations.density] for of in made.layers}
    lines = [f"{call.file}: {len(made.layers)} layers of {made.network}; {made.note}"]
    terminal.answer({"out": str(call.file), **facts, "densities": densities}, as_json=json, lines=lines)


def export(
    start: NetworkDir,
    out: Out,
    to: To = "onnx",
    precision: PrecisionName = "fp32",
    data: Annotated[
        str | None,
        typer.Option(
            help="Images of the parity check; random ones by default. Required for int8: for calibration, and to "
            "measure its cost.",
            metavar="DATA",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the data; default test, for int8 train.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"Images of the check; default {PARITY_IMAGES}, for int8 {INT8_IMAGES:,}.", min=1),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(help=f"int8: as in training, to use images not trained on; default {HELD_OUT}.", min=1),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(help="int8: largest accepted loss of accuracy in percentage points; default 0.5.", min=0, max=100),
    ] = None,
    target_cpu: TargetCpu = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a network; the artefact appears only if it agrees with PyTorch, and in int8 only if accuracy holds.

    int8: 8-bit weights and activations. The ranges of activations are calibrated on training images; the cost is
    measured on the training images that `train` held out.
    """
    from tprune.verbs import images_measure as verbs

    terminal.one_of("--precision", precision, ("fp32", "int8"))
    if precision == "fp32":
        terminal.only_for("--precision int8", {"--max-accuracy-drop": max_accuracy_drop, "--held-out": held_out})
    if precision == "fp32" and not data:
        terminal.only_for("--data", {"--split": split, "--limit": limit})
    drop = max_accuracy_drop
    call = verbs.Export(start, out, to, precision, data, split, limit, held_out, drop, target_cpu)
    use_threads(threads)
    _show(verbs.export(call, threads=threads), out, json)


def _show(manifest: ImageManifest, out: Path, json: bool) -> None:
    size, parity = sum(entry.bytes for entry in manifest.files.values()), manifest.parity
    lines = [
        f"wrote {out}: {size / 1e6:.2f} MB, {parity.identical} of {parity.images} images ({parity.source}) with "
        f"PyTorch's class" + (f", logits within {parity.max_abs_logit_diff:.1e}" if not manifest.cost else "")
    ]
    answer: dict[str, Any] = {"out": str(out), "id": manifest.id, "bytes": size, **asdict(parity)}
    if cost := manifest.cost:
        answer["cost"] = asdict(cost)
        lines.append(
            f"int8 gets {100 * cost.accuracy:.2f} % of these right, fp32 {100 * cost.accuracy_fp32:.2f} % "
            f"(p = {cost.p_value:.2g})"
        )
    if delegation := manifest.delegation:
        answer["delegation"] = asdict(delegation)
        lines.append(delegation.told)
    terminal.answer(answer, as_json=json, lines=lines)


def _watch(show: Callable[[str, int, int, str], None]) -> Callable[[str, int, int], None]:
    return lambda task, done, total: show(task, done, total, "")
