"""Distillation (Hinton, Vinyals and Dean, 2015): learn from the logits of a better network beside the labels.

    loss = (1 - weight) * cross-entropy(labels) + weight * T^2 * KL(softmax(teacher / T) || softmax(logits / T))

The usual teacher is the dense network that was compressed. It gets the same augmented pixels as the student, and costs
one forward pass per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tprune.base.errors import BadInput
from tprune.cnn.network import Network
from tprune.cnn.settings import TEACHER_WEIGHT, TEMPERATURE, check_teaching


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher, its weight in the loss (0 to 1), and the temperature that softens both distributions."""

    network: Network
    weight: float = TEACHER_WEIGHT
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        check_teaching(self.weight, self.temperature)

    def __repr__(self) -> str:
        return f"Teacher({self.network.id}, weight={self.weight}, temperature={self.temperature})"

    def facts(self) -> dict[str, object]:
        """Return the entry for the student's history."""
        return {"id": self.network.id, "net": self.network.net, "weight": self.weight, "temperature": self.temperature}

    def check(self, student: Network) -> None:
        """Raise BadInput unless both are different modules with the same image size and classes."""
        mine, theirs = self.network, student
        if mine.module is theirs.module:
            raise BadInput(f"{mine.net} cannot be its own teacher while it trains; give a copy of it")
        if mine.image != theirs.image:
            here, there = (" x ".join(map(str, one.image)) for one in (mine, theirs))
            raise BadInput(f"the teacher, {mine.net}, takes images of {here}; its student, {theirs.net}, takes {there}")
        if mine.classes != theirs.classes:
            here, there = (", ".join(one.classes) for one in (mine, theirs))
            raise BadInput(f"the teacher, {mine.net}, has the classes {here}; its student, {theirs.net}, has {there}")

    @torch.no_grad()
    def logits(self, pixels: Tensor, *, bf16: bool) -> Tensor:
        """Return the teacher's logits (batch, classes) of uint8 pixels (batch, channels, height, width)."""
        module = self.network.module.to(pixels.device).eval()
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            return module(self.network.normalise(pixels)).float()

    def blend(self, loss: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """Return the objective (nats per image): the task's loss and the divergence from the logits `taught`."""
        soft, wanted = (functional.log_softmax(one.float() / self.temperature, 1) for one in (logits, taught))
        divergence = functional.kl_div(soft, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence
