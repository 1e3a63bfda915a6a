"""The training loop for image networks: SGD or Adam, warm-up and linear decay, bf16, channels last, resumable.

    fit(network, images, Recipe(epochs=10), penalty=deephoyer.penalty(...), run_dir=Path("run"))

No random state outlives a step: the order is seeded by (seed, epoch), the augmentation by (seed, step). A run that is
killed and resumed therefore gives the same result as an uninterrupted one. The loop also runs under `accelerate launch`
on several processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tprune.base.bf16 import bf16_is_faster
from tprune.base.errors import WorkFailed
from tprune.base.state import Progress, load_state, save_state
from tprune.cnn.images import Images, augmented
from tprune.cnn.network import Network
from tprune.cnn.settings import Recipe
from tprune.cnn.teacher import Teacher

SAVE_EVERY = 60.0  # seconds
FIRST_SAVE = 10.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of `fit`: mean loss of every epoch (nats per image), seconds, and the step it resumed at."""

    losses: tuple[float, ...]
    seconds: float
    resumed_at: int = 0


class Penalty(Protocol):
    """A regularisation term; its repr identifies a run when it is resumed."""

    def backward(self) -> None:
        """Add the gradient to the `.grad` of the weights."""


Frozen = Callable[[int], Collection[nn.Parameter]]  # epoch -> parameters frozen in it; its repr identifies a run
Watch = Callable[[int, int, float], None]  # (steps done, steps in all, loss)


def fit(
    network: Network,
    images: Images,
    recipe: Recipe,
    *,
    penalty: Penalty | None = None,
    frozen: Frozen | None = None,
    keep_zeros: bool = False,
    teacher: Teacher | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train the network's module in place; with `run_dir`, a killed run can be resumed.

    keep_zeros: weights that are 0 at the start stay 0 (fine-tuning after pruning); teacher: network to distil from.
    Raises WorkFailed at the first non-finite loss, BadInput when `run_dir` has the state of another run. Seeds torch's
    global generator at every step.
    """
    network.check(images)
    recipe.check(network.image)
    if teacher:
        teacher.check(network)
    run = asdict(recipe) | {"penalty": repr(penalty), "resting": repr(frozen), "zeros stay": keep_zeros}
    run["teacher"] = repr(teacher)
    run |= {"start network": network.id, "images": images.id}
    do_step = Step(network, recipe, penalty=penalty, keep_zeros=keep_zeros, teacher=teacher)
    module, optimiser, accelerator = network.module, do_step.optimiser, do_step.accelerator
    state = run_dir / "state.safetensors" if run_dir else None
    at = (load_state(state, module, optimiser, run=run) if state else None) or Progress(0, 0.0, ())
    rank, world = accelerator.process_index, accelerator.num_processes
    an_epoch = len(images) // recipe.batch or 1
    steps, began = an_epoch * recipe.epochs, time.monotonic()
    saved = began - SAVE_EVERY + FIRST_SAVE
    losses = _Losses(dict(at.losses), dict(at.memory))
    do_step.bf16 = bool(losses.running.setdefault("bf16", float(do_step.bf16)))  # as at the start of the run
    for step, (pixels, labels) in enumerate(_stream(images, recipe, at.step, steps, rank, world), at.step):
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr_at(step, steps)
        value = do_step(pixels, labels, frozen(step // an_epoch) if frozen else ())
        if not math.isfinite(value):
            raise WorkFailed(_not_finite(f"loss is {value} at step {step + 1}", state))
        losses.add(step // an_epoch, value, (step + 1) % an_epoch == 0, an_epoch)
        if watch:
            watch(step + 1, steps, value)
        due = time.monotonic() - saved > SAVE_EVERY or step + 1 == steps
        if due:
            _check_finite(module, state)
        if state and due and accelerator.is_main_process:
            now = Progress(step + 1, 0.0, tuple(losses.epochs.items()), losses.running)
            save_state(state, module, optimiser, now, run=run)
            saved = time.monotonic()
    module.to("cpu").eval()
    return Fitted(tuple(losses.epochs.values()), time.monotonic() - began, at.step)


class Step:
    """One training step: forward, backward including the penalty, optimiser.

    Puts the network's module into train mode, on the accelerator's device.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        *,
        penalty: Penalty | None = None,
        keep_zeros: bool = False,
        teacher: Teacher | None = None,
    ) -> None:
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")  # the recipe decides
        self._network, self._penalty, self._teacher = network, penalty, teacher
        parameters = list(network.module.train().parameters())
        self.optimiser = _optimiser(parameters, recipe)
        bf16 = recipe.bf16 and bf16_is_faster(_convolution)
        objective = Objective(network.module, recipe.smoothing, bf16=bf16, teacher=teacher)
        self._plain = objective
        self._objective, self._stepper = self.accelerator.prepare(objective, self.optimiser)
        zeros = {p: p == 0 for p in parameters if keep_zeros and p.ndim > 1}
        self._masks = {p: (~zero).to(p) for p, zero in zeros.items() if bool(zero.any())}

    @property
    def bf16(self) -> bool:
        """Whether products are computed in bf16."""
        return self._plain.bf16

    @bf16.setter
    def bf16(self, wanted: bool) -> None:
        self._plain.bf16 = wanted

    def __call__(self, pixels: Tensor, labels: Tensor, resting: Collection[nn.Parameter] = ()) -> float:
        """Train on uint8 pixels (batch, channels, height, width) and labels (batch); `resting` parameters are frozen.

        Returns the loss (nats per image) without the penalty; if it is not finite, the weights are unchanged.
        """
        device = self.accelerator.device
        pixels, labels = pixels.to(device), labels.to(device)
        taught = self._teacher.logits(pixels, bf16=self.bf16) if self._teacher else None
        loss = self._objective(self._network.normalise(pixels), labels, taught)
        loss.backward()  # not accelerate's, which may scale the loss but not the penalty
        if self._penalty:
            self._penalty.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        for parameter, mask in self._masks.items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        for parameter in resting:
            parameter.grad = None
        self._stepper.step()
        self._stepper.zero_grad()
        return value


