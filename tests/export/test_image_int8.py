"""Image networks in int8: what is stored, what it may cost, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests.support import pictures
from tests.support.cnn_nets import IMAGE, classes, images, network, randomised
from tests.support.command import tprune
from tprune.base.errors import BadInput, WorkFailed
from tprune.cnn import network as networks
from tprune.cnn.rounding import EightBit
from tprune.export.graphs import images as cnn_graphs
from tprune.export.images import classifier as image_runtime
from tprune.export.images import int8 as image_int8
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import ImageManifest
from tprune.export.ort.export import network_to_onnx


def int8(most: float = 30) -> Int8:
    """Ranges from 50 images; the cost on 40 others, whose labels are what PyTorch says in fp32."""
    held = images(40, seed=9)
    labels = np.array(classes(network(), held))
    return Int8(images(50).data, replace(held, labels=labels), most)


@pytest.fixture(scope="module")
def onnx_artefact(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "tiny"
    network_to_onnx(network(), out, int8=int8())
    return out


def test_the_manifest_says_what_it_costs(onnx_artefact):
    manifest = ImageManifest.read(onnx_artefact)
    assert (manifest.precision, manifest.parity.images, manifest.parity.tolerance) == ("int8", 40, None)
    cost = manifest.cost
    assert (cost.images, cost.source, cost.accuracy_fp32, cost.most) == (40, "made-up/test", 1.0, 30)
    assert cost.accuracy == manifest.parity.identical / 40 >= 0.7  # of random logits some are near ties
    found = image_runtime.open(onnx_artefact).logits(int8().held.data).argmax(axis=1)
    assert (found == int8().held.labels).sum() == manifest.parity.identical


def test_weights_are_8_bits_and_within_half_a_step_of_the_folded_ones(onnx_artefact):
    graph = onnx.load(onnx_artefact / "model.onnx").graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    folded = cnn_graphs.fold_norms(cnn_graphs.plain(network().module))
    wanted = [layer.weight.detach().numpy() for layer in folded.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    found = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and held.get(node.input[0], np.zeros(())).ndim > 1:
            whole, scale = held[node.input[0]], held[node.input[1]]
            assert whole.dtype == np.int8 and scale.shape == (len(whole),)  # one for every output channel
            found.append((whole * scale.reshape(-1, *[1] * (whole.ndim - 1)), scale))
    assert len(found) == len(wanted) == 6
    for near, scale in found:
        gaps = [np.abs(near - one) for one in wanted if one.shape == near.shape]
        assert any((gap <= 0.501 * scale.reshape(-1, *[1] * (near.ndim - 1))).all() for gap in gaps)


def test_executorch_takes_all_of_it_and_answers_alike(tmp_path):
    pytest.importorskip("executorch")
    from tprune.export.et.export import network_to_executorch

    manifest = network_to_executorch(network(), tmp_path / "out", int8=int8())
    assert (manifest.precision, manifest.delegation.share) == ("int8", 1.0)
    assert manifest.cost.accuracy >= 0.7
    found = image_runtime.open(tmp_path / "out").logits(int8().held.data).argmax(axis=1)
    assert (found == int8().held.labels).mean() == manifest.cost.accuracy


def test_a_cost_that_is_too_high_is_refused_and_nothing_is_left(monkeypatch, tmp_path):
    def spoilt(fp32: Path, int8: Path, seen: np.ndarray) -> None:
        model = onnx.load(fp32)
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4:
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, int8)

    monkeypatch.setattr(image_int8, "onnx_model", spoilt)
    complaint = (
        r"export of 'tiny' refused: int8 costs \d+\.\d\d points of accuracy, 100.00 to .* % of 40 images .* 0.5 are"
    )
    with pytest.raises(WorkFailed, match=complaint):
        network_to_onnx(network(), tmp_path / "out", int8=int8(0.5))
    assert not list(tmp_path.iterdir())


def test_what_is_no_int8(tmp_path):
    rounding = network()
    rounding.module.head = nn.Sequential(EightBit(), rounding.module.head)
    with pytest.raises(BadInput, match="tiny rounds its inputs to 8 bits itself; int8 takes what `quantise` took"):
        network_to_onnx(rounding, tmp_path / "out", int8=int8())
    with pytest.raises(BadInput, match="images are 3 x 10 x 12 .*; tiny takes 3 x 12 x 10"):
        network_to_onnx(network(), tmp_path / "out", int8=replace(int8(), calibration=images(2, (3, 10, 12)).data))
    with pytest.raises(BadInput, match="there is no image to take the ranges of 8-bit activations from"):
        replace(int8(), calibration=np.zeros((0, *IMAGE), np.uint8))
    with pytest.raises(BadInput, match=r"an accuracy drop of -1 points must lie in \[0, 100\]"):
        int8(-1)
    held = int8().held
    with pytest.raises(BadInput, match="made-up/test has 5 classes; tiny knows 4"):
        network_to_onnx(network(), tmp_path / "out", int8=replace(int8(), held=replace(held, classes=tuple("abcde"))))
    wrong = replace(held, labels=(held.labels + 1) % 4)
    with pytest.raises(
        WorkFailed, match=r"the network gets 0.00 % of 40 images \(made-up/test\) right, no more than by ch"
    ):
        network_to_onnx(network(), tmp_path / "out", int8=replace(int8(), held=wrong))
    assert not list(tmp_path.iterdir())


class Shared(nn.Module):
    """Calls one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 1, 1)
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.twice(self.twice(self.stem(x)).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "module", [Shared(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(320, 4))]
)
def test_what_executorch_cannot_run_in_int8_is_one_line(module, tmp_path):
    pytest.importorskip("executorch")
    from tprune.export.et.export import network_to_executorch

    one = networks.Network(randomised(module), "mine", network().classes, IMAGE, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(WorkFailed, match=r"^export of 'mine' refused: .*try (--to onnx|the other one)[^\n]*$"):
        network_to_executorch(one, tmp_path / "out", int8=int8())
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with pictures, and with a LeNet-300-100 that has learnt some of them."""
    folder = tmp_path_factory.mktemp("cli")
    pictures.write(folder / "data", train=320, test=20)
    args = ("--data", folder / "data", "--held-out", 60, "--threads", 1, "--out", folder / "mine")
    tprune("cnn", "train", "--net", "lenet-300-100", "--epochs", 4, "--batch", 20, *args)
    return folder


def test_the_command_line(place, tmp_path):
    args = ("cnn", "export", place / "mine", "--precision", "int8", "--data", place / "data", "--held-out")
    called = tprune(*args, 60, "--limit", 15, "--max-accuracy-drop", 50, "--out", tmp_path / "out", "--json")
    told, manifest = called.json, ImageManifest.read(tmp_path / "out")
    assert (told["images"], told["source"]) == (15, "15 of 60 held out of data/train")
    assert told["cost"]["images"] == 15 and "other images" not in called.err
    assert (manifest.precision, manifest.id) == ("int8", told["id"])
    assert manifest.files["model.onnx"].bytes < 0.3 * 4 * 266_200
    called = tprune(*args, 50, "--max-accuracy-drop", 50, "--out", tmp_path / "again")
    assert "int8 gets" in called.out
    assert "was trained on other images than data/train less 50 held out: its accuracy" in " ".join(called.err.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "int8"], "--precision int8 needs --data: images for calibration"),
        (["--precision", "int4"], "--precision 'int4': must be fp32 or int8"),
        (["--max-accuracy-drop", 1], "--max-accuracy-drop: only for --precision int8"),
        (["--held-out", 9], "--held-out: only for --precision int8"),
        (["--split", "val", "--limit", 9], "--split and --limit: only for --data"),
        (["--precision", "int8", "--data", "DATA"], "cannot hold out 5000 of 320 images; 1 to 319 are legal"),
    ],
)
def test_calls_that_are_refused(place, tmp_path, flags, message):
    given = [place / "data" if flag == "DATA" else flag for flag in flags]
    tprune("cnn", "export", place / "mine", "--out", tmp_path / "out", *given).check_failed(2, message)
    assert not (tmp_path / "out").exists()
