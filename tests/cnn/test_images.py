"""Labelled images from parquet files: what is read is what was written, and what is none says where it stands."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tprune.base.errors import BadInput
from tprune.cnn.images import Images, augmented, load

Rows = list[tuple[Any, Any]]


def png(pixels: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    """Encode (height, width) or (height, width, 3) as a picture, without loss."""
    file, picture = io.BytesIO(), Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind)
    return file.getvalue()


def pixels(number: int, shape: tuple[int, ...] = (5, 4)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def write(
    file: Path, rows: Rows, *, classes: list[str] | None = None, names: tuple[str, str] = ("image", "label")
) -> Path:
    """Write rows of (encoded image, label) as the hub lays them out."""
    pictures = [{"bytes": one, "path": None} if isinstance(one, bytes) else one for one, _ in rows]
    table = pa.table({names[0]: pictures, names[1]: [label for _, label in rows]})
    if classes:
        about = {"info": {"features": {names[1]: {"names": classes, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(about).encode()})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def some(count: int = 6, shape: tuple[int, ...] = (5, 4)) -> Rows:
    return [(png(pixels(number, shape)), number % 3) for number in range(count)]


def images(count: int = 20, classes: int = 3) -> Images:
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (count, 1, 3, 3), generator=chance, dtype=torch.uint8)
    return Images(drawn, torch.arange(count) % classes, tuple(map(str, range(classes))), "some")


# ---- what is read


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_a_folder_of_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path / "mine" / "train.parquet", some(shape=shape))
    found = load(str(tmp_path / "mine"), split="train")
    assert found.shape == (1 if len(shape) == 2 else 3, 5, 4) and found.name == "mine/train"
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2] and found.classes == ("0", "1", "2")
    for number in range(6):
        expected = pixels(number, shape).reshape(5, 4, -1)
        assert np.array_equal(found.pixels[number].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("names", [("img", "fine_label"), ("image", "labels")])
def test_columns_and_classes_as_hubs_name_them(tmp_path: Path, names: tuple[str, str]) -> None:
    file = write(tmp_path / "train.parquet", some(), names=names, classes=["ant", "bee", "cat", "dog"])
    assert load(str(file), split="whatever").classes == ("ant", "bee", "cat", "dog")


def test_shards_are_read_in_order_below_data(tmp_path: Path) -> None:
    rows = some()
    write(tmp_path / "data" / "train-00001-of-00002.parquet", rows[4:])
    write(tmp_path / "data" / "train-00000-of-00002.parquet", rows[:4])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", rows[:1])
    assert load(str(tmp_path), split="train").labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(load(str(tmp_path), split="test")) == 1


# ---- what is not


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([*some(2), (png(pixels(9, (4, 5))), 0)], r"row 3: the image is 4 x 5 x 1 .* where the first is 5 x 4 x 1"),
        ([*some(2), (png(pixels(9, (5, 4, 3))), 0)], r"row 3: the image is 5 x 4 x 3 .* where the first is 5 x 4 x 1"),
        ([(png(pixels(0)), 0), (png(pixels(1)), -1)], "row 2: label -1 is not one of the 1 classes"),
        ([(png(pixels(0)), 10**9)], "row 1: the label is 1000000000; it must be a whole number from 0 to 99999"),
        ([(png(pixels(0)), None)], "row 1: the label is None; it must be a whole number from 0"),
        ([(png(pixels(0)), 1.5)], "row 1: the label is 1.5"),
        ([(png(pixels(0)), True)], "row 1: the label is True"),
        ([(png(pixels(0), "RGBA"), 0)], "row 1: the image has mode 'RGBA'; it must be L or RGB"),
        ([(b"no picture", 0)], "row 1: the image cannot be decoded: cannot identify"),
        ([(png(pixels(0))[:60], 0)], "row 1: the image cannot be decoded"),
        ([(b"", 0)], "row 1: the image cannot be decoded"),
        ([({"bytes": None, "path": "a.png"}, 0)], "row 1: the image is NoneType; it must be an encoded image"),
        ([(7, 0)], "row 1: the image is int; it must be an encoded image"),
    ],
)
def test_a_row_that_is_no_labelled_image(tmp_path: Path, rows: Rows, reason: str) -> None:
    write(tmp_path / "mine" / "train.parquet", rows)
    with pytest.raises(BadInput, match=f"^mine/train, {reason}"):
        load(str(tmp_path / "mine"), split="train")


def test_a_label_that_its_classes_do_not_have(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", some(), classes=["ant", "bee"])
    with pytest.raises(BadInput, match="row 3: label 2 is not one of the 2 classes from 0"):
        load(str(file), split="train")


def test_no_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", some(1))
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(BadInput, match="there is no image"):
        load(str(file), split="train")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "middle"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "train.parquet", some(50))
    content = file.read_bytes()
    middle = content[:100] + bytes(200) + content[300:]
    file.write_bytes({"cut": content[: len(content) // 2], "text": b"a,b\n", "empty": b"", "middle": middle}[damage])
    with pytest.raises(BadInput, match=r"train(\.parquet'|, row \d+)"):
        load(str(tmp_path), split="train")


def test_damaged_pictures_are_always_told(tmp_path: Path) -> None:
    """Whatever a decoder makes of wrong bytes, it ends in a picture or in one line."""
    chance, good = np.random.default_rng(0), png(pixels(0, (9, 9, 3)))
    for _ in range(100):
        wrong = bytearray(good)
        for at in chance.integers(8, len(good), 3):
            wrong[at] = chance.integers(256)
        file = write(tmp_path / "one.parquet", [(bytes(wrong), 0)])
        try:
            load(str(file), split="train")
        except BadInput as error:
            assert "row 1: the image" in str(error)  # noqa: PT017


def test_a_folder_without_the_split(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", some())
    with pytest.raises(BadInput, match=r"no split 'val' \(val.parquet or val-\*.parquet\); it has train.parquet"):
        load(str(tmp_path), split="val")
    with pytest.raises(BadInput, match="it has no parquet file"):
        (tmp_path / "empty").mkdir()
        load(str(tmp_path / "empty"), split="train")


@pytest.mark.parametrize(
    ("names", "missing"), [(("picture", "label"), "'image' or 'img'"), (("image", "class"), "'label' or 'labels'")]
)
def test_a_table_without_the_columns(tmp_path: Path, names: tuple[str, str], missing: str) -> None:
    file = write(tmp_path / "train.parquet", some(), names=names)
    with pytest.raises(BadInput, match=f"has no column {missing}.*; it has {names[0]}, {names[1]}"):
        load(str(file), split="train")


@pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder", "nowhere"])
def test_neither_a_folder_nor_on_the_hub(name: str) -> None:
    with pytest.raises(BadInput, match=rf"'{name}'") as caught:
        load(name, split="train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "/nothing", "a/"])
def test_what_can_be_no_hub_id_is_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=rf"data '{name}' is neither a local folder nor a hub id such as ylecun/mnist"):
        load(name, split="train")


# ---- what is held out, and what training sees


def test_what_is_held_out_is_disjoint_and_always_the_same() -> None:
    whole = images(20)
    whole.labels[:] = torch.arange(20) % 3
    rest, held = whole.hold_out(6)
    key = {tuple(one.flatten().tolist()): number for number, one in enumerate(whole.pixels)}
    parts = [[key[tuple(one.flatten().tolist())] for one in part.pixels] for part in (rest, held)]
    assert sorted(parts[0] + parts[1]) == list(range(20)) and len(parts[1]) == 6
    assert parts[0] == sorted(parts[0]) and parts[1] == sorted(parts[1])
    assert parts[1] != list(range(6)) and parts[1] != list(range(14, 20))
    again = images(20).hold_out(6)
    assert (again[0].id, again[1].id) == (rest.id, held.id)
    assert (rest.name, held.name) == ("some less 6 held out", "6 held out of some")
    assert held.labels.tolist() == [number % 3 for number in parts[1]]


@pytest.mark.parametrize("count", [0, -1, 20, 21])
def test_both_parts_keep_an_image(count: int) -> None:
    with pytest.raises(BadInput, match=f"cannot hold out {count} of 20 images; 1 to 19 are legal"):
        images(20).hold_out(count)


def test_the_id_is_of_pixels_and_labels() -> None:
    one, other, third = images(), images(), images()
    other.labels[3] = 1 - other.labels[3].clamp(max=1)
    third.pixels[3, 0, 1, 1] += 1
    assert one.id == images().id and len({one.id, other.id, third.id}) == 3


def test_mean_and_deviation_are_those_of_all_pixels() -> None:
    two = Images(torch.cat([images(20).pixels, images(20).pixels // 2], 1), images().labels, ("a", "b", "c"), "two")
    mean, std = two.mean_std()
    scaled = two.pixels.double() / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    flat = Images(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), ("a",), "flat")
    assert flat.mean_std()[1] == (1.0,)  # what does not vary is not divided by 0
    for value in range(256):  # nor by what rounding leaves of it
        grey = torch.full((7, 1, 32, 32), value, dtype=torch.uint8)
        assert Images(grey, torch.zeros(7, dtype=torch.int64), ("a",), "grey").mean_std()[1] == (1.0,)


def test_augmented_images_are_crops_and_flips() -> None:
    some_images = images(6)
    at, padded = torch.tensor([4, 1, 1]), functional.pad(some_images.pixels, (4,) * 4)

    def draw(seed: int, shift: int = 4, flip: bool = True) -> torch.Tensor:
        return augmented(some_images, at, torch.Generator().manual_seed(seed), shift=shift, flip=flip)

    drawn = torch.cat([draw(seed) for seed in range(60)])
    found = set()
    for number, one in enumerate(drawn):
        source = padded[at[number % 3]]
        crops = {
            (down, right, flip): (crop.flip(2) if flip else crop)
            for down in range(9)
            for right in range(9)
            for flip in (False, True)
            for crop in [source[:, down : down + 3, right : right + 3]]
        }
        fits = [key for key, crop in crops.items() if torch.equal(crop, one)]
        assert fits
        found |= set(fits) if len(fits) == 1 else set()
    assert {flip for _, _, flip in found} == {False, True}
    assert {down for down, _, _ in found} >= set(range(2, 7)) and {right for _, right, _ in found} >= set(range(2, 7))
    assert torch.equal(draw(5), draw(5))
    assert torch.equal(draw(5, shift=0, flip=False), some_images.pixels[at])
    near = {tuple(one.flatten().tolist()) for seed in range(60) for one in draw(seed, shift=1, flip=False)}
    by_one = [
        padded[one, :, 4 + down : 7 + down, 4 + right : 7 + right]
        for one in (1, 4)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    assert near == {tuple(one.flatten().tolist()) for one in by_one}
