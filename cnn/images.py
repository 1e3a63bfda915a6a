"""Labelled images of one size in memory: from a folder of parquet files or a hub dataset, as batches for training.

Pixels stay uint8 until a batch is made; augmentation (crop and flip) is drawn from a generator that the caller seeds, so
that any batch of any epoch can be made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tprune.errors import BadInput

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
MODES = {"L": 1, "RGB": 3}  # Pillow's names of what is taken as it is
CROP = 4  # pixels of zero padding of which a random crop is taken


@dataclass(frozen=True)
class Images:
    """Images (count, channels, height, width) as uint8, their labels (count) as int64, and the names of the classes."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise BadInput(f"{self.name}: there is no image")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            row = int((self.labels == wrong).nonzero()[0, 0]) + 1
            raise BadInput(f"{self.name}, row {row}: label {wrong} is not one of the {len(self.classes)} classes from 0")

    def __len__(self) -> int:
        return len(self.labels)

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

    @cached_property
    def padded(self) -> Tensor:
        """The pixels with `CROP` zeros on every side, of which random crops are taken."""
        return functional.pad(self.pixels, (CROP,) * 4)

    def take(self, indices: Tensor | slice, name: str = "") -> Images:
        """Return the images at `indices`."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices], name=name or self.name)

    def first(self, limit: int | None) -> Images:
        """Return the first `limit` images; all of them without a limit."""
        return self.take(slice(limit)) if limit is not None else self

    def hold_out(self, count: int) -> tuple[Images, Images]:
        """Return (the rest, `count` images drawn by a fixed seed): every run of every method holds out the same ones.

        Raises BadInput unless both parts keep at least one image.
        """
        if not 0 < count < len(self):
            raise BadInput(f"{self.name}: cannot hold out {count} of {len(self)} images; 1 to {len(self) - 1} are legal")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        held, rest = order[:count].sort().values, order[count:].sort().values
        return self.take(rest, f"{self.name} less {count} held out"), self.take(held, f"{count} held out of {self.name}")

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of every channel, on the scale 0 to 1."""
        counts = [torch.bincount(channel.flatten().int(), minlength=256).double() for channel in self.pixels.unbind(1)]
        level = torch.arange(256).double() / 255
        means = [float((count * level).sum() / count.sum()) for count in counts]
        squares = [float((count * level.square()).sum() / count.sum()) for count in counts]
        deviations = [max(square - mean**2, 0.0) ** 0.5 or 1.0 for mean, square in zip(means, squares, strict=True)]
        return tuple(round(mean, 4) for mean in means), tuple(round(deviation, 4) for deviation in deviations)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels as uint8, labels) in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size], self.labels[start : start + size]


def augmented(images: Images, indices: Tensor, generator: torch.Generator) -> Tensor:
    """Return the uint8 images at `indices`, each randomly shifted by up to `CROP` pixels and flipped half of the time."""
    count, (channels, height, width) = len(indices), images.shape
    down = torch.randint(0, 2 * CROP + 1, (count, 1), generator=generator) + torch.arange(height)
    right = torch.randint(0, 2 * CROP + 1, (count, 1), generator=generator) + torch.arange(width)
    flip = torch.rand(count, 1, generator=generator) < 0.5
    right = torch.where(flip, right.flip(1), right)
    at = (indices[:, None, None, None], torch.arange(channels)[:, None, None], down[:, None, :, None])
    return images.padded[(*at, right[:, None, None, :])]


