"""`tprune cnn`: image networks, from training to shrunk networks. Each verb parses, calls the library, and shows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.base import heap, stamp
from tprune.base.errors import BadInput
from tprune.cli import terminal
from tprune.cli.images_measure import evaluate, export, pace, warn_of_other_images, workload
from tprune.cli.options import Batch, Dry, ImageData, Json, NetworkDir, Out, Seed, Threads, use_threads

if TYPE_CHECKING:
    from tprune.cnn.images import Images
    from tprune.cnn.methods import Method
    from tprune.cnn.network import Network
    from tprune.cnn.teacher import Teacher
    from tprune.cnn.train import Recipe

HeldOut = Annotated[int, typer.Option(help="Training images held out; every choice is made on them.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Use only the first N images.", min=2)]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate; by default the network's own.")]
Decay = Annotated[float | None, typer.Option("--weight-decay", help="Of weights; default 5e-4 with sgd, 0 with adam.")]
Smoothing = Annotated[float, typer.Option(help="Label smoothing.")]
Shift = Annotated[
    int | None,
    typer.Option(
        help="Shift training images by up to N pixels at random; default 4 for CIFAR's networks, 0 for MNIST's."
    ),
]
Optimiser = Annotated[str | None, typer.Option(help="sgd or adam; by default the network's own.")]
TeacherDir = Annotated[
    Path | None, typer.Option(help="Network to distil from: its logits teach beside the labels.", metavar="NETWORK")
]
TeacherWeight = Annotated[float | None, typer.Option(help="Share of the teacher in the loss; default 0.9.")]
Temperature = Annotated[float | None, typer.Option(help="Softens both networks' distributions; default 4.")]
MethodName = Annotated[str | None, typer.Option(help="deephoyer, svd or penni.", metavar="METHOD")]


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
    interval: Annotated[
        int | None, typer.Option(help="penni: epochs until basis and coefficients swap; one half rests. Default 2.")
    ] = None,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 30,
    lr: Lr = None,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = 128,
    smoothing: Smoothing = 0.0,
    shift: Shift = None,
    teacher: TeacherDir = None,
    teacher_weight: TeacherWeight = None,
    temperature: Temperature = None,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Train a network, from scratch or on, plainly or for a method. A killed run continues when given again."""
    from tprune.cnn import methods, nets, network, steps
    from tprune.cnn.train import recipe_of

    use_threads(threads)
    heap.keep()
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
    taught_by = _teacher(teacher, teacher_weight, temperature)
    recipe = recipe_of(
        nets.named(known.net if known else str(net)), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay,
        batch=batch, smoothing=smoothing, shift=shift, seed=seed,
    )  # fmt: skip
    if dry_run:
        plan = {"dry_run": True, "recipe": asdict(recipe), "method": repr(chosen)}
        how = f"for {_told(chosen)}" if chosen else "plainly"
        would = f"would train {start or net} {how}, {_trained(recipe, teacher)}, and write {out}"
        return terminal.answer(plan, as_json=json, lines=[would])
    rest, held = _images(data, split, limit, held_out)
    one = known or network.fresh(str(net), rest, seed=seed)
    warn_of_other_images(one, rest)
    inputs = {rest.name: rest.id} | ({str(start): one.id} if known else {})
    run_dir = out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        facts = steps.train(
            one, rest, recipe, held=held, method=chosen, teacher=taught_by, run_dir=run_dir,
            watch=lambda what, done, n, loss: show(what, done, n, f"loss {loss:.3f}"),
        )  # fmt: skip
    _save(one, out, inputs, run_dir)
    lines = [*_left_alone(facts), _reached(out, facts, held)]
    if _is_main():
        terminal.answer({"out": str(out), "id": one.id, **facts}, as_json=json, lines=lines)


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
    smoothing: Smoothing = 0.0,
    shift: Shift = None,
    teacher: TeacherDir = None,
    teacher_weight: TeacherWeight = None,
    temperature: Temperature = None,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Cut what training made small, fine-tune with the zeros fixed, shrink, and write a network of plain layers.

    A killed call continues when given again; of several levels, those that are done are left.
    """
    from tprune.cnn import nets, network, steps
    from tprune.cnn.train import recipe_of

    use_threads(threads)
    heap.keep()
    levels = _levels(cut)
    one = network.load(start)
    homes = [out if len(levels) == 1 else out / f"cut-{level:g}" for level in levels]
    made = _made_before(homes, one) if len(homes) > 1 else {}
    for home in homes:
        if home not in made:
            stamp.check_vacant(home)
    chosen = _to_cut(one, start, method, structural)
    recipe = recipe_of(
        nets.named(one.net), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay, batch=batch,
        smoothing=smoothing, shift=shift, seed=seed,
    ) if epochs else None  # fmt: skip
    taught_by = _teacher(teacher, teacher_weight, temperature)
    if taught_by and recipe is None:
        raise BadInput("--teacher: nothing is taught in 0 epochs; give --epochs")
    settings = [steps.Settings(level, recipe, rounds, keep_bases) for level in levels]
    for how in settings:
        how.check(chosen)
    if dry_run:
        plan = {"dry_run": True, "method": repr(chosen), "settings": [asdict(one) for one in settings]}
        would = [
            f"would cut {start} at {how.level:g} ({_told(chosen)}), {_trained(recipe, teacher)}, and write {home}"
            for home, how in zip(homes, settings, strict=True)
        ]
        return terminal.answer(plan, as_json=json, lines=would)
    rest, held = _images(data, split, limit, held_out)
    _check_made(made, rest)
    warn_of_other_images(one, rest)
    answers, lines = [], []
    for home, how in zip(homes, settings, strict=True):
        one, run_dir = made.get(home) or network.load(start), home.parent / f".{home.name}.run"
        if home in made:
            facts = one.history[-1]
        else:
            inputs = {rest.name: rest.id, str(start): one.id}
            with terminal.bar() as show:
                facts = steps.compress(
                    one, rest, chosen, how, held=held, teacher=taught_by, run_dir=run_dir,
                    watch=lambda what, done, n, loss: show(what, done, n, f"loss {loss:.3f}"),  # noqa: B023  # used here
                )  # fmt: skip
            _save(one, home, inputs, run_dir)
        answers.append({"out": str(home), "id": one.id, **facts})
        counts = facts["counts"]
        lines += [*_left_alone(facts), f"{_reached(home, facts, held)}, {counts['nonzero']:,} weights, "
                  f"{counts['effective_macs']:,.0f} products"]  # fmt: skip
    if _is_main():
        terminal.answer({"networks": answers}, as_json=json, lines=list(dict.fromkeys(lines)))


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
    shift: Shift = None,
    held_out: HeldOut = 5000,
    limit: Limit = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Give a network in PENNI's form the weights of ESCALATE: ternary coefficients, 8-bit bases, 8 bits elsewhere."""
    from tprune.cnn import escalate, nets, network
    from tprune.cnn.train import recipe_of

    use_threads(threads)
    heap.keep()
    stamp.check_vacant(out)
    one = network.load(start)
    recipe = recipe_of(
        nets.named(one.net), epochs, lr=lr, optimiser=optimiser, weight_decay=weight_decay, batch=batch, shift=shift,
        seed=seed,
    ) if epochs else None  # fmt: skip
    if dry_run:
        plan = {"dry_run": True, "activations": activations, "recipe": recipe and asdict(recipe)}
        would = f"would quantise {start}, {_trained(recipe)}, and write {out}"
        return terminal.answer(plan, as_json=json, lines=[would])
    rest, held = _images(data, split, limit, held_out)
    warn_of_other_images(one, rest)
    inputs, run_dir = {rest.name: rest.id, str(start): one.id}, out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        facts = escalate.quantise(
            one, rest, recipe, held=held, activations=activations, run_dir=run_dir,
            watch=lambda done, n, loss: show("fine-tune", done, n, f"loss {loss:.3f}"),
        )  # fmt: skip
    _save(one, out, inputs, run_dir)
    lines = [*_left_alone(facts), _reached(out, facts, held)]
    if _is_main():
        terminal.answer({"out": str(out), "id": one.id, **facts}, as_json=json, lines=lines)


