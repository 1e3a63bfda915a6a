"""A training state on disk: weights, buffers and optimiser moments in one safetensors file that is replaced whole.

No pickle. The file is written beside itself and renamed, so a kill leaves the previous state readable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tprune.base.errors import BadInput, WorkFailed

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "step")  # Adam's two, SGD's one, and Adam's count of its steps


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run: steps done, strength of the penalty, losses so far (step, task loss), memory of the press."""

    step: int
    strength: float
    losses: tuple[tuple[int, float], ...]
    memory: Mapping[str, float] = field(default_factory=dict)


def save_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, *, run: Mapping[str, Any]
) -> None:
    """Write the state; `run` is what the run is decided by: settings as JSON has them, ids of data and start weights.

    Raises WorkFailed when it cannot be written (a full disk); the previous state is then still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trained(model).items():
        tensors[f"weight.{name}"] = parameter.detach().cpu()
        for moment, value in _moments(optimiser, parameter).items():
            tensors[f"{moment}.{name}"] = value.cpu()
    tensors |= {f"buffer.{name}": buffer.detach().cpu() for name, buffer in _buffers(model).items()}
    about = {
        "run": dict(run),
        "step": progress.step,
        "strength": progress.strength,
        "losses": progress.losses,
        "memory": dict(progress.memory),
    }
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, {"state": json.dumps(about)})
        _sync(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise WorkFailed(f"training state {str(path)!r} cannot be written ({error}); run again to continue") from error


def load_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, run: Mapping[str, Any]
) -> Progress | None:
    """Load the state into model and optimiser and return its progress; None if there is no state yet.

    Raises BadInput when the state is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    wanted = json.loads(json.dumps(run))
    try:
        with safe_open(path, framework="pt") as file:
            held = set(file.keys())
            about: Mapping[str, Any] = json.loads(file.metadata()["state"])
            if "run" not in about:
                raise BadInput(f"training state {str(path)!r} is of an older tprune; remove it to start again")
            _check_same_run(path, about["run"], wanted)
            with torch.no_grad():
                for name, parameter in _trained(model).items():
                    parameter.copy_(file.get_tensor(f"weight.{name}"))
                    there = [m for m in MOMENTS if f"{m}.{name}" in held]
                    if there:
                        moments = {m: _as_it_lies(file.get_tensor(f"{m}.{name}"), parameter) for m in there}
                        step = torch.tensor(float(about["step"]), device=parameter.device)
                        optimiser.state[parameter] = {"step": step, **moments}
                for name, buffer in _buffers(model).items():
                    buffer.copy_(file.get_tensor(f"buffer.{name}"))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise BadInput(f"training state {str(path)!r} is damaged ({error}); remove it to start again") from error
    return Progress(
        about["step"], about["strength"], tuple((s, v) for s, v in about["losses"]), about.get("memory", {})
    )


def _check_same_run(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differ = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if differ:
        apart = ", ".join(f"{key} is {wanted.get(key)} and was {found.get(key)}" for key in differ)
        raise BadInput(
            f"training state {str(path)!r} belongs to another run ({apart}); to continue it, start it as "
            "it was started, else remove it or choose another folder"
        )


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of the model, such as running statistics of batch norms."""
    kept = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def _moments(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the optimiser's moments; parameters without gradients (an unused embedding) have none."""
    state = optimiser.state.get(parameter, {})
    return {moment: state[moment] for moment in MOMENTS if moment in state}


def _as_it_lies(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a moment on the parameter's device and in its memory format: fused steps walk raw memory, element by
    element, and would give a channels-last kernel the moments of other weights."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
