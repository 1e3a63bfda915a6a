"""Image networks as artefacts: folded norms, parity on both back ends, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.support.cnn_nets import CLASSES, IMAGE, classes, images, network, randomised
from tests.support.command import tprune
from tprune.base.errors import BadInput, WorkFailed
from tprune.cnn import nets
from tprune.cnn import network as networks
from tprune.cnn.rounding import EightBit
from tprune.export.graphs import images as cnn_graphs
from tprune.export.images import classifier as image_runtime
from tprune.export.images.manifest import ImageManifest
from tprune.export.manifest import Manifest, describe_files
from tprune.export.ort.export import network_to_onnx

HISTORY = [
    {"verb": "train", "method": "svd", "recipe": {"seed": 7}, "epochs": 1, "argv": []},
    {"verb": "compress", "method": "svd", "recipe": None, "epochs": 0, "argv": []},
]


@pytest.fixture(scope="module")
def onnx_artefact(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "tiny"
    network_to_onnx(network(history=HISTORY), out, name="tiny-svd", images=images())
    return out


@pytest.fixture(scope="module")
def executorch_artefact(tmp_path_factory) -> Path:
    pytest.importorskip("executorch")
    from tprune.export.et.export import network_to_executorch

    out = tmp_path_factory.mktemp("executorch") / "tiny"
    network_to_executorch(network(), out)
    return out


def logits(module: nn.Module, *, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (what a module says of four random images, what it says of them folded)."""
    drawn = torch.rand(4, *IMAGE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return module(drawn), cnn_graphs.fold_norms(cnn_graphs.plain(module))(drawn)


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def test_folding_and_composing_change_nothing_but_the_layers():
    one = network()
    before = copy.deepcopy(one.module.state_dict())
    wanted, found = logits(one.module)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    folded = cnn_graphs.fold_norms(cnn_graphs.plain(one.module))
    assert norms(folded) == 0
    kinds = {type(layer) for layer in folded.modules() if any(True for _ in layer.parameters(recurse=False))}
    assert kinds == {nn.Conv2d, nn.Linear}
    for name, tensor in one.module.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the network itself was changed"


@pytest.mark.parametrize("name", nets.NETS)
def test_every_named_network_loses_its_norms_and_keeps_its_function(name):
    row = nets.named(name)
    module = randomised(row.build(10))
    for parameter in module.parameters():
        parameter.data *= 2 / max(2.0, float(parameter[0].numel()) ** 0.5)  # or a deep one's logits overflow
    drawn = torch.rand(2, *row.image, generator=torch.Generator().manual_seed(0))
    folded = cnn_graphs.fold_norms(cnn_graphs.plain(module))
    assert norms(folded) == 0
    with torch.no_grad():
        wanted, found = module(drawn), folded(drawn)
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def test_a_convolution_that_is_read_twice_keeps_its_norms():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.one(y) - self.other(y) + self.one(self.conv(x * 2))

    wanted, found = logits(randomised(Twice()))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_module_that_cannot_be_followed_is_left_as_it_is():
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) if x.sum() > 0 else x

    module = randomised(Choosy())
    assert cnn_graphs.fold_norms(module) is module


def test_rounded_inputs_are_those_of_the_training_form():
    layer = EightBit()
    layer.range.copy_(torch.tensor([-0.7, 2.1]))
    drawn = 3 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cnn_graphs.Rounded(layer)(drawn), layer.eval()(drawn))
    assert torch.equal(cnn_graphs.Rounded(EightBit())(drawn), drawn)


def test_an_onnx_artefact_says_what_it_is(onnx_artefact):
    manifest = ImageManifest.read(onnx_artefact)
    manifest.check_files(onnx_artefact)
    assert (manifest.runtime, manifest.precision, manifest.delegation) == ("onnxruntime", "fp32", None)
    assert (manifest.classes, manifest.image, tuple(manifest.files)) == (CLASSES, IMAGE, ("model.onnx",))
    ports = manifest.tensors["forward"]
    assert [(port.name, port.dtype, port.shape) for port in (*ports.inputs, *ports.outputs)] == [
        ("image", "float32", (1, *IMAGE)), ("logits", "float32", (1, 4)),
    ]  # fmt: skip
    model, parity = manifest.model, manifest.parity
    assert (model.id, model.name, model.net) == (network().id, "tiny-svd", "tiny")
    assert (model.criterion, model.seed, model.keep) == ("svd", 7, None)
    assert (parity.images, parity.identical, parity.source, parity.tolerance) == (12, 12, "made-up/test", 1e-4)
    document = json.loads((onnx_artefact / "manifest.json").read_text())
    assert (document["kind"], document["task"], document["schema"]) == ("artefact", "images", 1)


