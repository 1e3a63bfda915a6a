"""The verbs of `tprune cnn` that leave a network as it is: evaluate, pace, workload, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tprune.base import heap, stamp
from tprune.base.errors import BadInput
from tprune.cli import terminal
from tprune.cli.options import Batch, Dry, ImageData, Json, NetworkDir, Out, TargetCpu, Threads, use_threads
from tprune.export import runtimes

if TYPE_CHECKING:
    from tprune.bench.accel.layer import Workload
    from tprune.cnn.images import Images
    from tprune.cnn.network import Network
    from tprune.cnn.workload import Measured
    from tprune.export.images.int8 import Int8


def evaluate(
    networks: Annotated[
        list[Path],
        typer.Argument(help="Networks; the first is what the others are held against.", metavar="NETWORK..."),
    ],
    data: ImageData,
    split: str = "test",
    records: Annotated[
        list[Path] | None, typer.Option(help="Records of `tprune bench` on their artefacts: times and memory.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Also write the rows to this file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw accuracy against what is left to this PNG.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.", min=1)] = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Tell accuracy, size and products of networks on a split, beside those of the first one."""
    from tprune.bench.measure import timings
    from tprune.bench.report import results as file
    from tprune.bench.report import tradeoff
    from tprune.cnn import images, methods, network, rows
    from tprune.cnn.evaluate import evaluate as score

    use_threads(threads)
    if figure and figure.suffix != ".png":
        raise BadInput(f"--figure {str(figure)!r} must end in .png: that is what is drawn")
    held = [network.load(folder) for folder in networks]
    if figure and not any(methods.of(one) for one in held):
        raise BadInput("--figure shows compressed networks beside a dense one; none of these was compressed")
    timed = timings.by_model(records or ())
    pictures = images.load(data, split=split).first(limit)
    for one in held:
        one.check(pictures)
    names = rows.names(networks)
    with terminal.bar() as show:
        scores = [score(one, pictures, watch=partial(_told, show, name)) for name, one in zip(names, held, strict=True)]
    alone = [
        rows.row(name, one, reached, data=pictures.name, **(asdict(timed[one.id]) if one.id in timed else {}))
        for name, one, reached in zip(names, held, scores, strict=True)
    ]
    found = [
        rows.against(row, alone[0], p_value=reached.p_value(scores[0]), kept=rows.shares(one, held[0]))
        for row, one, reached in zip(alone, held, scores, strict=True)
    ]
    if results:
        file.write(results, found, inputs={pictures.name: pictures.id})
    if figure:
        stamp.write_bytes(figure, tradeoff.draw(found))
    lines = [
        f"{row['name']} gets no more of {pictures.name} right than chance: it is not trained, or was on other labels"
        for row, one in zip(found, held, strict=True)
        if row["accuracy"] <= 1 / len(one.classes)
    ]
    terminal.answer({"rows": found}, as_json=json, table=rows.table(found), lines=lines)


