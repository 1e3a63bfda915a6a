"""The verbs `tprune cnn ...`: image networks, from training to shrunk networks. Each parses, calls, and shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune import stamp, terminal
from tprune.errors import BadInput
from tprune.options import Dry, Json, Out, Seed, Threads, use_threads

if TYPE_CHECKING:
    from bench.accel.layer import Workload
    from cnn.images import Images
    from cnn.network import Network
    from cnn.workload import Measured

app = typer.Typer(
    help="Image networks: train, compress, evaluate, export.", no_args_is_help=True, rich_markup_mode=None
)

ImageData = Annotated[str, typer.Option(help="Images: folder of parquet files or hub id.", metavar="DATA")]
NetworkDir = Annotated[Path, typer.Argument(help="Folder that `cnn train` or `cnn compress` wrote.", metavar="NETWORK")]
HeldOut = Annotated[int, typer.Option(help="Training images held out; every choice is made on them.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Use only the first N images.", min=2)]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate; by default the network's own.")]
Decay = Annotated[float | None, typer.Option("--weight-decay", help="Of weights; default 5e-4 with sgd, 0 with adam.")]
Optimiser = Annotated[str | None, typer.Option(help="sgd or adam; by default the network's own.")]
Batch = Annotated[int, typer.Option(help="Images a step.")]
MethodName = Annotated[str | None, typer.Option(help="deephoyer, svd or penni.", metavar="METHOD")]


@app.command()
def train(
    data: ImageData,
    out: Out,
    net: Annotated[str | None, typer.Option(help="Network to train from scratch, such as resnet20.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Trained network to go on from.")] = None,
    method: MethodName = None,
    penalty: Annotated[str | None, typer.Option(help="The method's penalty, such as hoyer-square, l1, none.")] = None,
    strength: Annotated[float | None, typer.Option(help="Strength of the penalty.")] = None,
    structural: Annotated[bool, typer.Option("--structural", help="deephoyer: whole filters and neurons.")] = False,
    scheme: Annotated[str | None, typer.Option(help="svd: channel or spatial.")] = None,
    orthogonality: Annotated[float | None, typer.Option(help="svd: strength of the orthogonality penalty.")] = None,
    bases: Annotated[int | None, typer.Option(help="penni: basis kernels of a layer.")] = None,
    interval: Annotated[int | None, typer.Option(help="penni: epochs until basis and coefficients swap.")] = None,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 30,
    lr: Lr = None,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = 128,
    smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Train a network, from scratch or on, plainly or for a method. A killed run continues when given again."""
    from cnn import methods, nets, network, steps
    from cnn.train import recipe_of

    use_threads(threads)
    stamp.check_vacant(out)
    if (net is None) == (start is None):
        raise BadInput("give either --net (a network from scratch) or --from (a trained one)")
    settings = {
        "penalised": penalty, "strength": strength, "structural": structural or None, "scheme": scheme,
        "orthogonality": orthogonality, "bases": bases, "interval": interval,
    }  # fmt: skip
    if method is None:
        terminal.only_for("training with --method", {f"--{name}": value for name, value in settings.items()})
    chosen = methods.named(method, **settings) if method else None
    known = network.load(start) if start else None
    recipe = recipe_of(
        nets.named(known.net if known else str(net)), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay,
        batch=batch, smoothing=smoothing, seed=seed,
    )  # fmt: skip
    if dry_run:
        plan = {"dry_run": True, "recipe": asdict(recipe), "method": repr(chosen)}
        return terminal.answer(plan, as_json=json, lines=[repr(chosen), repr(recipe)])
    rest, held = _images(data, split, limit, held_out)
    one = known or network.fresh(str(net), rest, seed=seed)
    inputs = {rest.name: rest.id} | ({str(start): one.id} if known else {})
    run_dir = out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        facts = steps.train(
            one, rest, recipe, held=held, method=chosen, run_dir=run_dir,
            watch=lambda what, done, n, loss: show(what, done, n, f"loss {loss:.3f}"),
        )  # fmt: skip
    _save(one, out, inputs, run_dir)
    lines = [*_left_alone(facts), _reached(out, facts, held)]
    terminal.answer({"out": str(out), "id": one.id, **facts}, as_json=json, lines=lines)