def test_an_onnx_graph_alone_gives_pytorchs_logits(onnx_artefact):
    graph = onnx.load(onnx_artefact / "model.onnx").graph
    assert not {"BatchNormalization", "Einsum", "MatMul"} & {node.op_type for node in graph.node}
    session = ort.InferenceSession(onnx_artefact / "model.onnx", providers=["CPUExecutionProvider"])
    one, pixels = network(), images(3, seed=9)
    with torch.no_grad():
        wanted = one.module(one.normalise(torch.from_numpy(pixels.data))).numpy()
    found = [session.run(None, {"image": each[None] / np.float32(255)})[0][0] for each in pixels.data]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_executorch_artefact(executorch_artefact):
    manifest, pixels = ImageManifest.read(executorch_artefact), images(5, seed=9)
    assert (manifest.runtime, tuple(manifest.files)) == ("executorch", ("model.pte",))
    assert (manifest.delegation.share, manifest.delegation.outside) == (1.0, {})
    assert (manifest.parity.images, manifest.parity.source) == (32, "random pixels, seed 0")
    found = image_runtime.open(executorch_artefact).logits(pixels.data)
    assert found.argmax(axis=1).tolist() == classes(network(), pixels)


def test_the_share_that_is_kept_is_of_the_named_networks_weights(tmp_path):
    module = randomised(nets.named("lenet-300-100").build(10))
    with torch.no_grad():
        module[1].weight[:150] = 0  # half of 784 x 300
    one = networks.Network(module, "lenet-300-100", tuple("0123456789"), (1, 28, 28), (0.0,), (1.0,))
    facts = network_to_onnx(one, tmp_path / "out").model
    assert (facts.params, facts.macs, facts.criterion) == (266_200 - 117_600, 266_200, "dense")
    assert facts.keep == pytest.approx(1 - 117_600 / 266_200, abs=1e-6)


def edited(artefact: Path, to: Path) -> Path:
    """Copy an artefact and change the last byte of its graph."""
    shutil.copytree(artefact, to)
    path = to / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return to


def test_an_edited_graph_is_refused(onnx_artefact, tmp_path):
    folder = edited(onnx_artefact, tmp_path / "edited")
    with pytest.raises(BadInput, match=r"is damaged: model.onnx has sha256 .* instead of .*; export it again"):
        image_runtime.open(folder)
    document = json.loads((folder / "manifest.json").read_text())
    document["files"]["model.onnx"]["sha256"] = describe_files(folder, ("model.onnx",))["model.onnx"].sha256
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match="does not belong to its files"):
        image_runtime.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "sounds"}, "has task 'sounds'; this version knows translation and images"),
        ({"task": "translation"}, "is an artefact for translation; this takes one for images"),
        ({"image": [3, 12]}, "incomplete or damaged"),
        ({"precision": "int4"}, "'int4' is not one of fp32, int8"),
        ({"schema": 9}, "has schema 9; this version reads schema 1"),
    ],
)
def test_a_manifest_that_is_not_believed(onnx_artefact, tmp_path, change, message):
    document = json.loads((onnx_artefact / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(document | change))
    with pytest.raises(BadInput, match=message):
        ImageManifest.read(tmp_path)


def test_what_translates_does_not_take_an_image_artefact(onnx_artefact):
    with pytest.raises(BadInput, match="is an artefact for images; this takes one for translation"):
        Manifest.read(onnx_artefact)


def test_another_function_is_refused_and_nothing_is_left(monkeypatch, tmp_path):
    other = cnn_graphs.plain(network(seed=3).module)
    monkeypatch.setattr(cnn_graphs, "plain", lambda module: other)
    with pytest.raises(WorkFailed, match=r"export of 'tiny' refused: \d+ of 32 images \(random pixels, seed 0\) have"):
        network_to_onnx(network(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_network_of_no_numbers_is_refused(tmp_path):
    one = network()
    one.module.stem.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(WorkFailed, match="logits that are no finite numbers"):
        network_to_onnx(one, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_are_refused_and_nothing_is_left(onnx_artefact, tmp_path):
    with pytest.raises(BadInput, match="images are 3 x 10 x 12 .*; tiny takes 3 x 12 x 10"):
        network_to_onnx(network(), tmp_path / "out", images=images(2, (3, 10, 12)))
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadInput, match="this artefact takes uint8, 3 x 12 x 10 each"):
        image_runtime.open(onnx_artefact).logits(images(2).data.astype(np.float32))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return the folder of a saved random LeNet-300-100."""
    module = randomised(nets.named("lenet-300-100").build(10))
    networks.save(networks.Network(module, "lenet-300-100", tuple("0123456789"), (1, 28, 28), (0.0,), (1.0,)),
                  tmp_path / "mine")  # fmt: skip
    return tmp_path / "mine"


def test_the_command_line(folder, tmp_path):
    told = tprune("cnn", "export", folder, "--out", tmp_path / "out", "--json").json
    assert (told["images"], told["identical"], told["source"]) == (32, 32, "random pixels, seed 0")
    manifest = ImageManifest.read(tmp_path / "out")
    assert (manifest.id, manifest.model.name) == (told["id"], "mine")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "tflite"], "--to 'tflite': must be onnx or executorch"),
        (["--data", "no-such-folder"], "data 'no-such-folder' is neither a local folder"),
    ],
)
def test_calls_that_the_command_line_refuses(folder, tmp_path, flags, message):
    tprune("cnn", "export", folder, "--out", tmp_path / "out", *flags).check_failed(2, message)
    assert not (tmp_path / "out").exists()
