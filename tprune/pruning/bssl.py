"""BSSL, Block-wise Structured Sparsity Learning: measure how many lines each matrix type can lose, and the cost.

For one block type at a time (or all six together), a copy of the model is trained for a few steps on

    L_task + strength * sum over lines g of ||w_g||_2

Only this matrix is penalised, not its partner in the site. Adam moves a weight by at most its learning rate per step,
so no line would die within a short budget. Therefore the group lasso is applied as its proximal step in Adam's metric
(Yun, Lozano and Yang, NeurIPS 2021), after every optimiser step:

    w_g <- w_g * max(0, 1 - lr * strength / (d_g ||w_g||)),   d_g = root mean square of Adam's second moment

d_g is taken over the weights of line g, so that the step has this closed form. A line dies when ||w_g|| * d_g, its size
times the sensitivity of the loss to it, stays below strength * sum of lr. Strengths are in a unit at which the median
line of the model dies, so that 1 means the same for every model, learning rate and number of steps. A run without
penalty measures that unit.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import check_vacant
from tprune.marian.batches import Batch
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus, Pairs, tokenise
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.objective import dev_loss
from tprune.marian.quality import score
from tprune.marian.recipe import Recipe
from tprune.marian.train import Regulariser, train
from tprune.marian.translate import translate
from tprune.pruning.heatmap import draw
from tprune.pruning.prune import batches
from tprune.pruning.sensitivity import Block, Row, Sensitivity
from tprune.pruning.settings import JOURNAL, AnalysisSettings
from tprune.pruning.sites import sub_blocks

MATRICES = {  # block type -> parameter of a sub-block, dim of its lines in the paper's direction
    "q": ("q_proj.weight", 0),
    "k": ("k_proj.weight", 0),
    "v": ("v_proj.weight", 0),
    "o": ("out_proj.weight", 1),
    "fc1": ("fc1.weight", 0),
    "fc2": ("fc2.weight", 1),
}
TINY = 1e-12  # avoids 0/0; far below any relevant weight or gradient

Watch = Callable[[str, int, int, float], None]  # (what runs, steps done, steps in all, task loss)


class Job(NamedTuple):
    """One run of the analysis; `none` is the training without penalty, `dense` no training at all."""

    block_type: str
    direction: str = "paper"
    strength: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.block_type} {self.direction} {self.strength:g}" if self.strength else self.block_type


class Target(NamedTuple):
    """One penalised matrix with its lines along `dim`; `scale` is their root mean square norm before the run."""

    name: str
    weight: nn.Parameter
    dim: int
    scale: float


def analyse(
    checkpoint: Checkpoint,
    corpus: Corpus,
    settings: AnalysisSettings | None = None,
    *,
    dev: Corpus,
    out: Path | str,
    watch: Watch | None = None,
) -> Sensitivity:
    """Run BSSL and write `sensitivity.json` and `heatmap.png` to the folder `out`; the checkpoint is not changed.

    Every finished run is a line of `out/runs.jsonl`; a killed analysis resumes after the last one. Raises BadInput
    when `out` holds anything else or runs of other settings, model or data; WorkFailed when training diverges.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput(f"WORLD_SIZE {os.environ['WORLD_SIZE']}: an analysis is many short runs in one process")
    settings = settings or AnalysisSettings()
    inputs = {"model": checkpoint.id, "train": corpus.id, "dev": dev.id}
    journal = Journal(Path(out) / JOURNAL, fingerprint(settings, inputs))
    done = journal.open()
    bench = _Bench(checkpoint, corpus, dev, settings)
    todo = jobs(settings)
    trained, total = 0, settings.steps * sum(job.block_type != "dense" for job in todo)
    rows: list[Row] = []
    for job in todo:
        if job not in done:
            unit = rows[1].unit if len(rows) > 1 else 0.0
            done[job] = bench.run(job, unit, _offset(watch, job.label, trained, total))
            journal.append(done[job])
        trained += settings.steps * (job.block_type != "dense")
        rows.append(done[job])
    model = {"id": checkpoint.id, "name": checkpoint.name}
    result = Sensitivity(tuple(rows), json.loads(json.dumps(asdict(settings))), model, inputs)
    draw(result, Path(out) / "heatmap.png")
    result.write(Path(out) / "sensitivity.json")
    return result


