"""Accuracy of a network on labelled images, and the significance of the difference between two networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tprune.base import mcnemar
from tprune.cnn.images import Images
from tprune.cnn.network import Network

BATCH = 250  # images; the feature maps of a larger batch no longer fit into the caches of a CPU


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Which images were classified correctly, shape (images,), and the mean cross-entropy (nats per image)."""

    right: Tensor
    loss: float

    def __repr__(self) -> str:
        return f"Score({100 * self.accuracy:.2f} % of {self.images} images right, loss {self.loss:.4f})"

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """The share of correct answers, 0 to 1."""
        return int(self.right.sum()) / self.images

    def p_value(self, other: Score) -> float:
        """Return the p-value of the difference on the same images (McNemar's exact test, two-sided)."""
        return mcnemar.p_value(self.right.tolist(), other.right.tolist())


@torch.inference_mode()
def evaluate(network: Network, images: Images, *, watch: Callable[[int, int], None] | None = None) -> Score:
    """Classify every image in full precision; raise BadInput when the images do not fit the network."""
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
