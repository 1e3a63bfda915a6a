"""DeepHoyer: its penalties against autograd and brute force, and cuts that take what they say."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from tprune.base.errors import BadInput
from tprune.cnn import nets, penni
from tprune.cnn.deephoyer import ELEMENTWISE, STRUCTURAL, Cut, Gone, Penalty, cut, penalty
from tprune.cnn.shrink import settle, shrink

NAMES = (*ELEMENTWISE, *STRUCTURAL)
MNIST = (1, 28, 28)


class Flat(nn.Module):
    """A convolution, a depthwise (or grouped) one, and two Linear layers of which the first reads a flattened map."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=groups)
        self.fc1 = nn.Linear(4 * 9, 5)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv1(x)))
        return self.fc2(functional.relu(self.fc1(torch.flatten(functional.relu(self.conv2(x)), 1))))


IMAGE = (2, 3, 3)


@pytest.fixture
def flat() -> Flat:
    torch.manual_seed(0)
    return Flat()


def gradients(module: nn.Module, value: torch.Tensor | Penalty) -> dict[str, torch.Tensor]:
    module.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# ---- penalties


def brute(name: str, weights: list[torch.Tensor]) -> float:
    """The formulas of the module's docstring, entry by entry."""
    total = 0.0
    for w in weights:
        entries = [abs(v) for v in w.flatten().tolist()]
        rows = [math.sqrt(sum(v * v for v in one.flatten().tolist())) for one in w.unbind(0)]
        columns = [math.sqrt(sum(v * v for v in one.flatten().tolist())) for one in w.unbind(1)]
        square = sum(v * v for v in entries)
        total += {
            "none": 0.0,
            "l1": sum(entries),
            "transformed-l1": sum(2 * v / (1 + v) for v in entries),
            "hoyer": sum(entries) / math.sqrt(square),
            "hoyer-square": sum(entries) ** 2 / square,
            "group-lasso": sum(rows) + sum(columns),
            "group-hs": (sum(rows) ** 2 + sum(columns) ** 2) / square,
        }[name]
    return total


@pytest.mark.parametrize("name", NAMES)
def test_penalties_are_their_formulas_over_weights_alone(name: str) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)).double()
    measure = penalty(module, name, 0.25)
    assert float(measure().detach()) == pytest.approx(
        0.25 * brute(name, [module[0].weight, module[3].weight]), rel=1e-4
    )
    if name != "none":
        assert set(gradients(module, measure)) == {"0.weight", "3.weight"}


@pytest.mark.parametrize("name", NAMES[1:])
def test_gradients_of_penalties_are_finite_differences(name: str) -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2)).double()
    measure = penalty(module, name, 0.5, (2, 2, 2) if name in STRUCTURAL else None)
    found = gradients(module, measure)
    for path, slope in gradients(module, measure()).items():
        torch.testing.assert_close(found[path], slope)
    for path in ("0.weight", "2.weight"):
        weight = module.get_parameter(path).detach()
        for at in range(0, weight.numel(), 5):
            entry = weight.view(-1)[at : at + 1]
            here, step = float(entry), 1e-6
            values = []
            for moved in (here + step, here - step):
                entry.fill_(moved)
                values.append(float(measure().detach()))
            entry.fill_(here)
            slope = (values[0] - values[1]) / (2 * step)
            assert slope == pytest.approx(float(found[path].view(-1)[at]) if path in found else 0.0, rel=1e-4, abs=1e-6)


def test_a_layer_that_is_used_twice_counts_once() -> None:
    layer = nn.Linear(3, 3)
    measure = penalty(nn.Sequential(layer, layer), "l1", 1.0)
    assert float(measure().detach()) == pytest.approx(float(layer.weight.abs().sum().detach()))
    measure.backward()
    assert torch.equal(layer.weight.grad, layer.weight.detach().sign())


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_closed_form_is_autograds_in_every_kind_of_layer(flat, name: str, layout) -> None:
    module = flat.to(memory_format=layout)  # a depthwise convolution, and a Linear that reads a flattened map
    measure = penalty(module, name, 0.5, None if name in ELEMENTWISE else IMAGE)
    theirs = gradients(module, measure())
    ours = gradients(module, measure)
    assert ours.keys() == theirs.keys()
    for path, slope in theirs.items():
        torch.testing.assert_close(ours[path], slope)


@pytest.mark.parametrize("name", NAMES[1:])
def test_weights_that_do_not_train_are_left_alone(flat, name: str) -> None:
    flat.conv1.weight.requires_grad_(False)
    penalty(flat, name, 0.5, IMAGE).backward()
    assert flat.conv1.weight.grad is None and flat.fc1.weight.grad.abs().max() > 0
    flat.requires_grad_(False)
    if name in ELEMENTWISE:
        with pytest.raises(BadInput, match="no weight of the network trains"):
            penalty(flat, name, 0.5)


