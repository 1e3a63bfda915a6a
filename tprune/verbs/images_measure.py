"""The verbs `tprune cnn evaluate`, `pace`, `workload` and `export` as library functions; none changes a network.

Paths and settings are checked first, before torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprune.base import heap, pixels, stamp
from tprune.base.errors import BadInput
from tprune.cnn import folder, methods, nets
from tprune.cnn.settings import BATCH, HELD_OUT, INT8_IMAGES, PACE_ROUNDS, PARITY_IMAGES, SAMPLED, recipe_of
from tprune.export import runtimes, targets
from tprune.verbs.images import warn_of_other_images

if TYPE_CHECKING:
    from tprune.bench.accel.layer import Workload
    from tprune.cnn.pacing import Pace
    from tprune.cnn.sparsity import Measured
    from tprune.export.images.int8 import Int8
    from tprune.export.images.manifest import ImageManifest

WatchTask = Callable[[str, int, int], None]  # (task, done, in all)
Watch = Callable[[int, int], None]  # (done, in all)


@dataclass(frozen=True)
class Evaluate:
    """One call of `cnn evaluate`; the first network is the baseline of the others."""

    networks: Sequence[Path]
    data: str
    split: str = "test"
    limit: int | None = None
    records: Sequence[Path] = ()  # of `tprune bench`
    results: Path | None = None
    figure: Path | None = None

    def __post_init__(self) -> None:
        if self.figure and self.figure.suffix != ".png":
            raise BadInput(f"--figure {str(self.figure)!r} must end in .png: no other format is written")
        stamp.check_file("--results", self.results)
        stamp.check_file("--figure", self.figure)
        saved = [folder.read(path) for path in self.networks]
        if self.figure and not any(methods.of(one) for one in saved):
            raise BadInput("--figure shows compressed networks beside a dense one; none of these was compressed")
        pixels.check(self.data, split=self.split)


@dataclass(frozen=True)
class Evaluation:
    """The rows of the networks, and the names of those that are no better than chance."""

    data: str
    rows: list[dict[str, Any]]
    untrained: list[str]

    def __repr__(self) -> str:
        shown = ", ".join(f"{row['name']} {100 * row['accuracy']:.2f} %" for row in self.rows)
        return f"Evaluation({self.data}: {shown})"


def evaluate(call: Evaluate, watch: WatchTask | None = None) -> Evaluation:
    """Measure accuracy, size and products of networks, and compare them with the first one."""
    from tprune.bench.measure import timings
    from tprune.bench.report import results, tradeoff
    from tprune.cnn import images, network, rows, score

    held = [network.load(path) for path in call.networks]
    timed = timings.by_model(call.records)
    pictures = images.load(call.data, split=call.split).first(call.limit)
    for one in held:
        one.check(pictures)
    names = rows.names(call.networks)
    scores = [
        score.evaluate(one, pictures, watch=watch and partial(watch, name))
        for name, one in zip(names, held, strict=True)
    ]
    alone = [
        rows.row(name, one, reached, data=pictures.name, **(asdict(timed[one.id]) if one.id in timed else {}))
        for name, one, reached in zip(names, held, scores, strict=True)
    ]
    compared = [
        rows.against(row, alone[0], p_value=reached.p_value(scores[0]), kept=rows.shares(one, held[0]))
        for row, one, reached in zip(alone, held, scores, strict=True)
    ]
    if call.results:
        results.write(call.results, compared, inputs={pictures.name: pictures.id})
    if call.figure:
        stamp.write_bytes(call.figure, tradeoff.draw(compared))
    chance = [row["accuracy"] <= 1 / len(one.classes) for row, one in zip(compared, held, strict=True)]
    untrained = [row["name"] for row, poor in zip(compared, chance, strict=True) if poor]
    return Evaluation(pictures.name, compared, untrained)


@dataclass(frozen=True)
class PaceOf:
    """One call of `cnn pace`."""

    net: str
    data: str
    split: str = "train"
    rounds: int = PACE_ROUNDS
    batch: int = BATCH

    def __post_init__(self) -> None:
        recipe_of(nets.named(self.net), 1, batch=self.batch)
        pixels.check(self.data, split=self.split)


def pace(call: PaceOf, watch: Watch | None = None) -> list[Pace]:
    """Measure the cost of a training step of each method relative to the dense network's, interleaved."""
    from torch.nn import Conv2d

    from tprune.cnn import images, network, pacing

    heap.keep()
    pictures = images.load(call.data, split=call.split)
    one = network.fresh(call.net, pictures)
    known: dict[str, methods.Method] = {
        "deephoyer": methods.DeepHoyer(),
        "deephoyer structural": methods.DeepHoyer("group-hs", structural=True),
    }
    if any(isinstance(layer, Conv2d) for layer in one.module.modules()):
        known |= {"svd channel": methods.Svd(), "svd spatial": methods.Svd(scheme="spatial"), "penni": methods.Penni()}
    recipe = recipe_of(nets.named(call.net), 1, batch=call.batch)
    return pacing.pace(one, pictures, known, recipe, rounds=call.rounds, watch=watch)