def _told(method: Method) -> str:
    return f"{method.name}: " + ", ".join(f"{key} {value}" for key, value in asdict(method).items())  # type: ignore[call-overload]


def _trained(recipe: Recipe | None, teacher: Path | None = None) -> str:
    if recipe is None:
        return "without fine-tuning"
    moved = f", shifted by up to {recipe.shift} pixels" if recipe.shift else ""
    taught = f", taught by {teacher}" if teacher else ""
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return f"{epochs} with {recipe.optimiser} at {recipe.lr:g}, {recipe.batch} images a step{moved}{taught}"


def _teacher(folder: Path | None, weight: float | None, temperature: float | None) -> Teacher | None:
    from tprune.cnn import network
    from tprune.cnn.teacher import Teacher

    given = {"weight": weight, "temperature": temperature}
    if folder is None:
        terminal.only_for("--teacher", {"--teacher-weight": weight, "--temperature": temperature})
        return None
    return Teacher(network.load(folder), **{name: value for name, value in given.items() if value is not None})


def _images(data: str, split: str, limit: int | None, held_out: int) -> tuple[Images, Images]:
    from tprune.cnn import images

    return images.load(data, split=split).first(limit).hold_out(held_out)


def _levels(cut: str) -> list[float]:
    try:
        levels = [float(level) for level in cut.split(",")]
    except ValueError:
        raise BadInput(f"--cut {cut!r} must be a number, or several separated by commas") from None
    names = [f"{level:g}" for level in levels]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"--cut {cut!r} names {twice} twice; every level makes one network")
    return levels