@app.command()
def compress(
    start: NetworkDir,
    data: ImageData,
    out: Out,
    cut: Annotated[
        str,
        typer.Option(
            help="How far; several, separated by commas, make one network each. svd: share of the squared "
            "singular values that may go; deephoyer, penni: threshold in standard deviations.",
            metavar="LEVEL[,...]",
        ),
    ],  # fmt: skip
    method: Annotated[str | None, typer.Option(help="By default the one that the network was trained for.")] = None,
    structural: Annotated[bool, typer.Option("--structural", help="deephoyer: whole filters and neurons.")] = False,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes of fine-tuning, all rounds together; 0: none.", min=0)] = 15,
    rounds: Annotated[int, typer.Option(help="Cut and fine-tune so many times.")] = 1,
    keep_bases: Annotated[
        bool, typer.Option("--keep-bases", help="penni: leave bases and coefficients, for `cnn quantise`.")
    ] = False,
    lr: Lr = None,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = 128,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Cut what training made small, fine-tune with the zeros fixed, shrink, and write a network of plain layers."""
    from cnn import methods, nets, network, steps
    from cnn.train import recipe_of

    use_threads(threads)
    levels = _levels(cut)
    homes = [out if len(levels) == 1 else out / f"cut-{level:g}" for level in levels]
    for home in homes:
        stamp.check_vacant(home)
    one = network.load(start)
    chosen = methods.named(method, structural=structural or None) if method else methods.of(one)
    if chosen is None:
        raise BadInput(
            f"{str(start)!r} was trained for no method; say which with --method: {', '.join(methods.METHODS)}"
        )
    recipe = recipe_of(
        nets.named(one.net), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay, batch=batch, seed=seed
    ) if epochs else None  # fmt: skip
    settings = [steps.Settings(level, recipe, rounds, keep_bases) for level in levels]
    if dry_run:
        plan = {"dry_run": True, "method": repr(chosen), "settings": [asdict(one) for one in settings]}
        return terminal.answer(plan, as_json=json, lines=[repr(chosen), *map(repr, settings)])
    rest, held = _images(data, split, limit, held_out)
    answers, lines = [], []
    for home, how in zip(homes, settings, strict=True):
        one, run_dir = network.load(start), home.parent / f".{home.name}.run"
        inputs = {rest.name: rest.id, str(start): one.id}
        with terminal.bar() as show:
            facts = steps.compress(
                one, rest, chosen, how, held=held, run_dir=run_dir,
                watch=lambda what, done, n, loss: show(what, done, n, f"loss {loss:.3f}"),  # noqa: B023  # used within
            )  # fmt: skip
        _save(one, home, inputs, run_dir)
        answers.append({"out": str(home), "id": one.id, **facts})
        counts = facts["counts"]
        lines += [*_left_alone(facts), f"{_reached(home, facts, held)}, {counts['nonzero']:,} weights, "
                  f"{counts['effective_macs'] / 1e6:.2f} M products"]  # fmt: skip
    terminal.answer({"networks": answers}, as_json=json, lines=list(dict.fromkeys(lines)))


@app.command()
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
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.", min=1)] = None,
    threads: Threads = 2,
    json: Json = False,
) -> None:
    """Tell accuracy, size and products of networks on a split, beside those of the first one."""
    from bench import results as file
    from cnn import images, network, rows
    from cnn.evaluate import evaluate as score

    use_threads(threads)
    held = [network.load(folder) for folder in networks]
    pictures = images.load(data, split=split).first(limit)
    for one in held:
        one.check(pictures)
    found = []
    with terminal.bar() as show:
        for folder, one in zip(networks, held, strict=True):
            reached = score(one, pictures, watch=partial(_told, show, folder.name))
            found.append(rows.row(folder.name, one, reached, data=pictures.name))
    found = [rows.against(row, found[0]) for row in found]
    if results:
        file.write(results, found, inputs={pictures.name: pictures.id})
    terminal.answer({"rows": found}, as_json=json, table=rows.table(found))


@app.command()
def quantise(
    start: NetworkDir,
    data: ImageData,
    out: Out,
    activations: Annotated[bool, typer.Option("--activations", help="Also give every layer an 8-bit input.")] = False,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes of fine-tuning under the quantisers; 0: none.", min=0)] = 10,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.01,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = 128,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Give a network in PENNI's form the weights of ESCALATE: ternary coefficients, 8-bit bases, 8 bits elsewhere."""
    from cnn import escalate, nets, network
    from cnn.train import recipe_of

    use_threads(threads)
    stamp.check_vacant(out)
    one = network.load(start)
    recipe = recipe_of(
        nets.named(one.net), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay, batch=batch, seed=seed
    ) if epochs else None  # fmt: skip
    if dry_run:
        plan = {"dry_run": True, "activations": activations, "recipe": recipe and asdict(recipe)}
        return terminal.answer(plan, as_json=json, lines=[repr(recipe)])
    rest, held = _images(data, split, limit, held_out)
    inputs, run_dir = {rest.name: rest.id, str(start): one.id}, out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        facts = escalate.quantise(
            one, rest, recipe, held=held, activations=activations, run_dir=run_dir,
            watch=lambda done, n, loss: show("fine-tune", done, n, f"loss {loss:.3f}"),
        )  # fmt: skip
    _save(one, out, inputs, run_dir)
    lines = [*_left_alone(facts), _reached(out, facts, held)]
    terminal.answer({"out": str(out), "id": one.id, **facts}, as_json=json, lines=lines)


@app.command()
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
    from bench.accel import workload
    from cnn import images, network
    from cnn.workload import measure

    use_threads(threads)
    file = out if out.suffix == ".json" else stamp.check_vacant(out) / "workload.json"
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


@app.command()
def export(
    start: NetworkDir,
    out: Out,
    to: Annotated[str, typer.Option(help="Runtime: onnx or executorch.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, the only one that images are exported in.")] = "fp32",
    data: Annotated[
        str | None, typer.Option(help="Images of the parity check; without them random ones.", metavar="DATA")
    ] = None,
    split: str = "test",
    limit: Annotated[int, typer.Option(help="Images of the parity check.", min=1)] = 100,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Export a network; the artefact appears only if it gives PyTorch's classes, and its logits but for rounding."""
    from cnn import network
    from tprune import pixels

    terminal.one_of("--to", to, ("onnx", "executorch"))
    terminal.one_of("--precision", precision, ("fp32",))
    if to == "onnx":
        from export.to_onnx import network_to_onnx as write
    else:
        from export.to_executorch import network_to_executorch as write
    use_threads(threads)
    stamp.check_vacant(out)
    one = network.load(start)
    seen = pixels.load(data, split=split, limit=limit) if data else None
    manifest = write(one, out, name=start.resolve().name, images=seen, threads=threads)
    size, parity = sum(entry.bytes for entry in manifest.files.values()), manifest.parity
    lines = [
        f"wrote {out}: {size / 1e6:.2f} MB, {parity.identical} of {parity.images} images ({parity.source}) with "
        f"PyTorch's class, logits within {parity.max_abs_logit_diff:.1e}"
    ]
    answer = {"out": str(out), "id": manifest.id, "bytes": size, **asdict(parity)}
    if delegation := manifest.delegation:
        answer["delegation"] = asdict(delegation)
        lines.append(delegation.told)
    terminal.answer(answer, as_json=json, lines=lines)


def _workload(name: str, found: Measured, plain: Workload | None = None) -> Workload:
    """Join what the network told with the simulator's own words."""
    from bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload

    layers = []
    for one in found.layers:
        split = None if one.signs is None else Decomposition(one.signs.shape[2], Operand.of(one.signs))
        weights, activations = Operand.of(one.weights), Operand(one.density, one.activations)
        layers.append(Layer(one.name, Shape(**one.shape), weights, activations, split, one.dense))
    return Workload(name, "trained", tuple(layers), found.accuracy, found.note, plain=plain)


def _images(data: str, split: str, limit: int | None, held_out: int) -> tuple[Images, Images]:
    from cnn import images

    return images.load(data, split=split).first(limit).hold_out(held_out)


def _levels(cut: str) -> list[float]:
    try:
        return [float(level) for level in dict.fromkeys(cut.split(","))]
    except ValueError:
        raise BadInput(f"--cut {cut!r} must be a number, or several separated by commas") from None


def _save(one: Network, out: Path, inputs: Mapping[str, str], run_dir: Path) -> None:
    from cnn import network

    network.save(one, out, inputs=inputs)
    shutil.rmtree(run_dir, ignore_errors=True)


def _left_alone(facts: Mapping[str, Any]) -> list[str]:
    return [f"layer {path} {why}" for path, why in facts["left_alone"].items()]


def _reached(out: Path, facts: Mapping[str, Any], held: Images) -> str:
    return f"{out}: {100 * facts['accuracy_held_out']:.2f} % of {len(held)} held-out images right"


def _told(show: Callable[[str, int, int, str], None], task: str, done: int, total: int) -> None:
    show(task, done, total, "")
