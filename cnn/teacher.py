"""Distillation (Hinton, Vinyals and Dean, 2015): learn from the logits of a better network, not from labels alone.

    loss = (1 - weight) * cross-entropy(labels) + weight * T^2 * KL(softmax(teacher / T) || softmax(logits / T))

The dense network that a compressed one came from is the usual teacher. It sees the very pixels that the student sees,
shifted and mirrored as they are, and costs one forward pass a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tprune.base.errors import BadInput
from tprune.cnn.network import Network


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who teaches, how much of the loss is its (0 to 1), and the temperature that softens both distributions."""

    network: Network
    weight: float = 0.9
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise BadInput(f"weight {self.weight} of the teacher must lie above 0 and not above 1")
        if not 0 < self.temperature <= 100:
            raise BadInput(f"temperature {self.temperature} must lie above 0 and not above 100")

    def __repr__(self) -> str:
        return f"Teacher({self.network.id}, weight={self.weight}, temperature={self.temperature})"

    def facts(self) -> dict[str, object]:
        """Return what the student's history says of it."""
        return {"id": self.network.id, "net": self.network.net, "weight": self.weight, "temperature": self.temperature}

    def check(self, student: Network) -> None:
        """Raise BadInput unless they are two, take the same images and know the same classes."""
        mine, theirs = self.network, student
        if mine.module is theirs.module:
            raise BadInput(f"{mine.net} cannot be its own teacher while it trains; give a copy of it")
        if mine.image != theirs.image:
            here, there = (" x ".join(map(str, one.image)) for one in (mine, theirs))
            raise BadInput(f"the teacher, {mine.net}, takes images of {here}; its student, {theirs.net}, of {there}")
        if mine.classes != theirs.classes:
            here, there = (", ".join(one.classes) for one in (mine, theirs))
            raise BadInput(f"the teacher, {mine.net}, knows the classes {here}; its student, {theirs.net}, {there}")

    @torch.no_grad()
    def logits(self, pixels: Tensor, *, bf16: bool) -> Tensor:
        """Return its logits (batch, classes) of uint8 pixels (batch, channels, height, width)."""
        module = self.network.module.to(pixels.device).eval()
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            return module(self.network.normalise(pixels)).float()

    def blend(self, loss: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """Return the objective (nats an image): the task's loss, and the divergence from the logits `taught`."""
        soft, wanted = (functional.log_softmax(one.float() / self.temperature, 1) for one in (logits, taught))
        divergence = functional.kl_div(soft, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence
