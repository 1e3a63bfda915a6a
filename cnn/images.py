"""Labelled images of one size in memory, from a folder of parquet files or a hub dataset, and their batches.

Pixels stay uint8 until a batch is made. Augmentation (shift and flip) uses a generator seeded by the caller, so that
any batch of any epoch can be reproduced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from tprune.base import pixels
from tprune.base.errors import BadInput
from tprune.cnn import strided  # noqa: F401 - replaces a broken operator of torch


@dataclass(frozen=True)
class Images:
    """Images (count, channels, height, width) as uint8, labels (count) as int64, and the names of the classes."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        pixels.check_labels(self.labels.numpy(), self.classes, self.name)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Images({self.name}: {len(self)} of {' x '.join(map(str, self.shape))}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return (self.pixels.shape[1], self.pixels.shape[2], self.pixels.shape[3])

    @cached_property
    def id(self) -> str:
        """Return the first 16 hex digits of the SHA-256 over pixels and labels."""
        digest = hashlib.sha256(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    def take(self, indices: Tensor | slice, name: str = "") -> Images:
        """Return the images at `indices`."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices], name=name or self.name)

    def first(self, limit: int | None) -> Images:
        """Return the first `limit` images; all of them without a limit."""
        return self.take(slice(limit)) if limit is not None else self

    def hold_out(self, count: int) -> tuple[Images, Images]:
        """Return (the rest, `count` images drawn with a fixed seed): every run holds out the same images.

        Raises BadInput unless both parts have at least one image.
        """
        if not 0 < count < len(self):
            raise BadInput(
                f"{self.name}: cannot hold out {count} of {len(self)} images; 1 to {len(self) - 1} are legal"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        held, rest = order[:count].sort().values, order[count:].sort().values
        return self.take(rest, f"{self.name} less {count} held out"), self.take(
            held, f"{count} held out of {self.name}"
        )

    def sample(self, count: int) -> Images:
        """Return `count` images drawn with a fixed seed, or all of them if there are not more."""
        if count >= len(self):
            return self
        _, drawn = self.hold_out(count)
        return replace(drawn, name=f"{count} of {self.name}")

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of every channel, on the scale 0 to 1."""
        counts = [torch.bincount(channel.flatten().int(), minlength=256).double() for channel in self.pixels.unbind(1)]
        level = torch.arange(256).double() / 255
        means = [float((count * level).sum() / count.sum()) for count in counts]
        squares = [float((count * level.square()).sum() / count.sum()) for count in counts]
        deviations = [max(square - mean**2, 0.0) ** 0.5 for mean, square in zip(means, squares, strict=True)]
        # a channel that is constant up to rounding is only shifted
        return tuple(round(mean, 4) for mean in means), tuple(round(deviation, 4) or 1.0 for deviation in deviations)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels as uint8, labels) in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size], self.labels[start : start + size]


def augmented(images: Images, indices: Tensor, generator: torch.Generator, *, shift: int, flip: bool) -> Tensor:
    """Return the uint8 images at `indices`, shifted by up to `shift` pixels (padded with 0) and mirrored at random."""
    if not (shift or flip):
        return images.pixels[indices]
    count, (_, height, width) = len(indices), images.shape
    down, right = (torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)[:, 0] for _ in range(2))
    crops = functional.pad(images.pixels[indices], (shift,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    shifted = crops[torch.arange(count), :, down, right]
    if not flip:
        return shifted
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, shifted.flip(3), shifted)


def load(data: str, *, split: str) -> Images:
    """Read one split of `data`: a folder of parquet files, one parquet file, or a hub id (see `base.pixels.load`)."""
    found = pixels.load(data, split=split)
    return Images(torch.from_numpy(found.data), torch.from_numpy(found.labels), found.classes, found.name)
