"""`Pixels`: labelled images of one size as NumPy arrays, from a folder of parquet files or a hub dataset.

Without torch, so that whoever only measures needs none; `tprune.cnn.images` makes tensors of them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tprune.base import extras
from tprune.base.errors import BadInput

LARGEST_LABEL = 99_999  # each class costs a row of the last layer: anything larger is no class
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
MODES = {"L": 1, "RGB": 3}  # Pillow's names of what is taken as it is


@dataclass(frozen=True)
class Pixels:
    """Images `data` (count, channels, height, width) as uint8, their labels (count) as int64, the classes' names."""

    data: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        check_labels(self.labels, self.classes, self.name)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def id(self) -> str:
        """Return the first 16 hex digits of the SHA-256 over pixels and labels."""
        digest = hashlib.sha256(self.data.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]


def check_labels(labels: npt.NDArray[np.int64], classes: Sequence[str], name: str) -> None:
    """Raise BadInput, naming the row, unless there are labels and every one is a class."""
    if not len(labels):
        raise BadInput(f"{name}: there is no image")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        row = int(wrong[0])
        raise BadInput(f"{name}, row {row + 1}: label {labels[row]} is not one of the {len(classes)} classes from 0")


def load(data: str, *, split: str, limit: int | None = None) -> Pixels:
    """Read one split of `data`: a folder of parquet files, one parquet file, or a hub id (`ylecun/mnist`).

    In a folder the split is the file `SPLIT.parquet` or the files `SPLIT-*.parquet`, as the hub lays them out. Raises
    BadInput, naming file and row, for whatever is not a labelled image of the size of the first one;
    what comes after the first `limit` images is not looked at.
    """
    path = Path(data)
    if not path.exists():
        return _hub(data, split, limit)
    files = _files(path, split)
    tables = [_read(file) for file in files]
    names = _class_names(tables[0])
    rows = (row for table in tables for row in _rows(table, _column(files[0], table)))
    return _images(itertools.islice(rows, limit), f"{files[0].parent.name}/{split}", names)


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path, path / "data"):
        found = [folder / f"{split}.parquet"] if (folder / f"{split}.parquet").is_file() else []
        if files := found or sorted(folder.glob(f"{split}-*.parquet")):
            return files
    there = ", ".join(sorted({file.name for file in path.rglob("*.parquet")})) or "no parquet file"
    raise BadInput(
        f"data folder {str(path)!r} has no split {split!r} ({split}.parquet or {split}-*.parquet); it has {there}"
    )


def _read(file: Path) -> Any:
    pa = extras.load("pyarrow", "datasets", "reading parquet files")
    pq = extras.load("pyarrow.parquet", "datasets", "reading parquet files")
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


def _images(rows: Iterable[tuple[Any, Any]], name: str, classes: tuple[str, ...] | None) -> Pixels:
    pixels, labels = [], []
    for number, (image, label) in enumerate(rows, 1):
        where = f"{name}, row {number}"
        pixels.append(_decode(image, where))
        if pixels[-1].shape != pixels[0].shape:
            here, first = (" x ".join(map(str, one.shape)) for one in (pixels[-1], pixels[0]))
            raise BadInput(f"{where}: the image is {here} (height, width, channels) where the first is {first}")
        if isinstance(label, bool) or not isinstance(label, int) or label > LARGEST_LABEL:
            raise BadInput(f"{where}: the label is {label!r}; it must be a whole number from 0 to {LARGEST_LABEL}")
        labels.append(label)
    if not pixels:
        raise BadInput(f"{name}: there is no image")
    stacked = np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))
    names = classes or tuple(map(str, range(max(max(labels), 0) + 1)))
    return Pixels(stacked, np.array(labels, dtype=np.int64), names, name)


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
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise BadInput(f"{where}: the image cannot be decoded: {error}") from error
    return array[..., None] if array.ndim == 2 else array


def _hub(name: str, split: str, limit: int | None) -> Pixels:
    path, _, config = name.partition(":")
    if path.count("/") != 1 or not all(path.split("/")):
        raise BadInput(f"data {name!r} is no folder here and no hub id, such as ylecun/mnist")
    datasets = extras.load("datasets", "datasets", f"data set {name!r}")
    try:
        rows = datasets.load_dataset(path, config or None, split=split)
    except ValueError as error:  # unknown split or config; datasets lists the legal ones
        raise BadInput(f"hub dataset {name!r}, split {split!r}: {' '.join(str(error).split())}") from error
    except (OSError, RuntimeError) as error:  # not found, no network, or offline mode without a cached copy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"data {name!r} is no folder here, and no hub dataset to be had: {reason}") from error
    image, label = (_named(name, rows.column_names, legal) for legal in (IMAGE_COLUMNS, LABEL_COLUMNS))
    classes = tuple(rows.features[label].names) if hasattr(rows.features[label], "names") else None
    pairs = ((row[image], row[label]) for row in itertools.islice(rows, limit))
    return _images(pairs, f"{name}/{split}", classes)