def jobs(settings: AnalysisSettings) -> list[Job]:
    """Return every run in order: dense, no penalty, then per block type the paper's direction and the control."""
    strengths = {"paper": settings.strengths, "opposite": (settings.strengths[(len(settings.strengths) - 1) // 2],)}
    penalised = [
        Job(block_type, direction, strength)
        for block_type in settings.block_types
        for direction in settings.directions
        for strength in strengths[direction]
    ]
    return [Job("dense"), Job("none"), *penalised]


def targets(model: PrunedMarianMTModel, block_type: str, direction: str) -> list[Target]:
    """Return the matrices of one block type (or of `all`) with the dim of their lines; empty sub-blocks have none."""
    found = []
    for name, module in sub_blocks(model):
        for kind, (parameter, dim) in MATRICES.items():
            owned = kind.startswith("fc") == name.endswith(".ffn") and block_type in (kind, "all")
            weight = dict(module.named_parameters()).get(parameter) if owned else None
            if weight is not None and weight.numel():
                dim = dim if direction == "paper" else 1 - dim
                scale = float(_norms(weight, dim).square().mean().sqrt())
                found.append(Target(f"{name}.{kind}", weight, dim, max(scale, TINY)))
    return found


class Shrink:
    """The proximal step of the group lasso on the targets, in Adam's metric: a `train.Press`."""

    def __init__(self, places: Sequence[Target]) -> None:
        self.places = places
        self.memory: dict[str, float] = {}  # runs are short and never resumed half-way
        self.optimiser: torch.optim.Optimizer | None = None
        self.paid = 0.0  # the sum of learning rates so far
        self.prices: list[Tensor] = []  # ||w_g|| * d_g before the last shrinking, per target (lines,)

    def look(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep the optimiser, whose second moment and learning rate every step reads."""
        self.optimiser = optimiser

    @torch.no_grad()
    def __call__(self, strength: float) -> None:
        """Shrink every line once, after a step of the optimiser."""
        assert self.optimiser is not None
        group = self.optimiser.param_groups[0]
        self.paid += group["lr"]
        self.prices = []
        for _, weight, dim, _ in self.places:
            state = self.optimiser.state[weight]
            moment = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
            price = _norms(weight, dim) * moment.mean(1 - dim).sqrt()
            self.prices.append(price)
            if strength:
                weight.mul_((1 - group["lr"] * strength / price.clamp_min(TINY)).clamp_min(0).unsqueeze(1 - dim))

    def unit(self) -> float:
        """Return the strength at which the median line dies: median of ||w_g|| * d_g over the sum of learning rates."""
        return float(torch.cat(self.prices).median()) / self.paid


class _Bench:
    """What all runs share: the start model, and the data as tokens."""

    def __init__(self, checkpoint: Checkpoint, corpus: Corpus, dev: Corpus, settings: AnalysisSettings) -> None:
        longest = checkpoint.model.config.max_position_embeddings
        pairs = tokenise(corpus, checkpoint.tokenizer, longest)
        held_out = tokenise(dev, checkpoint.tokenizer, longest)
        self.checkpoint, self.dev, self.settings = checkpoint, dev, settings
        self.pairs = Pairs(pairs.source[: settings.limit], pairs.target[: settings.limit])
        cut = settings.dev_limit
        self.batches = batches(Pairs(held_out.source[:cut], held_out.target[:cut]), checkpoint.model, tokens=2048)

    def run(self, job: Job, unit: float, watch: Callable[[int, int, float], None]) -> Row:
        """Train a copy of the model under the job's penalty and measure it; the run `none` measures the unit."""
        model = copy.deepcopy(self.checkpoint.model)
        places = targets(model, job.block_type, job.direction)
        if job.block_type == "none":
            unit = self._train(model, targets(model, "all", "paper"), 0.0, watch)
        elif job.strength:
            self._train(model, places, job.strength * unit, watch)
        alive = [_norms(place.weight, place.dim) >= self.settings.threshold * place.scale for place in places]
        blocks = tuple(_block(place, lines) for place, lines in zip(places, alive, strict=True))
        as_trained = zeroed = self._loss(model)
        if _zero(places, alive):
            zeroed = self._loss(model)
        if not math.isfinite(as_trained + zeroed):
            raise WorkFailed(f"run {job.label}: dev loss is {zeroed}; try smaller strengths or a smaller lr")
        return Row(*job, unit, as_trained, zeroed, self._bleu(model), blocks)

    def _train(
        self,
        model: PrunedMarianMTModel,
        places: Sequence[Target],
        strength: float,
        watch: Callable[[int, int, float], None],
    ) -> float:
        """Train `model` in place and return the unit of strength measured from its gradients."""
        settings = self.settings
        recipe = Recipe(
            steps=settings.steps,
            lr=settings.lr,
            warmup=min(5, settings.steps // 5),
            final_lr_share=1.0,
            tokens=settings.tokens,
            seed=settings.seed,
        )
        shrink = Shrink(places)
        train(model, self.pairs, recipe, regulariser=Regulariser(strength, press=shrink), watch=watch)
        return shrink.unit()

    def _loss(self, model: PrunedMarianMTModel) -> float:
        device = model.device
        moved = [Batch(*(getattr(batch, name).to(device) for name in Batch.__slots__)) for batch in self.batches]
        return dev_loss(model, moved)

    def _bleu(self, model: PrunedMarianMTModel) -> float | None:
        some = self.settings.bleu_sentences
        if not some:
            return None
        made = translate(model, self.checkpoint.tokenizer, self.dev.source[:some])
        return score(made.text, self.dev.target[:some], language=self.dev.language).bleu


@torch.no_grad()
def _norms(weight: Tensor, dim: int) -> Tensor:
    """Return the norm of every line along `dim`, shape (lines,)."""
    return weight.detach().square().sum(1 - dim).sqrt()


def _block(place: Target, alive: Tensor) -> Block:
    norm = float(_norms(place.weight, place.dim).square().mean().sqrt()) / place.scale
    return Block(place.name, len(alive), int((~alive).sum()), round(norm, 6))


@torch.no_grad()
def _zero(places: Sequence[Target], alive: Sequence[Tensor]) -> bool:
    """Set the dead lines to zero; return whether a weight changed."""
    changed = False
    for (_, weight, dim, _), lines in zip(places, alive, strict=True):
        dead = weight.index_select(dim, (~lines).nonzero()[:, 0])
        changed = changed or bool(dead.count_nonzero())
        weight.mul_(lines.to(weight.dtype).unsqueeze(1 - dim))
    return changed


def _offset(watch: Watch | None, label: str, before: int, total: int) -> Callable[[int, int, float], None]:
    """Count the steps of one run as steps of the whole analysis."""

    def report(done: int, _: int, loss: float) -> None:
        if watch:
            watch(label, before + done, total, loss)

    return report


def fingerprint(settings: AnalysisSettings, inputs: dict[str, str]) -> str:
    """Return 16 hex digits that identify everything that determines the result."""
    return hashlib.sha256(json.dumps([asdict(settings), inputs], sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The finished runs, one JSON line each; an incomplete last line belongs to an unfinished run."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path, self.mark = path, mark

    def open(self) -> dict[Job, Row]:
        """Return the finished runs, and remove an incomplete last line.

        Raises BadInput when the folder has other content, or runs of another analysis.
        """
        if not self.path.is_file():
            check_vacant(self.path.parent).mkdir(parents=True, exist_ok=True)
            return {}
        whole, newline, torn = self.path.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(self.path, len(whole) + len(newline))
        rows = list(self._rows(whole))
        return {Job(row.block_type, row.direction, row.strength): row for row in rows}

    def _rows(self, lines: bytes) -> Iterator[Row]:
        for number, line in enumerate(lines.splitlines(), 1):
            try:
                values = json.loads(line)
                mark, row = values["fingerprint"], Row.from_json(values)
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"{str(self.path)!r}, line {number} is no run of an analysis ({error}); remove it"
                ) from error
            if mark != self.mark:
                raise BadInput(
                    f"{str(self.path)!r} holds runs of another analysis (settings, model or data differ: "
                    f"{mark} is not {self.mark}); choose another folder or remove it"
                )
            yield row

    def append(self, row: Row) -> None:
        """Add one finished run, durable when this returns."""
        line = json.dumps({"fingerprint": self.mark, **row.to_json()}, allow_nan=False) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
