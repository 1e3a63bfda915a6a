"""What a workload says of a network: sizes and densities against loops over images, masks against counted weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import pictures
from tests.support.command import tprune
from tprune.base.errors import BadInput
from tprune.bench.accel import layer as simulated
from tprune.bench.accel import workload as files
from tprune.cnn import architectures, escalate, network, penni
from tprune.cnn.count import count
from tprune.cnn.forms import SvdConv2d
from tprune.cnn.images import Images
from tprune.cnn.network import Network
from tprune.cnn.sparsity import measure
from tprune.cnn.structure import place


def images(count: int = 6, shape: tuple[int, int, int] = (2, 6, 6)) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 3, (count, *shape), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3, ("a", "b", "c"), "made up")


def of(module: nn.Module, seen: Images, net: str = "own") -> Network:
    """A network of `module` whose pixels of value 0 stay 0."""
    channels = seen.shape[0]
    return Network(module.eval(), net, seen.classes, seen.shape, (0.0,) * channels, (1.0,) * channels)


@pytest.fixture
def halves() -> nn.Sequential:
    """A convolution that strides over rows only, one that pads columns only, and a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, (3, 1), (2, 1), (1, 0)), nn.ReLU(), nn.Conv2d(3, 4, (1, 3), padding=(0, 1)), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 3),
    )  # fmt: skip
    with torch.no_grad():
        net[0].weight[1] = 0
        net[5].weight[:, ::2] = 0
    return net


def test_sizes_masks_and_densities_are_those_of_loops(halves):
    seen = images()
    found = measure(of(halves, seen), seen)
    assert [one.name for one in found.layers] == ["0", "2", "5"]
    shapes = [simulated.Shape(**one.shape) for one in found.layers]
    assert shapes == [
        simulated.Shape(2, 3, (6, 6), (3, 1), (2, 1), (1, 0)),
        simulated.Shape(3, 4, (3, 6), (1, 3), (1, 1), (0, 1)),
        simulated.Shape(72, 3, (1, 1), (1, 1), (1, 1), (0, 0)),
    ]
    with torch.no_grad():
        x = seen.pixels / 255.0
        inputs = [x, halves[:2](x), halves[:5](x)]
    densities = [[sum(v != 0 for v in one.flatten().tolist()) / one.numel() for one in layer] for layer in inputs]
    for one, own in zip(found.layers, densities, strict=True):
        assert one.density == pytest.approx(sum(own) / len(seen))
    means = [sum(own) / len(seen) for own in densities]
    far = [sum((own[i] - mean) ** 2 for own, mean in zip(densities, means, strict=True)) for i in range(len(seen))]
    typical = far.index(min(far))
    for one, layer, tensor in zip(found.layers, (halves[0], halves[2], halves[5]), inputs, strict=True):
        mask = one.activations if tensor.ndim == 4 else one.activations[:, 0, 0]
        assert np.array_equal(mask, tensor[typical].numpy() != 0)
        assert np.array_equal(one.weights.reshape(layer.weight.shape), layer.weight.detach().numpy() != 0)
    assert all(one.signs is None and one.dense is None for one in found.layers)
    right = sum(int(logits.argmax()) == label for logits, label in zip(halves(x), seen.labels.tolist(), strict=True))
    assert found.accuracy == right / 6 and "accuracy on these 6" in found.note


def test_the_images_leave_no_trace(halves):
    one = of(halves, images())
    before = one.id
    measure(one, images())
    assert one.id == before and not any(layer._forward_pre_hooks for layer in halves)


def test_a_masked_network_has_the_weights_and_products_that_were_counted():
    seen = images(2, (3, 8, 8))
    module = architectures.resnet((4, 8), 1, 3)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(torch.rand_like(parameter) < 0.3)
    found = measure(of(module, seen), seen)
    counted = {row.path: row for row in count(module, seen.shape).rows if row.weights}
    assert {one.name for one in found.layers} == set(counted)
    for one in found.layers:
        shape, row = simulated.Shape(**one.shape), counted[one.name]
        assert (shape.weights, int(one.weights.sum()), shape.macs) == (row.weights, row.nonzero, row.macs)
        assert int(one.weights.sum()) * shape.pixels == row.effective_macs