class Objective(nn.Module):
    """The loss of a network, in bf16 or full precision regardless of the caller's autocast context."""

    def __init__(self, module: nn.Module, smoothing: float, *, bf16: bool, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.module, self.smoothing, self.bf16, self.teacher = module, smoothing, bf16, teacher

    def forward(self, inputs: Tensor, labels: Tensor, taught: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy (nats per image) of (batch, channels, height, width) and labels (batch).

        With a teacher's logits `taught` (batch, classes), return the distillation objective.
        """
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.module(inputs)
            loss = functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return loss if self.teacher is None or taught is None else self.teacher.blend(loss, logits, taught)


@dataclass(slots=True)
class _Losses:
    epochs: dict[int, float]
    running: dict[str, float]

    def add(self, epoch: int, loss: float, last: bool, count: int) -> None:
        self.running["sum"] = self.running.get("sum", 0.0) + loss
        if last:
            self.epochs[epoch] = self.running.pop("sum") / count


def _optimiser(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, fused=True)
    sgd = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    for parameter in parameters:  # as after a first step; the fused kernel needs all or none
        sgd.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return sgd


def _stream(
    images: Images, recipe: Recipe, start: int, steps: int, rank: int, world: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's uint8 pixels and labels of every step from `start` on."""
    an_epoch = len(images) // recipe.batch or 1
    for epoch in range(start // an_epoch, math.ceil(steps / an_epoch)):
        order = torch.randperm(len(images), generator=_generator(recipe.seed, epoch, 0))
        for step in range(max(start, epoch * an_epoch), (epoch + 1) * an_epoch):
            at = (step - epoch * an_epoch) * recipe.batch
            mine = order[at : at + recipe.batch][rank::world]
            chance = _generator(recipe.seed, step, 1 + rank)
            torch.manual_seed(chance.initial_seed())  # for dropout: no random state outlives a step
            yield augmented(images, mine, chance, shift=recipe.shift, flip=recipe.flip), images.labels[mine]


def _generator(seed: int, number: int, use: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) * 64 + use)


def _convolution(dtype: torch.dtype) -> Callable[[], Tensor]:
    x = torch.ones(32, 32, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.ones(32, 32, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: functional.conv2d(x, w, padding=1)


def _check_finite(module: nn.Module, state: Path | None) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WorkFailed(_not_finite(f"{name} is no longer finite", state))


def _not_finite(what: str, state: Path | None) -> str:
    kept = f"the last good state is kept in {str(state.parent)!r}" if state and state.exists() else "no state was saved"
    return f"{what}; {kept}; try a smaller --lr or --strength"