def pace(
    net: Annotated[str, typer.Option(help="Network, such as resnet20.")],
    data: ImageData,
    split: str = "train",
    rounds: Annotated[int, typer.Option(help="Steps of each kind, by turns.", min=1)] = 30,
    batch: Batch = 128,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Measure what a training step of each method costs beside the dense network's, interleaved."""
    from torch.nn import Conv2d

    from tprune.cnn import images, methods, nets, network, pace
    from tprune.cnn.train import recipe_of

    use_threads(threads)
    heap.keep()
    pictures = images.load(data, split=split)
    one = network.fresh(net, pictures)
    known: dict[str, methods.Method] = {
        "deephoyer": methods.DeepHoyer(),
        "deephoyer structural": methods.DeepHoyer("group-hs", structural=True),
    }
    if any(isinstance(layer, Conv2d) for layer in one.module.modules()):
        known |= {"svd channel": methods.Svd(), "svd spatial": methods.Svd(scheme="spatial"), "penni": methods.Penni()}
    with terminal.bar() as show:
        told = pace.pace(
            one, pictures, known, recipe_of(nets.named(net), 1, batch=batch), rounds=rounds,
            watch=lambda done, n: show("step", done, n, ""),
        )  # fmt: skip
    lines = [
        f"{row.name:<22}{1000 * row.seconds:9.2f} ms  {row.ratio:.3f}x ({row.low:.3f}-{row.high:.3f})" for row in told
    ]
    terminal.answer({"net": net, "rounds": rounds, "rows": [asdict(row) for row in told]}, as_json=json, lines=lines)


def workload(
    start: NetworkDir,
    data: ImageData,
    out: Annotated[Path, typer.Option(help="File WORKLOAD.json, or new folder for workload.json.")],
    name: Annotated[str | None, typer.Option(help="What the simulator calls it; by default its folder's name.")] = None,
    plain: Annotated[
        Path | None,
        typer.Option(help="Pruned network, not decomposed, that designs other than ESCALATE run.", metavar="NETWORK"),
    ] = None,
    split: str = "test",
    limit: Annotated[int, typer.Option(help="Images that the network looks at.", min=1)] = 64,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Measure how sparse a network's weights and activations are, layer by layer, for `tprune simulate`."""
    from tprune.bench.accel import workload
    from tprune.cnn import images, network
    from tprune.cnn.workload import measure

    use_threads(threads)
    file = out if out.suffix == ".json" else stamp.check_vacant(out) / "workload.json"
    if file == out and not out.parent.is_dir():
        raise BadInput(f"--out {str(out)!r}: there is no folder {str(out.parent)!r}")
    nets = {folder: network.load(folder) for folder in (start, plain) if folder}
    if dry_run:
        plan = f"would measure {nets[start].net} on {limit} images"
        return terminal.answer({"dry_run": True, "net": nets[start].net, "limit": limit}, as_json=json, lines=[plan])
    seen = images.load(data, split=split).first(limit)
    with terminal.bar() as show:
        found = {folder: measure(one, seen, watch=partial(_told, show, folder.name)) for folder, one in nets.items()}
    other = _workload(plain.resolve().name, found[plain]) if plain else None
    told = _workload(name or start.resolve().name, found[start], other)
    inputs = {str(folder): one.id for folder, one in nets.items()} | {seen.name: seen.id}
    if file == out:
        workload.write(told, file, inputs=inputs)
    else:
        with stamp.new_folder(out) as folder:
            workload.write(told, folder / file.name, inputs=inputs)
    facts = {"network": told.network, "accuracy": told.accuracy, "note": told.note}
    densities = {of.name: [of.weights.density, of.activations.density] for of in told.layers}
    lines = [f"{file}: {len(told.layers)} layers of {told.network}; {told.note}"]
    terminal.answer({"out": str(file), **facts, "densities": densities}, as_json=json, lines=lines)


def export(
    start: NetworkDir,
    out: Out,
    to: Annotated[str, typer.Option(help=f"Runtime: {' or '.join(runtimes.flags())}.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    data: Annotated[
        str | None,
        typer.Option(
            help="Images of the parity check; without them random ones. int8 needs them: some to take ranges from, "
            "others to tell its cost on.",
            metavar="DATA",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the data; default test, for int8 train.")] = None,
    limit: Annotated[int | None, typer.Option(help="Images of the check; default 100, for int8 1,000.", min=1)] = None,
    held_out: Annotated[
        int | None,
        typer.Option(help="int8: as in training, so that it is none of the images seen; default 5000.", min=1),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(help="int8: percentage points of accuracy that it may cost; default 0.5.", min=0, max=100),
    ] = None,
    target_cpu: TargetCpu = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a network; the artefact appears only if it answers like PyTorch, in int8 if accuracy does not fall.

    int8: weights and activations in 8 bits. The ranges of activations are taken from training images, the cost is told
    on the training images that `train` held out.
    """
    from tprune.base import pixels
    from tprune.cnn import network
    from tprune.export import targets

    runtime = runtimes.by_flag(to)
    terminal.one_of("--precision", precision, ("fp32", "int8"))
    if precision == "fp32":
        terminal.only_for("--precision int8", {"--max-accuracy-drop": max_accuracy_drop, "--held-out": held_out})
    elif not data:
        raise BadInput("--precision int8 needs --data: images to take ranges from, and others to tell its cost on")
    targets.check(target_cpu, to=to, precision=precision)
    if not data:
        terminal.only_for("--data", {"--split": split, "--limit": limit})
    stamp.check_vacant(out)
    write = runtime.load("export_classifier")
    use_threads(threads)
    one = network.load(start)
    int8 = seen = None
    if data and precision == "int8":
        int8 = _int8(one, data, split or "train", held_out or 5000, limit or 1000, max_accuracy_drop)
        int8 = replace(int8, target_cpu=target_cpu or int8.target_cpu)
    elif data:
        seen = pixels.load(data, split=split or "test", limit=limit or 100)
    manifest = write(one, out, name=start.resolve().name, images=seen, threads=threads, int8=int8)
    size, parity = sum(entry.bytes for entry in manifest.files.values()), manifest.parity
    lines = [
        f"wrote {out}: {size / 1e6:.2f} MB, {parity.identical} of {parity.images} images ({parity.source}) with "
        f"PyTorch's class" + (f", logits within {parity.max_abs_logit_diff:.1e}" if precision == "fp32" else "")
    ]
    answer = {"out": str(out), "id": manifest.id, "bytes": size, **asdict(parity)}
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


def warn_of_other_images(one: Network, rest: Images) -> None:
    """Warn where the network was trained on other images than `rest`, so maybe on those now held out."""
    if any(step.get("images", rest.id) != rest.id for step in one.history):
        terminal.warn(
            f"The network was trained on other images than {rest.name}: those that its accuracy is told on may be "
            "among them; give --data, --limit and --held-out as in its training"
        )


def _int8(one: Network, data: str, split: str, held_out: int, limit: int, most: float | None) -> Int8:
    """Return the images that ranges and cost are taken from: of the rest and of what is held out, as in training."""
    from tprune.base.pixels import Pixels
    from tprune.cnn import images
    from tprune.export.images.int8 import CALIBRATION, Int8

    rest, held = images.load(data, split=split).hold_out(held_out)
    one.check(held)
    warn_of_other_images(one, rest)
    seen, held = rest.sample(CALIBRATION).pixels.numpy(), held.sample(limit)
    told = Pixels(held.pixels.numpy(), held.labels.numpy(), held.classes, held.name)
    return Int8(seen, told) if most is None else Int8(seen, told, most)


def _workload(name: str, found: Measured, plain: Workload | None = None) -> Workload:
    """Join what the network told with the simulator's own words."""
    from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload

    layers = []
    for one in found.layers:
        split = None if one.signs is None else Decomposition(one.signs.shape[2], Operand.of(one.signs))
        weights, activations = Operand.of(one.weights), Operand(one.density, one.activations)
        layers.append(Layer(one.name, Shape(**one.shape), weights, activations, split, one.dense))
    return Workload(name, "trained", tuple(layers), found.accuracy, found.note, plain=plain)


def _told(show: Callable[[str, int, int, str], None], task: str, done: int, total: int) -> None:
    show(task, done, total, "")