def test_a_basis_gives_signs_and_composed_kernels():
    seen = images(2, (3, 8, 8))
    module = architectures.resnet((4, 8), 1, 3)
    penni.convert(module, 3)
    penni.cut(module, 0.8)
    layer = module.stages[0][0].conv1
    with torch.no_grad():
        layer.coefficients[2] = 0
    found = {one.name: one for one in measure(of(module, seen), seen).layers}
    one = found["stages.0.0.conv1"]
    assert np.array_equal(one.signs, np.sign(layer.coefficients.detach().numpy()))
    assert not one.weights[2].any() and one.weights.shape == (4, 4, 3, 3)
    alive = (layer.coefficients != 0).any(2).numpy()
    assert np.array_equal(one.weights.any((2, 3)), alive)
    assert found["fc"].signs is None and found["stages.1.0.shortcut.0"].signs is None
    assert "3 layers are not ternary" not in measure(of(module, seen), seen).note
    assert "the coefficients of 5 layers are not ternary" in measure(of(module, seen), seen).note


def test_ternary_layers_and_rounded_inputs_are_seen():
    seen = images(4, (3, 8, 8))
    one = of(architectures.resnet((4, 8), 1, 3), seen)
    penni.convert(one.module, 3)
    escalate.convert(one.module)
    escalate.harden(one.module)
    plain = measure(one, seen)
    escalate.round_inputs(one, seen)
    found = measure(one, seen)
    assert [layer.name for layer in found.layers] == [layer.name for layer in plain.layers]
    signs = {layer.name: layer.signs for layer in found.layers}
    assert signs["stages.1.0.shortcut.0"].shape == (8, 4, 1) and signs["conv1"] is None and signs["fc"] is None
    assert "not ternary" not in found.note
    assert all(fine.density >= rough.density for fine, rough in zip(plain.layers, found.layers, strict=True))


def test_channels_that_were_cut_are_remembered():
    seen = images(2, (1, 28, 28))
    module = architectures.lenet_5(3)
    place(module, "0", nn.Conv2d(1, 7, 5))
    place(module, "3", nn.Conv2d(7, 50, 5))
    found = {one.name: one.dense for one in measure(of(module, seen, "lenet-5"), seen).layers}
    assert found == {"0": (1, 20), "3": (20, 50), "7": None, "9": None}
    own = measure(of(module, seen), seen, dense=architectures.lenet_5(3))
    assert {one.name: one.dense for one in own.layers} == found
    assert all(one.dense is None for one in measure(of(module, seen), seen).layers)


def test_a_layer_that_became_two_is_said_to_count_by_itself():
    seen = images(2, (1, 28, 28))
    module = architectures.lenet_5(3)
    place(module, "3.0", nn.Conv2d(20, 6, (5, 1)))
    place(module, "3.1", nn.Conv2d(6, 50, (1, 5)))
    found = measure(of(module, seen, "lenet-5"), seen)
    assert [one.name for one in found.layers] == ["0", "3.0", "3.1", "7", "9"]
    assert "2 layers are not in the dense network" in found.note


