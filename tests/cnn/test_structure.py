"""A network comes back from its folder as it was, however it was cut; what is not as it was written is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.support.tiny_nets import FORMS, NETS, images, net, randomised, strew
from tprune.base.errors import BadInput
from tprune.cnn import nets, network
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit
from tprune.cnn.shrink import shrink
from tprune.cnn.structure import describe, place, rebuild

CLASSES = tuple("0123456789")
ENTRY = {"kind": "linear", "inputs": 4, "outputs": 3, "bias": True}


def named(name: str) -> Network:
    """Return a random named network, shrunk to about half."""
    row, channels = nets.named(name), nets.named(name).image[0]
    torch.manual_seed(0)
    module = strew(randomised(row.build(10), row.image), 0.2, torch.Generator().manual_seed(0))
    shrink(module, row.image)
    return Network(module, name, CLASSES, row.image, (0.25,) * channels, (0.5,) * channels, [{"verb": "train"}])


def same(one: nn.Module, other: nn.Module, image: tuple[int, int, int]) -> bool:
    """Return whether two modules have the same layers and weights and compute the same."""
    here, there = one.state_dict(), other.state_dict()
    with torch.no_grad():
        want, got = one(images(image)), other(images(image))
    torch.testing.assert_close(got, want)
    return describe(one) == describe(other) and all(torch.equal(here[name], there[name]) for name in here | there)


# The layers.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETS)
def test_layers_in_every_form_and_size_come_back(name, form):
    module, image = net(name, form, 0)
    shrink(strew(module, 0.4, torch.Generator().manual_seed(1)), image)
    fresh = NETS[name][0]().eval()
    rebuild(fresh, json.loads(json.dumps(describe(module))))  # as a file has it
    fresh.load_state_dict(module.state_dict())
    assert same(module, fresh, image)


class Listed(nn.Module):
    """A network of somebody else: lists of layers, and all that a layer can be told."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(8, 8, (3, 1), stride=(1, 2), padding="valid", dilation=2, groups=4, bias=False),
            nn.Conv2d(8, 6, 3, padding="same", padding_mode="circular"),
        ])  # fmt: skip
        self.norms = nn.ModuleDict({
            "a": nn.BatchNorm2d(8, eps=1e-3, momentum=None),
            "b": nn.BatchNorm2d(8, affine=False),
            "c": nn.BatchNorm2d(6, bias=False, track_running_stats=False),
        })  # fmt: skip
        self.fc = nn.Linear(6, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms.values(), strict=True):
            x = torch.relu(norm(layer(x)))
        return self.fc(x.mean((2, 3)))


def test_every_setting_of_a_layer_is_kept():
    module = randomised(Listed(), (3, 8, 8))
    layers = describe(module)
    fresh = Listed()
    for path in layers:  # so that each must be built again
        fresh.get_submodule(path.rpartition(".")[0])._modules[path.rpartition(".")[2]] = nn.Linear(1, 1)
    rebuild(fresh, layers)
    fresh.load_state_dict(module.state_dict())
    assert same(module, fresh.eval(), (3, 8, 8))
    assert len(fresh.layers) == 3 and isinstance(fresh.layers, nn.ModuleList)


def test_a_network_that_is_right_already_is_left_alone():
    module, _ = net("resnet", "plain", 0)
    before = list(module.modules())
    rebuild(module, describe(module))
    assert list(module.modules()) == before


def test_a_layer_becomes_a_pair_and_a_pair_one_more():
    module, image = net("vgg", "plain", 0)
    pair = nn.Sequential(nn.Conv2d(6, 2, 3, padding=1, bias=False), nn.Conv2d(2, 5, 1, bias=False))
    place(module, "4", nn.Sequential(EightBit(), pair).eval())
    assert [path for path in describe(module) if path.startswith("4")] == ["4.0", "4.1.0", "4.1.1"]
    module[4][0].range.copy_(torch.tensor([-1.0, 2.0]))
    fresh = NETS["vgg"][0]().eval()
    rebuild(fresh, describe(module))
    fresh.load_state_dict(module.state_dict())
    assert same(module, fresh, image)