def load(data: str, *, split: str) -> Images:
    """Read one split of `data`: a folder of parquet files, one parquet file, or a hub id (`ylecun/mnist`).

    In a folder the split is the file `SPLIT.parquet` or the files `SPLIT-*.parquet`, as the hub lays them out. Raises
    BadInput, naming file and row, for whatever is not a labelled image of the size of the first one.
    """
    path = Path(data)
    if not path.exists():
        return _hub(data, split)
    files = _files(path, split)
    tables = [_read(file) for file in files]
    names = _class_names(tables[0])
    rows = (row for table in tables for row in _rows(table, _column(files[0], table)))
    return _images(rows, f"{files[0].parent.name}/{split}", names)


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path, path / "data"):
        found = [folder / f"{split}.parquet"] if (folder / f"{split}.parquet").is_file() else []
        if files := found or sorted(folder.glob(f"{split}-*.parquet")):
            return files
    there = ", ".join(sorted({file.name for file in path.rglob("*.parquet")})) or "no parquet file"
    raise BadInput(f"data folder {str(path)!r} has no split {split!r} ({split}.parquet or {split}-*.parquet); it has {there}")


def _read(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"file {str(file)!r} is no readable parquet file: {str(error).splitlines()[0]}") from error


def _column(file: Path, table: Any) -> tuple[str, str]:
    return _named(file, table.column_names, IMAGE_COLUMNS), _named(file, table.column_names, LABEL_COLUMNS)


def _named(file: Path | str, columns: Sequence[str], legal: tuple[str, ...]) -> str:
    for name in legal:
        if name in columns:
            return name
    raise BadInput(f"{str(file)!r} has no column {' or '.join(map(repr, legal))}; it has {', '.join(columns)}")


def _class_names(table: Any) -> tuple[str, ...] | None:
    """The names of the classes, where `datasets` left them in the file's metadata."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return next(tuple(map(str, kind["names"])) for kind in features.values() if kind.get("_type") == "ClassLabel")
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration):
        return None


def _rows(table: Any, columns: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    for batch in table.select(list(columns)).to_batches(max_chunksize=4096):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _images(rows: Iterable[tuple[Any, Any]], name: str, classes: tuple[str, ...] | None) -> Images:
    pixels, labels = [], []
    for number, (image, label) in enumerate(rows, 1):
        where = f"{name}, row {number}"
        pixels.append(_decode(image, where))
        if pixels[-1].shape != pixels[0].shape:
            here, first = (" x ".join(map(str, one.shape)) for one in (pixels[-1], pixels[0]))
            raise BadInput(f"{where}: the image is {here} (height, width, channels) where the first is {first}")
        if isinstance(label, bool) or not isinstance(label, int):
            raise BadInput(f"{where}: the label is {label!r}; it must be a whole number from 0")
        labels.append(label)
    if not pixels:
        raise BadInput(f"{name}: there is no image")
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    names = classes or tuple(map(str, range(max(max(labels), 0) + 1)))
    return Images(stacked, torch.tensor(labels), names, name)


def _decode(image: Any, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (height, width, channels) of what a parquet row or `datasets` holds."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Mapping):
        image = image.get("bytes")
    try:
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        if not isinstance(opened, Image.Image):
            raise BadInput(f"{where}: the image is {type(image).__name__}; it must be an encoded image (PNG, JPEG)")
        if opened.mode not in MODES:
            raise BadInput(f"{where}: the image has mode {opened.mode!r}; it must be {' or '.join(MODES)}")
        array = np.asarray(opened)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"{where}: the image cannot be decoded: {error}") from error
    return array[..., None] if array.ndim == 2 else array


def _hub(name: str, split: str) -> Images:
    import datasets

    path, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(path, config or None, split=split)
    except ValueError as error:  # unknown split or config; datasets lists the legal ones
        raise BadInput(f"hub dataset {name!r}, split {split!r}: {' '.join(str(error).split())}") from error
    except (OSError, RuntimeError) as error:  # not found, no network, or offline mode without a cached copy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"data {name!r} is no folder here, and no hub dataset to be had: {reason}") from error
    image, label = (_named(name, rows.column_names, legal) for legal in (IMAGE_COLUMNS, LABEL_COLUMNS))
    classes = tuple(rows.features[label].names) if hasattr(rows.features[label], "names") else None
    return _images(((row[image], row[label]) for row in rows), f"{name}/{split}", classes)
