"""How well a network classifies: the share of images whose largest logit is their label's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cnn.images import Images
from cnn.network import Network

BATCH = 250  # images; the intermediate maps of a larger batch no longer fit the caches of a CPU


@dataclass(frozen=True, slots=True)
class Score:
    """Images, how many of them were classified rightly, and the mean cross-entropy (nats an image)."""

    images: int
    right: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The share of right ones, 0 to 1."""
        return self.right / self.images


@torch.inference_mode()
def evaluate(network: Network, images: Images, *, watch: Callable[[int, int], None] | None = None) -> Score:
    """Classify every image in full precision; raises BadInput when they are not what the network takes."""
    network.check(images)
    module, right, loss, done = network.module.eval(), 0, 0.0, 0
    for pixels, labels in images.batches(BATCH):
        logits = module(network.normalise(pixels))
        right += int((logits.argmax(1) == labels).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        done += len(labels)
        if watch:
            watch(done, len(images))
    return Score(len(images), right, loss / len(images))