@pytest.mark.parametrize("path", ["stem", "stages.7", "stages.0.0.conv1.1", "conv1.weight", "bn1.2", ""])
def test_a_place_that_is_not_there_is_named(path):
    module, _ = net("resnet", "plain", 0)
    with pytest.raises(BadInput, match=f"no place '{path}' for a layer; is this the network that was saved"):
        place(module, path, nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**ENTRY, "kind": "lstm"}, "layer 'fc' is of kind 'lstm'; known are conv, linear, batch-norm, svd-conv"),
        ({**ENTRY, "kind": None}, "layer 'fc' is of kind None"),
        ({**ENTRY, "inputs": -4}, "layer 'fc' cannot be built from .*'inputs': -4.*: .*negative"),
        ({**ENTRY, "inputs": "4"}, "layer 'fc' cannot be built from .*'inputs': '4'"),
        ({**ENTRY, "rank": 2}, "layer 'fc' cannot be built from .*: .*unexpected keyword argument 'rank'"),
        ({"kind": "conv", "inputs": 4, "outputs": 3}, "layer 'fc' cannot be built from .*: .*missing.*'kernel'"),
        (
            {**SvdConv2d(2, 3, (3, 3), 2, scheme="channel").about(), "kind": "svd-conv", "scheme": "diagonal"},
            "layer 'fc' cannot be built from .*diagonal",
        ),
        (
            {**BasisConv2d(2, 3, (3, 3), 2).about(), "kind": "basis-conv", "kernel": [3]},
            "layer 'fc' cannot be built from .*: .*index out of range",
        ),
    ],
)
def test_a_malformed_layer_is_named(entry, message):
    module, _ = net("resnet", "plain", 0)
    with pytest.raises(BadInput, match=message):
        rebuild(module, describe(module) | {"fc": entry})


def test_a_layer_that_cannot_be_described_is_named():
    with pytest.raises(BadInput, match="layer '1' is PReLU; known are conv, linear"):
        describe(nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU()))


def test_a_layer_that_was_not_saved_is_named():
    module, _ = net("resnet", "plain", 0)
    layers = {path: entry for path, entry in describe(module).items() if path != "bn1"}
    with pytest.raises(BadInput, match="has a layer 'bn1' that was not saved"):
        rebuild(module, layers)


# The folder.


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet20", "mobilenet-v2"])
def test_a_shrunk_network_comes_back(tmp_path, name):
    there = named(name)
    network.save(there, tmp_path / "net", inputs={"data": "0123"})
    back = network.load(tmp_path / "net")
    assert same(there.module, back.module, there.image)
    for field in (*network.FIELDS, "history", "id"):
        assert getattr(back, field) == getattr(there, field)
    assert not back.module.training
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["model.safetensors", "network.json"]


def test_a_loaded_network_is_saved_the_same_again(tmp_path):
    network.save(named("lenet-5"), tmp_path / "one")
    network.save(network.load(tmp_path / "one"), tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "network.json").read_text()) for name in ("one", "two"))
    assert {key for key in one if one[key] != two[key]} <= {"created"}


def test_a_network_of_ones_own_comes_back(tmp_path):
    module = strew(randomised(Listed(), (3, 8, 8)), 0.3, torch.Generator().manual_seed(0))
    shrink(module, (3, 8, 8))
    there = Network(module, "listed", CLASSES, (3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    network.save(there, tmp_path / "net")
    assert same(module, network.load(tmp_path / "net", build=lambda classes: Listed()).module, (3, 8, 8))
    with pytest.raises(BadInput, match="holds 'listed', which is not a named network .lenet-300-100"):
        network.load(tmp_path / "net")


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)
        self.c = self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c(self.b(self.a(x)).relu()).mean((2, 3)))


def test_a_layer_under_two_names_comes_back_as_one(tmp_path):
    module = randomised(TwoNames(), (3, 8, 8))
    for layer in (module.a, module.b):
        layer.weight.data[1] = 0
        layer.bias.data[1] = 0
    shrink(module, (3, 8, 8))
    network.save(Network(module, "two", CLASSES, (3, 8, 8), (0.5,) * 3, (0.25,) * 3), tmp_path / "net")
    back = network.load(tmp_path / "net", build=lambda classes: TwoNames()).module
    assert same(module, back, (3, 8, 8)) and back.b is back.c and back.b.out_channels == 3


def test_layers_that_share_a_weight_come_back(tmp_path):
    def build(classes: int) -> nn.Module:
        module = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(2)), nn.Flatten(), nn.Linear(12, classes))
        module[1].weight = module[0].weight
        return module

    there = Network(build(10).eval(), "tied", CLASSES, (3, 2, 2), (0.5,) * 3, (0.25,) * 3)
    network.save(there, tmp_path / "net")
    back = network.load(tmp_path / "net", build=build)
    assert same(there.module, back.module, (3, 2, 2)) and back.module[0].weight is back.module[1].weight


def test_a_folder_that_is_not_empty_is_not_touched(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="exists and is not empty"):
        network.save(named("lenet-300-100"), tmp_path / "net")
    assert [path.name for path in tmp_path.rglob("*")] == ["net", "thesis.tex"]


