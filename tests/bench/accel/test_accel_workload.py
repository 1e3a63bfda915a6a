"""A workload comes back from disk as it was written; damaged and inconsistent ones are refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tprune.base.errors import BadInput
from tprune.bench.accel import workload
from tprune.bench.accel.layer import Decomposition, Layer, Operand, Shape, Workload


def net() -> Workload:
    rng = np.random.default_rng(0)
    shape = Shape(4, 6, (5, 5), (3, 3), 1, 1)
    ternary = rng.integers(-1, 2, (6, 4, 2))
    masked = Layer(
        "conv1", shape, Operand.of(rng.random((6, 4, 3, 3)) < 0.5), Operand.of(rng.random((4, 5, 5)) < 0.5),
        Decomposition(2, Operand.of(ternary)), (8, 8),
    )  # fmt: skip
    return Workload("tiny", "trained", (masked, Layer("conv2", shape, Operand(0.25))), 0.9, "a note")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "workload.json"
    workload.write(net(), path)
    return path


def test_a_workload_comes_back_as_it_was_written(written):
    found, expected = workload.read(written), net()
    assert (found.network, found.source, found.accuracy, found.note) == ("tiny", "trained", 0.9, "a note")
    assert found.masked and len(found.id) == 64
    for got, want in zip(found.layers, expected.layers, strict=True):
        assert (got.name, got.shape, got.dense) == (want.name, want.shape, want.dense)
        for one, other in ((got.weights, want.weights), (got.activations, want.activations)):
            assert one.density == other.density and np.array_equal(one.mask, other.mask)
    assert np.array_equal(
        found.layers[0].decomposition.coefficients.mask, expected.layers[0].decomposition.coefficients.mask
    )
    assert found.layers[1].decomposition is None


def test_halves_of_a_split_kernel_and_the_mean_of_many_images_come_back(tmp_path):
    mask = np.arange(4 * 25).reshape(4, 5, 5) % 2 == 0
    layer = Layer("conv1.1", Shape(4, 6, (5, 5), (1, 3), (1, 2), (0, 1)), activations=Operand(0.375, mask))
    workload.write(Workload("tiny", "trained", (layer,)), tmp_path / "w.json")
    (found,) = workload.read(tmp_path / "w.json").layers
    assert found.shape == layer.shape and found.shape.out_size == (5, 3)
    assert found.activations.density == 0.375 and np.array_equal(found.activations.mask, mask)


def test_what_the_other_designs_run_comes_back(tmp_path):
    plain = Workload("pruned", "trained", tuple(replace(one, decomposition=None) for one in net().layers), 0.8, "other")
    workload.write(replace(net(), plain=plain), tmp_path / "w.json")
    found = workload.read(tmp_path / "w.json").plain
    assert (found.network, found.accuracy, found.note, found.plain) == ("pruned", 0.8, "other", None)
    assert np.array_equal(found.layers[0].weights.mask, net().layers[0].weights.mask)
    assert workload.read(tmp_path / "w.json").layers[0].decomposition and not found.layers[0].decomposition


def test_densities_alone_need_no_npz(tmp_path):
    workload.write(Workload("tiny", "synthetic", net().layers[1:]), tmp_path / "w.json")
    assert [path.name for path in tmp_path.iterdir()] == ["w.json"]
    assert not workload.read(tmp_path / "w.json").masked


def set_layer(**fields):
    return lambda document: document["layers"][0].update(fields)


def drop_layer(field):
    return lambda document: document["layers"][0].pop(field)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda d: d.update(kind="report"), "is not a workload"),
        (lambda d: d.update(speed=3), "unknown field 'speed'"),
        (lambda d: d.pop("network"), "the field 'network' is missing"),
        (lambda d: d.update(layers={}), "layers must be a list"),
        (lambda d: d.update(layers=[]), "is empty; there is nothing to simulate"),
        (lambda d: d.update(layers=[3]), "layer 0 must be an object"),
        (lambda d: d.update(plain=[]), "plain must be an object, or null"),
        (lambda d: d.update(plain={"network": "a"}), "plain: the field 'layers' is missing"),
        (lambda d: d.update(plain={"network": "a", "layers": [{}]}), "plain, layer 0: the field"),
        (
            lambda d: d.update(plain={"network": "a", "layers": d["layers"][1:]}),
            "Workload.plain of 'tiny' must have the same layers .* one has 'conv1' the other has 'conv2'",
        ),
        (lambda d: d.update(accuracy=93), "accuracy is 93; it must be a share from 0 to 1, or null"),
        (lambda d: d["masks"].update(sha256="0"), r"is not the file that .* was written with \(sha256 differs\)"),
        (lambda d: d["masks"].update(file="../other.npz"), "its masks '../other.npz' are not beside it"),
        (lambda d: d.update(masks=3), "masks must name a file and its sha256"),
        (set_layer(inputs=-4), "layer 'conv1': Shape.inputs is -4"),
        (set_layer(size=[5]), "Shape.size is .*; it must be two whole numbers"),
        (set_layer(weights={"density": 1.5}), "layer 'conv1': Operand.density is 1.5"),
        (set_layer(weights={"mask": "conv9.weights"}), "there is no mask 'conv9.weights' in the .npz file"),
        (set_layer(weights=0.5), r'weights is 0.5; it must be {"density": 0..1}, {"mask": NAME} or both'),
        (set_layer(weights={}), r"weights is {}; it must be"),
        (set_layer(activations={"mask": "conv1.activations", "density": 2}), "Operand.density is 2"),
        (set_layer(stride=[1, 0]), "layer 'conv1': Shape.stride is 0"),
        (set_layer(padding=[1]), r"Shape.padding is \(1,\); it must be a whole number, or two"),
        (set_layer(weights={"mask": "conv1.activations"}), "the mask of its weights is .*; it must be"),
        (set_layer(dense=[8]), r"dense is \[8\]; it must be \[inputs, outputs\]"),
        (set_layer(decomposition={"bases": 2}), "decomposition must hold bases and coefficients, or be null"),
        (set_layer(dilation=2), "layer 'conv1': unknown field 'dilation'; legal are activations, decomposition"),
        (drop_layer("kernel"), "layer 'conv1': the field 'kernel' is missing"),
    ],
)
def test_what_is_wrong_is_named(written, spoil, complaint):
    document = json.loads(written.read_text(encoding="utf-8"))
    spoil(document)
    written.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadInput, match=complaint):
        workload.read(written)


def test_files_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        workload.read(tmp_path / "w.json")
    with pytest.raises(BadInput, match="cannot be read: .*No such file.*; name a workload.json of `tprune cnn"):
        workload.read(tmp_path / "none.json")


@pytest.mark.parametrize("values", [np.full((6, 4, 3, 3), 2), np.full((6, 4, 3, 3), 0.5)])
def test_masks_hold_minus_one_zero_and_one(written, values):
    with np.load(written.with_suffix(".npz")) as held:
        arrays = {name: held[name] for name in held.files} | {"conv1.weights": values}
    _replace_masks(written, arrays)
    with pytest.raises(BadInput, match="mask 'conv1.weights' must hold whole numbers -1, 0 and 1 only"):
        workload.read(written)


def test_pickled_masks_are_refused(written):
    _replace_masks(written, {"conv1.weights": np.array([{}], dtype=object)})
    with pytest.raises(BadInput, match="masks .* cannot be read: Object arrays cannot be loaded"):
        workload.read(written)


def _replace_masks(path: Path, arrays: dict[str, np.ndarray]) -> None:
    from tprune.base.stamp import file_sha256

    archive = path.with_suffix(".npz")
    np.savez(archive, **arrays)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["masks"]["sha256"] = file_sha256(archive)
    path.write_text(json.dumps(document), encoding="utf-8")