def test_structural_groups_are_those_that_can_go(flat) -> None:
    """Neither the image's channels nor the classes; a map's channel is one input of the Linear that reads it."""
    with torch.no_grad():
        w = {name: layer.weight.double() for name, layer in flat.named_children()}
    groups = [
        w["conv1"].flatten(1),  # filters
        w["conv2"].flatten(1),  # depthwise: a filter is a channel
        w["fc1"].unflatten(1, (4, 9)).transpose(0, 1).flatten(1),  # channels of the map
        w["fc1"],
        w["fc2"].T,
    ]
    expected = sum(float(one.norm(dim=1).sum()) for one in groups)
    assert float(penalty(flat, "group-lasso", 1.0, IMAGE)().detach()) == pytest.approx(expected, rel=1e-4)


def test_its_repr_names_what_decides_the_result(flat) -> None:
    assert repr(penalty(flat, "l1", 0.001)) == "Penalty(name='l1', strength=0.001, image=None)"
    assert repr(penalty(flat, "group-hs", 0.1, IMAGE)) == "Penalty(name='group-hs', strength=0.1, image=(2, 3, 3))"


@pytest.mark.parametrize(
    ("name", "strength", "reason"),
    [
        ("l2", 0.1, "penalty 'l2' is not known; legal are none, l1, .*group-hs"),
        ("l1", -0.1, "strength -0.1 of the penalty must be a number, 0 or more"),
        ("l1", math.nan, "strength nan"),
        ("l1", math.inf, "strength inf"),
    ],
)
def test_what_no_penalty_is(flat, name, strength, reason) -> None:
    with pytest.raises(BadInput, match=reason):
        penalty(flat, name, strength)


def test_a_network_without_weights() -> None:
    with pytest.raises(BadInput, match="neither a Conv2d nor a Linear"):
        penalty(nn.Sequential(nn.ReLU()), "l1", 0.1)


# ---- cuts


def test_entries_below_the_level_go() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    values = torch.tensor([[0.0, -1.0, 2.0, 3.0]])  # standard deviation without the zero: 1.70
    with torch.no_grad():
        module[1].weight.copy_(values)
    bias = module[1].bias.clone()
    done = cut(module, 1.0, structural=False, image=(1, 2, 2))
    assert module[1].weight.tolist() == [[0, 0, 2, 3]]
    assert torch.equal(module[1].bias, bias)
    assert done == Cut(1.0, (Gone("1", "weights", 2, 4),), {})


@pytest.mark.parametrize("structural", [False, True])
def test_a_second_cut_is_the_same_before_and_after_shrinking(flat, structural: bool) -> None:
    with torch.no_grad():
        flat.fc1.weight[:3] *= 1e-3
    cut(flat, 0.1, structural=structural, image=IMAGE)
    settle(flat, IMAGE)
    small = copy.deepcopy(flat)
    shrink(small, IMAGE)
    assert small.fc1.out_features < 5
    for module in (flat, small):
        cut(module, 0.7, structural=structural, image=IMAGE)
        settle(module, IMAGE)
    x = torch.rand(4, *IMAGE)
    torch.testing.assert_close(flat.eval()(x), small.eval()(x))


def test_whole_channels_of_pennis_form_go_too() -> None:
    torch.manual_seed(4)
    conv, norm, other = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1)
    net = nn.Sequential(conv, norm, nn.ReLU(), other, nn.ReLU(), nn.Flatten(), nn.Linear(45, 3))
    penni.convert(net, 4)
    coefficients = [net[0].coefficients, net[3].coefficients]
    for name in STRUCTURAL:
        measure = penalty(net, name, 0.5, IMAGE)
        theirs = gradients(net, measure())
        assert {"0.coefficients", "3.coefficients"} < theirs.keys()
        for path, slope in gradients(net, measure).items():
            torch.testing.assert_close(slope, theirs[path])
    with torch.no_grad():
        coefficients[0][:2] *= 1e-3
        coefficients[1][4] *= 1e-3
    cut(net, 0.2, structural=True, image=IMAGE)
    assert [int((one == 0).all(2).all(1).sum()) for one in coefficients] == [2, 1]
    settle(net, IMAGE)
    small = copy.deepcopy(net)
    shrink(small, IMAGE)
    assert small[0].coefficients.shape[0] == small[3].coefficients.shape[1] == 4 and small[6].in_features == 36
    x = torch.rand(4, *IMAGE)
    torch.testing.assert_close(net.eval()(x), small.eval()(x))


