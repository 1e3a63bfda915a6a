"""Small folders of labelled pictures as the hub lays them out: a bright bar whose place is the class, in noise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = 10


def picture(label: int, shape: tuple[int, int, int], chance: np.random.Generator) -> np.ndarray:
    """Return uint8 (height, width, channels): noise with a bright bar at the label's place, upright for even ones."""
    channels, height, width = shape
    pixels = chance.integers(0, 64, (height, width, channels), dtype=np.uint8)
    at = 2 + (label // 2) * (min(height, width) - 6) // (CLASSES // 2)
    if label % 2:
        pixels[at : at + 3] |= 128
    else:
        pixels[:, at : at + 3] |= 128
    return pixels


def encoded(pixels: np.ndarray) -> bytes:
    """Return (height, width, channels) as a PNG file's bytes."""
    held = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(held, "PNG")
    return held.getvalue()


def write(folder: Path, shape: tuple[int, int, int] = (1, 28, 28), *, train: int = 320, test: int = 80) -> Path:
    """Write `train.parquet` and `test.parquet` with columns image and label, seeded; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        chance = np.random.default_rng(seed)
        labels = [number % CLASSES for number in range(count)]
        images = [{"bytes": encoded(picture(label, shape, chance)), "path": None} for label in labels]
        pq.write_table(pa.table({"image": images, "label": labels}), folder / f"{split}.parquet")
    return folder
