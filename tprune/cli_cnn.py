"""The verbs `tprune cnn ...`: image networks, from training to shrunk networks."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tprune import stamp, terminal
from tprune.errors import BadInput
from tprune.options import Dry, Json, Out, Seed, Threads, use_threads

app = typer.Typer(help="Image networks: train, compress, evaluate, export.", no_args_is_help=True, rich_markup_mode=None)

ImageData = Annotated[str, typer.Option(help="Images: folder of parquet files or hub id.", metavar="DATA")]
NetworkDir = Annotated[Path, typer.Argument(help="Folder that `cnn train` or `cnn compress` wrote.", metavar="NETWORK")]
HeldOut = Annotated[int, typer.Option(help="Training images that are held out; every choice is made on them.", min=1)]


@app.command()
def train(
    data: ImageData,
    out: Out,
    net: Annotated[str | None, typer.Option(help="Network to train from scratch, such as resnet20.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Trained network to go on from.")] = None,
    split: str = "train",
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 30,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; by default the network's own.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="sgd or adam; by default the network's own.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default: 5e-4 with sgd, 0 with adam.")] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    held_out: HeldOut = 5000,
    limit: Annotated[int | None, typer.Option(help="Use only the first N images.", min=2)] = None,
    seed: Seed = 0,
    threads: Threads = 2,
    json: Json = False,
    dry_run: Dry = False,
) -> None:
    """Train a network, from scratch or on; a killed run continues when the same command is given again."""
    from cnn import evaluate as score
    from cnn import images, network, nets
    from cnn.train import Recipe, fit

    use_threads(threads)
    stamp.check_vacant(out)
    if (net is None) == (start is None):
        raise BadInput("give either --net (from scratch) or --from (a trained network)")
    known = network.load(start) if start else None
    row = nets.named(known.net if known else str(net))
    kind = optimiser or row.optimiser
    decay = weight_decay if weight_decay is not None else (5e-4 if kind == "sgd" else 0.0)
    recipe = Recipe(
        epochs, lr or row.lr, kind, decay, batch, smoothing=smoothing, augment=row.augment, bf16=row.bf16, seed=seed
    )
    if dry_run:
        return terminal.answer({"dry_run": True, "recipe": asdict(recipe)}, as_json=json, lines=[str(recipe)])
    rest, held = images.load(data, split=split).first(limit).hold_out(held_out)
    one = known or network.fresh(str(net), rest, seed=seed)
    inputs = {str(start): one.id} if start else {}
    run_dir = out.parent / f".{out.name}.run"
    with terminal.bar() as show:
        fitted = fit(one, rest, recipe, run_dir=run_dir,
                     watch=lambda done, n, loss: show("train", done, n, f"loss {loss:.3f}"))  # fmt: skip
        reached = score.evaluate(one, held, watch=lambda done, n: show("evaluate", done, n, ""))
    facts: dict[str, Any] = {
        "verb": "train",
        **asdict(recipe),
        "accuracy_held_out": reached.accuracy,
        "losses": [round(loss, 4) for loss in fitted.losses],
        "seconds": round(fitted.seconds),
    }
    one.history.append(facts)
    network.save(one, out, inputs={**inputs, rest.name: rest.id})
    shutil.rmtree(run_dir, ignore_errors=True)
    lines = [f"{out}: {reached.right} of {reached.images} held-out images right ({100 * reached.accuracy:.2f} %)"]
    terminal.answer({"out": str(out), "id": one.id, **facts}, as_json=json, lines=lines)