def test_the_training_form_counts_as_the_kernel_it_makes():
    seen = images(2)
    form = SvdConv2d(2, 3, (3, 3), 2, scheme="channel", padding=(1, 1))
    for parameter in form.parameters():
        nn.init.normal_(parameter)
    (first, _) = measure(of(nn.Sequential(form, nn.Flatten(), nn.Linear(108, 3)), seen), seen).layers
    assert first.weights.shape == (3, 2, 3, 3) and first.shape["padding"] == (1, 1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(self.conv(x)).flatten(1)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3, dilation=2), nn.Flatten()), r"layer '0' has dilation \(2, 2\)"),
        (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Flatten()), "'0' pads by 'reflect'"),
        (nn.Sequential(nn.Conv2d(2, 3, 2, padding="same"), nn.Flatten()), "'0' pads one side more than the other"),
        (nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.Flatten()), "layer '0' is ConvTranspose2d; the simulator"),
        (nn.Sequential(nn.Linear(6, 3), nn.Flatten()), "layer '0' is applied to 6 x 2 x 6 x 6 values"),
        (Twice(), "layer 'conv' runs twice for one image"),
    ],
)  # fmt: skip
def test_what_the_simulator_has_no_shape_for_is_named(module, complaint):
    with pytest.raises(BadInput, match=complaint):
        measure(of(module, images()), images())
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_padding_by_name_has_a_number():
    seen = images()
    module = nn.Sequential(nn.Conv2d(2, 3, (3, 1), padding="same"), nn.Conv2d(3, 3, 3, padding="valid"), nn.Flatten())
    same, valid = measure(of(module, seen), seen).layers
    assert (same.shape["padding"], valid.shape["padding"]) == ((1, 0), (0, 0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data and one with an untrained LeNet-5 for it, whose history tells an accuracy."""
    place = tmp_path_factory.mktemp("cnn")
    pictures.write(place / "data", (1, 28, 28), train=40, test=20)
    module = architectures.lenet_5(10)
    torch.manual_seed(0)
    with torch.no_grad():
        module[7].weight.mul_(torch.rand_like(module[7].weight) < 0.1)
    one = Network(module, "lenet-5", tuple("0123456789"), (1, 28, 28), (0.0,), (1.0,))
    network.save(one, place / "fresh")
    network.save(replace(one, history=[{"accuracy_held_out": 0.875}]), place / "known")
    return place


def test_the_verb_writes_what_the_simulator_reads(trained, tmp_path):
    args = ("cnn", "workload", trained / "known", "--data", trained / "data", "--limit", 8, "--threads", 1)
    told = tprune(*args, "--out", tmp_path / "out", "--json").json
    assert told["out"] == str(tmp_path / "out" / "workload.json") and told["accuracy"] == 0.875
    found = files.read(tmp_path / "out" / "workload.json")
    assert (found.network, found.source, found.accuracy, found.masked) == ("known", "trained", 0.875, True)
    assert "means over 8 images" in found.note and "from its history" in found.note
    assert [one.weights.density for one in found.layers] == [pair[0] for pair in told["densities"].values()]
    assert found.layers[2].weights.density == pytest.approx(0.1, abs=0.01)
    done = tprune("simulate", told["out"], "--out", tmp_path / "sim", "--design", "escalate", "--json")
    (row,) = done.json["rows"]
    assert (row["source"], row["accuracy"], done.json["fidelity"]) == ("trained", 0.875, {"known": "exact"})
    assert "SYNTHETIC" not in (tmp_path / "sim" / "report.md").read_text(encoding="utf-8").split("## How far")[0]


def test_the_other_designs_can_run_another_network(trained, tmp_path):
    nets_of = (trained / "known", "--plain", trained / "fresh", "--data", trained / "data")
    told = tprune(
        "cnn", "workload", *nets_of, "--limit", 4, "--threads", 1, "--out", tmp_path / "w.json", "--json"
    ).json
    found = files.read(tmp_path / "w.json")
    assert (found.network, found.plain.network, told["accuracy"]) == ("known", "fresh", 0.875)
    assert "accuracy on these 4" in found.plain.note and found.plain.accuracy != 0.875


def test_the_verb_writes_a_file_under_a_name_too(trained, tmp_path):
    done = tprune(
        "cnn", "workload", trained / "fresh", "--data", trained / "data", "--limit", 5, "--threads", 1,
        "--out", tmp_path / "net.json", "--name", "lenet",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = files.read(tmp_path / "net.json")
    assert found.network == "lenet" and "accuracy on these 5" in found.note
    assert json.loads((tmp_path / "net.json").read_text())["masks"]["file"] == "net.npz"


def test_wrong_calls_of_the_verb(trained, tmp_path):
    data = ("--data", trained / "data", "--out", tmp_path / "out")
    tprune("cnn", "workload", tmp_path, *data).check_failed(2, "is not the folder of a trained network")
    other = pictures.write(tmp_path / "rgb", (3, 28, 28), train=10, test=10)
    tprune("cnn", "workload", trained / "fresh", "--data", other, "--out", tmp_path / "out").check_failed(
        2, "images are 3 x 28 x 28 (channels, height, width); lenet-5 takes 1 x 28 x 28"
    )
    tprune("cnn", "workload", trained / "fresh", "--data", trained / "data", "--out", trained).check_failed(
        2, "exists and is not empty"
    )
    assert not (tmp_path / "out").exists()
    done = tprune("cnn", "workload", trained / "fresh", *data, "--dry-run", "--json")
    assert done.json == {"dry_run": True, "net": "lenet-5", "limit": 64} and not (tmp_path / "out").exists()