def test_what_cannot_be_described_leaves_nothing_behind(tmp_path):
    there = Network(nn.Sequential(nn.PReLU()), "odd", CLASSES, (3, 2, 2), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(BadInput, match="layer '0' is PReLU"):
        network.save(there, tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the folder of a shrunk LeNet-5."""
    network.save(named("lenet-5"), tmp_path / "net")
    return tmp_path / "net"


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "network.json").read_text())
    change(document)
    (folder / "network.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("layers"), "network.json' is malformed: 'layers'"),
        (lambda d: d.pop("mean"), "is malformed: 'mean'"),
        (lambda d: d.pop("weights"), "is malformed: 'weights'"),
        (lambda d: d.update(layers=[1, 2]), "is malformed: .*list"),
        (lambda d: d["layers"].update({"0": 7}), "is malformed: .*int"),
        (lambda d: d.update(history=None), "is malformed: .*NoneType"),
        (lambda d: d.update(classes=None), "is malformed: .*NoneType"),
        (lambda d: d.update(net=["lenet-5"]), "is malformed: .*unhashable"),
        (lambda d: d.update(mean=[0.1, 0.2]), "an image of .1, 28, 28. .* and 2 means and 1 deviations do not fit"),
        (lambda d: d.update(image=[28, 28]), "an image of .28, 28. .channels, height, width. .* do not fit"),
        (lambda d: d.update(kind="stamp"), "is not a network .kind must be 'network', schema 1"),
        (lambda d: d.update(schema=99), "is not a network"),
        (lambda d: d.update(net="lenet-6"), "holds 'lenet-6', which is not a named network"),
        (lambda d: d.update(net="resnet20"), "no place '0' for a layer; is this the network that was saved"),
        (lambda d: d["layers"]["0"].update(outputs=19), "safetensors' cannot be loaded: .*size mismatch for 0.weight"),
        (lambda d: d["layers"].pop("0"), "has a layer '0' that was not saved"),
        (lambda d: d["layers"]["0"].update(kernel=[10**9, 10**9]), "layer '0' cannot be built"),
    ],
)  # fmt: skip
def test_a_document_that_was_changed_is_refused(saved, change, message):
    edited(saved, change)
    with pytest.raises(BadInput, match=message) as caught:
        network.load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "network"}', "\x00\xff"])
def test_a_document_that_is_none_is_refused(saved, text):
    (saved / "network.json").write_bytes(text.encode("latin1"))
    with pytest.raises(BadInput, match="network.json' (cannot be read|is not a network)"):
        network.load(saved)


def test_what_is_missing_is_named(saved, tmp_path):
    (saved / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="weights .*model.safetensors' cannot be loaded: .*No such file"):
        network.load(saved)
    (saved / "network.json").unlink()
    for path, why in (
        (saved, "it has no network.json"),
        (tmp_path / "nowhere", "it does not exist; `tprune cnn train`"),
    ):
        with pytest.raises(BadInput, match=f"is not the folder of a trained network: {why}"):
            network.load(path)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "emptied"])
def test_damaged_weights_are_refused(saved, damage):
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "one bit":
        content[-5] ^= 1
    weights.write_bytes({"truncated": content[:-100], "one bit": content, "emptied": b""}[damage])
    with pytest.raises(BadInput, match="is damaged or belongs to another network: its SHA-256 differs from the one in"):
        network.load(saved)


def test_the_weights_of_another_network_are_refused(saved, tmp_path):
    network.save(named("lenet-300-100"), tmp_path / "other")
    other = (tmp_path / "other" / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(other)
    with pytest.raises(BadInput, match="is damaged or belongs to another network"):
        network.load(saved)
    noted = json.loads((tmp_path / "other" / "network.json").read_text())["weights"]
    edited(saved, lambda document: document.update(weights=noted))
    with pytest.raises(BadInput, match="model.safetensors' cannot be loaded: .*[Mm]issing key"):
        network.load(saved)


def test_weights_with_a_tensor_too_many_are_refused(saved):
    weights = saved / "model.safetensors"
    save_file(load_file(weights) | {"9.scale": torch.ones(1)}, weights)
    edited(saved, lambda d: d.update(weights={"model.safetensors": network.stamp.file_sha256(weights)}))
    with pytest.raises(BadInput, match="cannot be loaded: .*Unexpected key.*9.scale"):
        network.load(saved)


def test_the_id_follows_every_weight():
    one = named("lenet-300-100")
    other = Network(copy.deepcopy(one.module), one.net, one.classes, one.image, one.mean, one.std)
    assert one.id == other.id
    other.module[1].bias.data[0] += 1
    assert one.id != other.id