@pytest.mark.parametrize("structural", [False, True])
def test_level_0_takes_nothing(flat, structural: bool) -> None:
    before = {name: tensor.clone() for name, tensor in flat.state_dict().items()}
    assert not any(one.zero for one in cut(flat, 0, structural=structural, image=IMAGE).gone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in flat.state_dict().items())


def test_filters_and_inputs_go_as_wholes(flat) -> None:
    with torch.no_grad():
        flat.conv1.weight[1] *= 1e-3
        flat.fc1.weight.view(5, 4, 9)[:, 2] *= 1e-3
        flat.fc1.weight[4] *= 1e-3
        flat.fc2.weight[0] *= 1e-3  # a class
    done = cut(flat, 0.1, structural=True, image=IMAGE)
    assert [one for one in done.gone if one.zero] == [
        Gone("conv1", "filters", 1, 4), Gone("fc1", "inputs", 1, 4), Gone("fc1", "filters", 1, 5)
    ]  # fmt: skip
    assert not done.left
    assert [i for i in range(4) if not flat.conv1.weight[i].any()] == [1]
    assert not flat.fc1.weight.view(5, 4, 9)[:, 2].any() and not flat.fc1.weight[4].any()
    assert flat.fc2.weight.all()
    settle(flat, IMAGE)
    assert (flat.norm.weight != 0).tolist() == [True, False, False, True]


def test_a_grouped_convolution_is_left_alone_and_said() -> None:
    torch.manual_seed(0)
    module = Flat(groups=2)
    before = module.conv2.weight.clone()
    done = cut(module, 0.9, structural=True, image=IMAGE)
    assert torch.equal(module.conv2.weight, before)
    assert done.left["conv2"] == "layer 'conv2' is a grouped convolution"
    assert {one.path for one in done.gone} == {"fc1", "fc2"}
    assert cut(module, 0.9, structural=False, image=IMAGE).left == {}  # entries of any layer can go


@pytest.mark.parametrize("structural", [False, True])
@pytest.mark.parametrize("net", ["lenet-5", "resnet20"])
def test_the_largest_legal_level_is_legal_and_a_larger_one_is_not(net: str, structural: bool) -> None:
    torch.manual_seed(0)
    row = nets.named(net)
    module = row.build(10)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(BadInput, match="would empty layer '.*'; the largest legal level is ") as caught:
        cut(module, 99, structural=structural, image=row.image)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    largest = float(str(caught.value).rpartition(" ")[2])
    with pytest.raises(BadInput, match="would empty"):
        cut(module, largest * 1.011, structural=structural, image=row.image)
    cut(module, largest, structural=structural, image=row.image)
    assert all(layer.weight.any() for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def test_rows_and_columns_that_only_meet_in_zeros() -> None:
    """Each direction keeps something, but nothing that the other keeps."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        module[1].weight.fill_(1)
        module[2].weight.copy_(torch.tensor([[0.0, 2.0, 2.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
        module[3].weight.fill_(1)
    with pytest.raises(BadInput, match="cut level 0.9 would empty layer '2'; the largest legal level is 0.866"):
        cut(module, 0.9, structural=True, image=(1, 1, 2))


def test_a_layer_that_is_empty_already_does_not_stand_in_the_way(flat) -> None:
    with torch.no_grad():
        flat.conv1.weight.zero_()
    assert Gone("conv1", "weights", 72, 72) in cut(flat, 0.5, structural=False, image=IMAGE).gone


@pytest.mark.parametrize("level", [-1.0, math.nan, math.inf])
def test_what_no_level_is(flat, level: float) -> None:
    with pytest.raises(BadInput, match="cut level .* must be a number, 0 or more"):
        cut(flat, level, structural=False, image=IMAGE)


# ---- both together


@pytest.mark.parametrize(("name", "strength"), [("hoyer-square", 3e-2), ("group-hs", 1e-1)])
def test_training_under_it_makes_a_gap_to_cut_in(name: str, strength: float) -> None:
    """Four of twelve inputs decide the class: what reads the others goes, at no cost."""
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(512, 12, generator=chance)
    y = (x[:, :4].sum(1) > 0).long()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))
    optimiser, measure = torch.optim.Adam(module.parameters(), 1e-2), penalty(module, name, strength)
    for _ in range(400):
        optimiser.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        measure.backward()
        optimiser.step()
    right = float((module(x).argmax(1) == y).float().mean())
    done = cut(module, 0.2, structural=name == "group-hs", image=(1, 1, 12))
    assert float((module(x).argmax(1) == y).float().mean()) > max(0.95, right - 0.01)
    assert sum(one.zero for one in done.gone) > 0.5 * sum(one.of for one in done.gone)
    assert done.gone[0].zero > 0
