"""`tprune cnn`: the verbs that make networks. Each parses its flags, calls one function of `verbs`, and shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tprune.cli import terminal
from tprune.cli.images_measure import evaluate, export, pace, workload
from tprune.cli.options import Batch, Dry, ImageData, Json, NetworkDir, Out, Seed, Threads, use_threads
from tprune.cnn.methods import METHODS, Penni
from tprune.cnn.settings import (
    COMPRESS,
    HELD_OUT,
    QUANTISE,
    TEACHER_WEIGHT,
    TEMPERATURE,
    TRAIN,
    WEIGHT_DECAY,
    Changes,
    Compression,
)

if TYPE_CHECKING:
    from tprune.cnn.methods import Method
    from tprune.cnn.settings import Recipe
    from tprune.verbs.images import Made, Teaching

NAMES = ", ".join(METHODS)
HeldOut = Annotated[int, typer.Option(help="Training images held out; every choice is made on them.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Use only the first N images.", min=2)]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate; by default the network's own.")]
Decay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay", help="Of weights; default " + ", ".join(f"{v:g} with {k}" for k, v in WEIGHT_DECAY.items())
    ),
]
Smoothing = Annotated[float, typer.Option(help="Label smoothing.")]
Shift = Annotated[
    int | None,
    typer.Option(
        help="Shift training images by up to N pixels at random; default 4 for CIFAR's networks, 0 for MNIST's."
    ),
]
Optimiser = Annotated[str | None, typer.Option(help="sgd or adam; by default the network's own.")]
TeacherDir = Annotated[
    Path | None,
    typer.Option(help="Network to distil from: its logits are targets beside the labels.", metavar="NETWORK"),
]
TeacherWeight = Annotated[
    float | None, typer.Option(help=f"Weight of the teacher in the loss; default {TEACHER_WEIGHT:g}.")
]
Temperature = Annotated[
    float | None, typer.Option(help=f"Temperature that softens both distributions; default {TEMPERATURE:g}.")
]


def train(
    data: ImageData,
    out: Out,
    net: Annotated[str | None, typer.Option(help="Network to train from scratch, such as resnet20.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Trained network to start from.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {NAMES}.", metavar="METHOD")] = None,
    penalty: Annotated[str | None, typer.Option(help="The method's penalty, such as hoyer-square, l1, none.")] = None,
    strength: Annotated[float | None, typer.Option(help="Strength of the penalty.")] = None,
    structural: Annotated[bool, typer.Option("--structural", help="deephoyer: whole filters and neurons.")] = False,
    scheme: Annotated[str | None, typer.Option(help="svd: channel or spatial.")] = None,
    orthogonality: Annotated[float | None, typer.Option(help="svd: strength of the orthogonality penalty.")] = None,
    bases: Annotated[int | None, typer.Option(help="penni: basis kernels per layer.")] = None,
    interval: Annotated[
        int | None,
        typer.Option(
            help=f"penni: epochs after which basis and coefficients swap; one is frozen. Default {Penni().interval}."
        ),
    ] = None,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = TRAIN.epochs,
    lr: Lr = None,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = TRAIN.batch,
    smoothing: Smoothing = TRAIN.smoothing,
    shift: Shift = None,
    teacher: TeacherDir = None,
    teacher_weight: TeacherWeight = None,
    temperature: Temperature = None,
    held_out: HeldOut = HELD_OUT,
    limit: Limit = None,
    seed: Seed = TRAIN.seed,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Train a network, from scratch or further, plainly or for a method. A killed run continues when given again."""
    from tprune.verbs import images as verbs

    chosen = _method(method, penalised=penalty, strength=strength, structural=structural or None, scheme=scheme,
                     orthogonality=orthogonality, bases=bases, interval=interval)  # fmt: skip
    changes = Changes(epochs, lr, optimiser, weight_decay, batch, smoothing, shift, seed)
    source = verbs.Source(data, split, limit, held_out)
    call = verbs.Train(out, source, changes, net, start, chosen, _teaching(teacher, teacher_weight, temperature))
    if dry_run:
        how = f"for {_described(chosen)}" if chosen else "plainly"
        would = f"would train {start or net} {how}, {_trained(call.recipe, teacher)}, and write {out}"
        plan = {"dry_run": True, "recipe": asdict(call.recipe), "method": repr(chosen)}
        return terminal.answer(plan, as_json=json, lines=[would])
    source.check()
    use_threads(threads)
    with terminal.bar() as show:
        made = verbs.train(call, _watch(show))
    _show(made, json)


