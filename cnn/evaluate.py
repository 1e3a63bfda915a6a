"""How well a network classifies: the share of images whose largest logit is their label's; one beside another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.base import mcnemar
from tprune.cnn.images import Images
from tprune.cnn.network import Network

BATCH = 250  # images; the intermediate maps of a larger batch no longer fit the caches of a CPU


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Which images were classified rightly, shape (images,), and the mean cross-entropy (nats an image)."""

    right: Tensor
    loss: float

    @property
    def images(self) -> int:
        """How many images were classified."""
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """The share of right ones, 0 to 1."""
        return int(self.right.sum()) / self.images

    def p_value(self, other: Score) -> float:
        """Return how likely two equally good networks differ this much on the same images, 0 to 1 (McNemar's test)."""
        return mcnemar.p_value(self.right.tolist(), other.right.tolist())


@torch.inference_mode()
def evaluate(network: Network, images: Images, *, watch: Callable[[int, int], None] | None = None) -> Score:
    """Classify every image in full precision; raises BadInput when they are not what the network takes."""
    network.check(images)
    module, right, loss, done = network.module.eval(), [], 0.0, 0
    for pixels, labels in images.batches(BATCH):
        logits = module(network.normalise(pixels))
        right.append(logits.argmax(1) == labels)
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        done += len(labels)
        if watch:
            watch(done, len(images))
    return Score(torch.cat(right), loss / len(images))