@dataclass(frozen=True)
class Measure:
    """One call of `cnn workload`; `plain`: the pruned network that designs without bases run."""

    start: Path
    data: str
    out: Path  # WORKLOAD.json, or a new folder for workload.json
    name: str | None = None
    plain: Path | None = None
    split: str = "test"
    limit: int = SAMPLED
    net: str = field(init=False)

    def __post_init__(self) -> None:
        if self.out.suffix != ".json":
            stamp.check_vacant(self.out)
        elif not self.out.parent.is_dir():
            raise BadInput(f"--out {str(self.out)!r}: there is no folder {str(self.out.parent)!r}")
        else:
            stamp.check_file("--out", self.out)
        saved = [folder.read(path) for path in (self.start, self.plain) if path]
        object.__setattr__(self, "net", saved[0].net)

    def check(self) -> None:
        """Raise BadInput when there is no such data, without reading it."""
        pixels.check(self.data, split=self.split)

    @property
    def file(self) -> Path:
        """The workload file."""
        return self.out if self.out.suffix == ".json" else self.out / "workload.json"


def workload(call: Measure, watch: WatchTask | None = None) -> Workload:
    """Measure the sparsity of a network's weights and activations and write it as a workload for `tprune simulate`."""
    from tprune.bench.accel import workload as files
    from tprune.cnn import images, network
    from tprune.cnn.sparsity import measure

    held = {path: network.load(path) for path in (call.start, call.plain) if path}
    seen = images.load(call.data, split=call.split).first(call.limit)
    found = {path: measure(one, seen, watch=watch and partial(watch, path.name)) for path, one in held.items()}
    other = _workload(call.plain.resolve().name, found[call.plain]) if call.plain else None
    made = _workload(call.name or call.start.resolve().name, found[call.start], other)
    inputs = {str(path): one.id for path, one in held.items()} | {seen.name: seen.id}
    if call.file == call.out:
        files.write(made, call.file, inputs=inputs)
    else:
        with stamp.new_folder(call.out) as part:
            files.write(made, part / call.file.name, inputs=inputs)
    return made


def _workload(name: str, found: Measured, plain: Workload | None = None) -> Workload:
    """Convert what was measured to the simulator's types."""
    from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload

    layers = []
    for one in found.layers:
        split = None if one.signs is None else Decomposition(one.signs.shape[2], Operand.of(one.signs))
        weights, activations = Operand.of(one.weights), Operand(one.density, one.activations)
        layers.append(Layer(one.name, Shape(**one.shape), weights, activations, split, one.dense))
    return Workload(name, "trained", tuple(layers), found.accuracy, found.note, plain=plain)


@dataclass(frozen=True)
class Export:
    """One call of `cnn export`; None: the default of the precision."""

    start: Path
    out: Path
    to: str = "onnx"
    precision: str = "fp32"
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    held_out: int | None = None
    max_accuracy_drop: float | None = None
    target_cpu: str | None = None

    def __post_init__(self) -> None:
        runtimes.by_flag(self.to)
        if self.precision == "int8" and not self.data:
            raise BadInput("--precision int8 needs --data: images for calibration, and others to measure its cost")
        targets.check(self.target_cpu, to=self.to, precision=self.precision)
        stamp.check_vacant(self.out)
        folder.read(self.start)
        if self.data:
            pixels.check(self.data, split=self.usual_split)

    @property
    def usual_split(self) -> str:
        """The split that is read."""
        return self.split or ("train" if self.precision == "int8" else "test")


def export(call: Export, *, threads: int = 1) -> ImageManifest:
    """Export a network; the artefact is published only if it agrees with PyTorch, and in int8 if accuracy holds."""
    from tprune.cnn import network

    write = runtimes.by_flag(call.to).load("export_classifier")
    one, int8, seen = network.load(call.start), None, None
    if call.data and call.precision == "int8":
        int8 = _int8(one, call)
    elif call.data:
        seen = pixels.load(call.data, split=call.usual_split, limit=call.limit or PARITY_IMAGES)
    name = call.start.resolve().name
    manifest: ImageManifest = write(one, call.out, name=name, images=seen, threads=threads, int8=int8)
    return manifest


def _int8(one: Any, call: Export) -> Int8:
    """Return the calibration images, and held-out images to measure the cost on, both from the training split."""
    from tprune.base.pixels import Pixels
    from tprune.cnn import images
    from tprune.export.images.int8 import CALIBRATION, Int8

    rest, held = images.load(str(call.data), split=call.usual_split).hold_out(call.held_out or HELD_OUT)
    one.check(held)
    warn_of_other_images(one, rest)
    seen, held = rest.sample(CALIBRATION).pixels.numpy(), held.sample(call.limit or INT8_IMAGES)
    judged = Pixels(held.pixels.numpy(), held.labels.numpy(), held.classes, held.name)
    int8 = Int8(seen, judged) if call.max_accuracy_drop is None else Int8(seen, judged, call.max_accuracy_drop)
    return replace(int8, target_cpu=call.target_cpu or int8.target_cpu)