def compress(
    start: NetworkDir,
    data: ImageData,
    out: Out,
    cut: Annotated[
        str,
        typer.Option(
            help="How far; several levels, separated by commas, make one network each. svd: share of the squared "
            "singular values to remove; deephoyer, penni: threshold in standard deviations.",
            metavar="LEVEL[,...]",
        ),
    ],  # fmt: skip
    method: Annotated[str | None, typer.Option(help="By default the one that the network was trained for.")] = None,
    structural: Annotated[bool, typer.Option("--structural", help="deephoyer: whole filters and neurons.")] = False,
    split: str = "train",
    epochs: Annotated[
        int, typer.Option(help="Passes of fine-tuning, all rounds together; 0: none.", min=0)
    ] = COMPRESS.epochs,
    rounds: Annotated[int, typer.Option(help="Number of times to cut and fine-tune.")] = 1,
    keep_bases: Annotated[
        bool, typer.Option("--keep-bases", help="penni: keep bases and coefficients, for `cnn quantise`.")
    ] = False,
    lr: Lr = None,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = COMPRESS.batch,
    smoothing: Smoothing = COMPRESS.smoothing,
    shift: Shift = None,
    teacher: TeacherDir = None,
    teacher_weight: TeacherWeight = None,
    temperature: Temperature = None,
    held_out: HeldOut = HELD_OUT,
    limit: Limit = None,
    seed: Seed = COMPRESS.seed,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Cut what training made small, fine-tune with the zeros fixed, shrink, and write a network of plain layers.

    A killed call continues when given again; of several levels, those that are done are skipped.
    """
    from tprune.verbs import images as verbs

    changes = Changes(epochs, lr, optimiser, weight_decay, batch, smoothing, shift, seed)
    source = verbs.Source(data, split, limit, held_out)
    taught = _teaching(teacher, teacher_weight, temperature)
    call = verbs.Compress(start, source, out, cut, changes, method, structural, rounds, keep_bases, taught)
    if dry_run:
        would = [_would_cut(start, call.chosen, how, teacher, home) for home, how in call.homes.items()]
        plan = {"method": repr(call.chosen), "settings": [asdict(how) for how in call.homes.values()]}
        return terminal.answer({"dry_run": True, **plan}, as_json=json, lines=would)
    source.check()
    use_threads(threads)
    with terminal.bar() as show:
        made = verbs.compress(call, _watch(show))
    if verbs.is_main():
        lines = [line for one in made for line in (*_left_alone(one), _reached(one) + _left(one))]
        terminal.answer({"networks": [one.answer for one in made]}, as_json=json, lines=list(dict.fromkeys(lines)))


def quantise(
    start: NetworkDir,
    data: ImageData,
    out: Out,
    activations: Annotated[bool, typer.Option("--activations", help="Also give every layer an 8-bit input.")] = False,
    split: str = "train",
    epochs: Annotated[
        int, typer.Option(help="Passes of fine-tuning with the quantisers; 0: none.", min=0)
    ] = QUANTISE.epochs,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = QUANTISE.lr,
    optimiser: Optimiser = None,
    weight_decay: Decay = None,
    batch: Batch = QUANTISE.batch,
    shift: Shift = None,
    held_out: HeldOut = HELD_OUT,
    limit: Limit = None,
    seed: Seed = QUANTISE.seed,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Give a network in PENNI's form the weights of ESCALATE: ternary coefficients, 8-bit bases, 8 bits elsewhere."""
    from tprune.verbs import images as verbs

    changes = Changes(epochs, lr, optimiser, weight_decay, batch, QUANTISE.smoothing, shift, seed)
    source = verbs.Source(data, split, limit, held_out)
    call = verbs.Quantise(start, source, out, changes, activations)
    if dry_run:
        plan = {"dry_run": True, "activations": activations, "recipe": call.recipe and asdict(call.recipe)}
        would = f"would quantise {start}, {_trained(call.recipe)}, and write {out}"
        return terminal.answer(plan, as_json=json, lines=[would])
    source.check()
    use_threads(threads)
    with terminal.bar() as show:
        made = verbs.quantise(call, _watch(show))
    _show(made, json)


def _method(name: str | None, **settings: object) -> Method | None:
    from tprune.cnn import methods

    if name is None:
        flags = {f"--{'penalty' if key == 'penalised' else key}": value for key, value in settings.items()}
        terminal.only_for("training with --method", flags)
        return None
    return methods.named(name, **settings)


def _teaching(folder: Path | None, weight: float | None, temperature: float | None) -> Teaching | None:
    from tprune.verbs.images import Teaching

    if folder is None:
        terminal.only_for("--teacher", {"--teacher-weight": weight, "--temperature": temperature})
        return None
    return Teaching(
        folder,
        TEACHER_WEIGHT if weight is None else weight,
        TEMPERATURE if temperature is None else temperature,
    )


def _watch(show: Callable[[str, int, int, str], None]) -> Callable[[str, int, int, float], None]:
    return lambda phase, done, steps, loss: show(phase, done, steps, f"loss {loss:.3f}")


def _would_cut(start: Path, method: Method, how: Compression, teacher: Path | None, home: Path) -> str:
    described, trained = _described(method), _trained(how.recipe, teacher)
    return f"would cut {start} at {how.level:g} ({described}), {trained}, and write {home}"


def _described(method: Method) -> str:
    return f"{method.name}: " + ", ".join(f"{key} {value}" for key, value in asdict(method).items())  # type: ignore[call-overload]


def _trained(recipe: Recipe | None, teacher: Path | None = None) -> str:
    if recipe is None:
        return "without fine-tuning"
    moved = f", shifted by up to {recipe.shift} pixels" if recipe.shift else ""
    taught = f", taught by {teacher}" if teacher else ""
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return f"{epochs} with {recipe.optimiser} at {recipe.lr:g}, {recipe.batch} images a step{moved}{taught}"


def _show(made: Made, json: bool) -> None:
    from tprune.verbs.images import is_main

    if is_main():
        terminal.answer(made.answer, as_json=json, lines=[*_left_alone(made), _reached(made)])


def _left_alone(made: Made) -> list[str]:
    return [f"layer {path} {why}" for path, why in made.entry["left_alone"].items()]


def _reached(made: Made) -> str:
    return f"{made.out}: {100 * made.entry['accuracy_held_out']:.2f} % of {made.held_out} held-out images right"


def _left(made: Made) -> str:
    counts: Mapping[str, Any] = made.entry["counts"]
    return f", {counts['nonzero']:,} weights, {counts['effective_macs']:,.0f} products"


app = typer.Typer(
    help="Image networks: train, compress, evaluate, export.", no_args_is_help=True, rich_markup_mode=None
)
for verb in (train, compress, quantise, evaluate, export, workload, pace):  # the order of --help
    app.command()(verb)
