"""The training loop: length-bucketed token batches, AdamW, bf16 where it is faster, exact resume.

    train(model, pairs, Recipe(steps=600), run_dir=Path("run"))

Dropout is seeded from (seed, step), the batch order from (seed, epoch). So a killed run that resumes from its last
state gives exactly the result of an uninterrupted run. It also runs under `accelerate launch` on several processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tprune.base.bf16 import bf16_is_faster
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.state import Progress, load_state, save_state
from tprune.marian.batches import Batch, collate, schedule
from tprune.marian.model import PrunedMarianMTModel, set_dropout
from tprune.marian.objective import Objective
from tprune.marian.recipe import LOOK_EVERY, Recipe


class Pairs(Protocol):
    """Tokenised parallel text: token ids with </s>, without the start token."""

    @property
    def source(self) -> Sequence[Sequence[int]]: ...

    @property
    def target(self) -> Sequence[Sequence[int]]: ...


class Press(Protocol):
    """A penalty applied after the optimiser step; `memory` is saved with the training state."""

    memory: dict[str, float]

    def look(self, optimiser: torch.optim.Optimizer) -> None: ...

    def __call__(self, strength: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Regulariser:
    """A penalty for training: `press` is called after every step.

    Every `LOOK_EVERY` steps, `press.look` reads the optimiser and `adjust(step, strength)` returns the new strength.
    """

    strength: float
    press: Press
    adjust: Callable[[int, float], float] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training run: losses (step, nats per token), the last strength, and seconds."""

    losses: tuple[tuple[int, float], ...]
    strength: float
    seconds: float


Watch = Callable[[int, int, float], None]  # (steps done, steps in all, task loss)


def train(
    model: PrunedMarianMTModel,
    pairs: Pairs,
    recipe: Recipe,
    *,
    regulariser: Regulariser | None = None,
    teacher: PrunedMarianMTModel | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train `model` in place and return the record of it; with `run_dir` the run can be killed and continued.

    Raises WorkFailed at the first step whose loss is not finite (the last good state stays in `run_dir`), BadInput
    when `run_dir` holds the state of another run.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())  # precision is set per step, below
    set_dropout(model, dropout=recipe.dropout, attention=0.0, activation=0.0)
    run, home = _decided_by(model, pairs, recipe, regulariser, teacher), model.device
    objective = Objective(
        model,
        smoothing=recipe.smoothing,
        teacher=teacher,
        distill_share=recipe.distill_share,
    )
    trained = [p for p in model.parameters() if p.requires_grad and p.numel()]
    optimiser = torch.optim.AdamW(trained, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    prepared, stepper = accelerator.prepare(objective, optimiser)
    if teacher is not None:
        teacher.to(accelerator.device).eval()
    state = run_dir / "state.safetensors" if run_dir else None
    strength = regulariser.strength if regulariser else 0.0
    at = (load_state(state, model, optimiser, run=run) if state else None) or Progress(0, strength, (), {})
    losses, strength, began = list(at.losses), at.strength, time.monotonic()
    press = regulariser.press if regulariser else None
    if press:
        press.memory.update(at.memory)
    prepared.train()
    stream = _stream(pairs, recipe, model, accelerator, skip=at.step)
    for step in range(at.step, recipe.steps):
        if regulariser and step % LOOK_EVERY == 0:
            strength = _look(regulariser, step, strength, optimiser)
        loss = _step(prepared, next(stream), step, recipe, accelerator, stepper)
        if not math.isfinite(loss):
            raise WorkFailed(_not_finite(step, loss, state))
        if press:
            press(strength)
        losses.append((step, loss))
        if watch:
            watch(step + 1, recipe.steps, loss)
        if state and accelerator.is_main_process and ((step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps):
            now = Progress(step + 1, strength, tuple(losses), dict(press.memory) if press else {})
            save_state(state, model, optimiser, now, run=run)
    if press:
        press.look(optimiser)
    model.to(home).eval()
    return Trained(tuple(losses), strength, time.monotonic() - began)


def _look(regulariser: Regulariser, step: int, strength: float, optimiser: torch.optim.Optimizer) -> float:
    regulariser.press.look(optimiser)
    return regulariser.adjust(step, strength) if regulariser.adjust else strength


def _step(
    objective: nn.Module,
    batch: Batch,
    step: int,
    recipe: Recipe,
    accelerator: Accelerator,
    optimiser: torch.optim.Optimizer,
) -> float:
    """Run one optimiser step and return the task loss (nats per token)."""
    torch.manual_seed(recipe.seed * 1_000_003 + step * 31 + accelerator.process_index)
    for group in optimiser.param_groups:
        group["lr"] = recipe.lr_at(step)
    bf16 = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16_is_faster(_product))
    with bf16, _attention_kernel(batch):
        loss = objective(batch)
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(objective.parameters(), 1.0)
    if not (math.isfinite(float(loss.detach())) and math.isfinite(float(norm))):
        return math.nan
    optimiser.step()
    optimiser.zero_grad()
    return float(loss.detach())


def _attention_kernel(batch: Batch) -> contextlib.AbstractContextManager[None]:
    """Use plain attention on a CPU: the backward pass of fused attention is many times slower at sentence lengths."""
    if batch.source.device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


def _stream(
    pairs: Pairs, recipe: Recipe, model: PrunedMarianMTModel, accelerator: Accelerator, *, skip: int
) -> Iterator[Batch]:
    """Yield the batches of this process, from step `skip` on."""
    lengths = [(len(s), len(t)) for s, t in zip(pairs.source, pairs.target, strict=True)]
    if not lengths:
        raise BadInput("nothing to train on: the corpus has no sentence pairs")
    world, rank = accelerator.num_processes, accelerator.process_index
    mine = islice(schedule(lengths, tokens=recipe.tokens, seed=recipe.seed), skip * world + rank, None, world)
    pad, start = model.config.pad_token_id, model.config.decoder_start_token_id
    for indices in mine:
        batch = collate([pairs.source[i] for i in indices], [pairs.target[i] for i in indices], pad=pad, start=start)
        yield Batch(*(getattr(batch, name).to(accelerator.device) for name in Batch.__slots__))


def _product(dtype: torch.dtype) -> Callable[[], Tensor]:
    # no random numbers: the seed is set already
    x, y = torch.ones(512, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    return lambda: x @ y


def _decided_by(
    model: PrunedMarianMTModel,
    pairs: Pairs,
    recipe: Recipe,
    regulariser: Regulariser | None,
    teacher: PrunedMarianMTModel | None,
) -> dict[str, Any]:
    """Return everything that determines the result; weights and data as the first 16 hex digits of their SHA-256."""
    facts = asdict(recipe) | {"penalty": regulariser and [regulariser.name, regulariser.strength]}
    for what, network in (("start weights", model), ("teacher", teacher)):
        digest = hashlib.sha256()
        for parameter in network.parameters() if network is not None else ():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        facts[what] = digest.hexdigest()[:16] if network is not None else None
    data = repr((list(pairs.source), list(pairs.target))).encode()
    return facts | {"data": hashlib.sha256(data).hexdigest()[:16]}


def _not_finite(step: int, loss: float, state: Path | None) -> str:
    kept = f"the last good state is kept in {str(state.parent)!r}" if state and state.exists() else "no state was saved"
    return f"loss is {loss} at step {step + 1}; {kept}; try a smaller --lr or --strength"