def _to_cut(one: Network, start: Path, method: str | None, structural: bool) -> Method:
    from tprune.cnn import methods

    chosen = methods.to_cut(one, method, structural=structural) if method else methods.of(one)
    if chosen is None:
        raise BadInput(
            f"{str(start)!r} was trained for no method; say which with --method: {', '.join(methods.METHODS)}"
        )
    if structural and not getattr(chosen, "structural", False):
        raise BadInput(f"--structural: {str(start)!r} was not trained so; give --method deephoyer with it")
    return chosen


def _made_before(homes: Sequence[Path], start: Network) -> dict[Path, Network]:
    """Return the networks that this very call wrote before it was killed, by their folders."""
    from tprune.cnn import network

    asked = [word for word in stamp.argv() if word != "--dry-run"]
    made = {}
    for home in homes:
        with suppress(BadInput):
            found = network.load(home)
            *earlier, last = found.history or [{}]
            if earlier == start.history and last.get("argv") == asked:
                made[home] = found
    return made


def _check_made(made: Mapping[Path, Network], images: Images) -> None:
    for home, one in made.items():
        if one.history[-1]["images"] != images.id:
            raise BadInput(
                f"{str(home)!r} was made of other images than {images.name} has now; remove it, or name a new --out"
            )


def _save(one: Network, out: Path, inputs: Mapping[str, str], run_dir: Path) -> None:
    """Write the network, once where several processes train it together."""
    from tprune.cnn import network

    if _is_main():
        network.save(one, out, inputs=inputs)
        shutil.rmtree(run_dir, ignore_errors=True)


def _is_main() -> bool:
    """Whether this process speaks for all that train together."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available()).is_main_process


def _left_alone(facts: Mapping[str, Any]) -> list[str]:
    return [f"layer {path} {why}" for path, why in facts["left_alone"].items()]


def _reached(out: Path, facts: Mapping[str, Any], held: Images) -> str:
    return f"{out}: {100 * facts['accuracy_held_out']:.2f} % of {len(held)} held-out images right"


app = typer.Typer(
    help="Image networks: train, compress, evaluate, export.", no_args_is_help=True, rich_markup_mode=None
)
for verb in (train, compress, quantise, evaluate, export, workload, pace):  # the order of --help
    app.command()(verb)
