"""ESCALATE's weights: three levels and their gradients by definition, what hardening leaves, the bits of a literal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tests.support import pictures
from tests.support.command import tprune
from tprune.base.errors import BadInput
from tprune.bench.accel import layer as simulated
from tprune.bench.accel import storage
from tprune.cnn import architectures, escalate, network, penni
from tprune.cnn.count import count
from tprune.cnn.escalate import Levels, convert, harden, is_ternary, quantise, round_inputs
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.images import Images
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit, rounded
from tprune.cnn.score import evaluate
from tprune.cnn.settings import Recipe
from tprune.cnn.sparsity import measure


def values(seed: int, *shape: int, zeros: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) >= zeros)


def images(count: int = 40) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3, ("a", "b", "c"), "made up")


def small(seed: int = 0) -> Network:
    """A ResNet of two blocks in PENNI's form, some coefficients 0, its batch norms as if trained."""
    torch.manual_seed(seed)
    one = Network(architectures.resnet((4, 8), 1, 3), "own", ("a", "b", "c"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    penni.convert(one.module, 3)
    penni.cut(one.module, 0.5)
    one.module.train()(one.normalise(images().pixels))
    one.module.eval()
    return one


def quantised(module: nn.Module) -> dict[str, Tensor]:
    """Every weight that a quantiser makes."""
    return {
        f"{path}.{name}": getattr(layer, name).detach().clone()
        for path, layer in module.named_modules()
        if parametrize.is_parametrized(layer)
        for name in layer.parametrizations
    }


def test_three_levels_by_hand():
    latent = torch.tensor([0.1, 1.0, 2.0, -0.5, -0.3, 0.0, -4.0])
    # mean positive 3.1 / 3, threshold 0.723; mean negative 1.6, threshold 1.12
    made = Levels.apply(latent, torch.tensor([3.0, 5.0]))
    assert made.tolist() == [0, 3, 3, 0, 0, 0, -5]
    start = escalate.Ternary(latent).scales.tolist()
    assert start == [1.5, 4.0]


@given(st.integers(0, 500), st.sampled_from((0.0, 0.5, 0.95)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gradients_are_straight_through_and_sums_over_roots(seed, zeros, positive):
    latent = values(seed, 6, 5, zeros=zeros)
    latent = (latent.abs() if positive else latent).requires_grad_()
    scales, gradient = torch.tensor([0.7, 0.4], requires_grad=True), values(seed + 1, 6, 5)
    made = Levels.apply(latent, scales)
    made.backward(gradient)
    assert torch.equal(latent.grad, gradient)
    up = [(g, v) for g, v in zip(gradient.flatten().tolist(), made.flatten().tolist(), strict=True) if v > 0]
    down = [(g, v) for g, v in zip(gradient.flatten().tolist(), made.flatten().tolist(), strict=True) if v < 0]
    for side, sign, found in ((up, 1, scales.grad[0]), (down, -1, scales.grad[1])):
        assert float(found) == pytest.approx(sign * sum(g for g, _ in side) / max(1, len(side)) ** 0.5, abs=1e-5)


def test_eight_bits_are_a_grid_and_the_gradient_passes():
    weights = values(0, 4, 3, 3, 3).requires_grad_()
    whole, each = rounded(weights), rounded(weights, by_output=True)
    steps = whole.detach() / (weights.detach().abs().max() / 127)
    assert torch.allclose(steps, steps.round(), atol=1e-4) and float(steps.abs().max()) == pytest.approx(127)
    for one, row in zip(weights.detach(), each.detach(), strict=True):
        scale = one.abs().max() / 127
        assert float((one - row).abs().max()) <= float(scale) / 2 + 1e-7
    each.backward(gradient := values(1, 4, 3, 3, 3))
    assert torch.equal(weights.grad, gradient)
    assert not rounded(torch.zeros(2, 3)).any()


def test_inputs_are_rounded_between_the_extremes_and_clipped_beyond_them():
    one = EightBit()
    free = values(0, 10)
    assert torch.equal(one.eval()(free), free)  # it has seen nothing
    one.train()(torch.tensor([-1.0, 0.0, 4.0]))
    x = torch.tensor([-3.0, -0.502, 0.0, 1.001, 9.0], requires_grad=True)
    y = one.eval()(x)
    y.sum().backward()
    step = 5 / 255
    assert y.tolist() == pytest.approx([-51 * step, -26 * step, 0, 51 * step, 204 * step], abs=1e-6)
    assert float(y[2].detach()) == 0 and x.grad.tolist() == [0, 1, 1, 1, 0]
    assert len(one(torch.linspace(-3, 9, 9999)).unique()) == 256
    one.train()(torch.tensor([0.0, 14.0]))
    assert one.range.tolist() == pytest.approx([-0.9, 5.0])  # a tenth of the way


def test_every_layer_gets_its_own_precision():
    one = small()
    assert isinstance(one.module.conv1, BasisConv2d)
    kernel = one.module.conv1.weight().detach()
    assert convert(one.module) == {}
    assert isinstance(one.module.conv1, nn.Conv2d)  # the first layer has whole kernels again
    difference = (one.module.conv1.weight.detach() - kernel).abs().max()
    assert float(difference) <= float(kernel.abs().max()) / 254 + 1e-7
    harden(one.module)
    for path, layer in one.module.named_modules():
        if isinstance(layer, BasisConv2d):
            assert len(layer.coefficients.unique()) == 3 and is_ternary(layer.coefficients), path
            assert len((layer.basis / (layer.basis.abs().max() / 127)).round().unique()) <= 255
            assert torch.allclose(rounded(layer.basis), layer.basis)
    shortcut = one.module.stages[1][0].shortcut[0]
    assert len(shortcut.weight.unique()) == 3 and shortcut.weight.shape == (8, 4, 1, 1)
    assert not is_ternary(one.module.fc.weight) and len(one.module.fc.weight.unique()) <= 255 * 3


def test_hardening_changes_no_weight_and_leaves_a_plain_network(tmp_path):
    one = small()
    convert(one.module)
    x, soft = one.normalise(images().pixels), quantised(one.module)
    with torch.no_grad():
        before = one.module(x)
        harden(one.module)
        assert torch.equal(before, one.module(x))
    state = one.module.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in soft.items()) and len(soft) == 4 * 2 + 3
    assert not any("parametrizations" in name for name in state)
    network.save(one, tmp_path / "net")
    back = network.load(tmp_path / "net", build=lambda classes: architectures.resnet((4, 8), 1, classes))
    with torch.no_grad():
        assert torch.equal(before, back.module(x))


def test_a_hardened_network_is_a_fixed_point():
    one = small()
    convert(one.module)
    harden(one.module)
    before = {name: tensor.clone() for name, tensor in one.module.state_dict().items()}
    convert(one.module)
    harden(one.module)
    after = one.module.state_dict()
    assert all(torch.allclose(after[name], tensor, rtol=1e-5) for name, tensor in before.items())
    assert all(torch.equal(after[name] != 0, tensor != 0) for name, tensor in before.items())


def test_fine_tuning_trains_latents_and_scales_and_keeps_the_zeros():
    one, seen = small(), images()
    dead = {
        path: layer.coefficients == 0 for path, layer in one.module.named_modules() if isinstance(layer, BasisConv2d)
    }
    facts = quantise(one, seen, Recipe(3, 0.02, batch=20, shift=0, flip=False), held=seen, activations=True)
    assert facts == one.history[-1] and len(facts["losses"]) == 3 and facts["losses"][-1] < facts["losses"][0]
    assert facts["accuracy_held_out"] == evaluate(one, seen).accuracy
    for path, zeros in dead.items():
        if path != "conv1":
            layer = one.module.get_submodule(f"{path}.1")
            assert is_ternary(layer.coefficients) and not layer.coefficients[zeros].any()
    fresh = small()
    quantise(fresh, seen, None, held=seen)
    scales = [is_ternary(layer.coefficients) and layer.coefficients.unique() for layer in basis(fresh)]
    trained = [layer.coefficients.unique() for layer in basis(one)]
    assert all(not torch.equal(a, b) for a, b in zip(scales, trained, strict=True))


def basis(one: Network) -> list[BasisConv2d]:
    return [layer for layer in one.module.modules() if isinstance(layer, BasisConv2d)]


def test_rounded_inputs_are_saved_and_found_again(tmp_path):
    one, seen = small(), images()
    convert(one.module)
    harden(one.module)
    plain, size = evaluate(one, seen), count(one.module, one.image)
    round_inputs(one, seen)
    assert (count(one.module, one.image).nonzero, count(one.module, one.image).macs) == (size.nonzero, size.macs)
    paths = [path for path, layer in one.module.named_modules() if isinstance(layer, EightBit)]
    assert paths == [
        "conv1.0", "stages.0.0.conv1.0", "stages.0.0.conv2.0", "stages.1.0.conv1.0", "stages.1.0.conv2.0",
        "stages.1.0.shortcut.0.0", "fc.0",
    ]  # fmt: skip
    rough = evaluate(one, seen)
    assert rough.loss != plain.loss and rough.loss == pytest.approx(plain.loss, rel=0.05)
    ranges = {path: one.module.get_submodule(path).range.clone() for path in paths}
    round_inputs(one, seen)
    assert paths == [path for path, layer in one.module.named_modules() if isinstance(layer, EightBit)]
    assert all(torch.allclose(one.module.get_submodule(path).range, was, atol=0.2) for path, was in ranges.items())
    network.save(one, tmp_path / "net")
    back = network.load(tmp_path / "net", build=lambda classes: architectures.resnet((4, 8), 1, classes))
    now, then = evaluate(back, seen), evaluate(one, seen)
    assert torch.equal(now.right, then.right) and now.loss == then.loss


def test_batch_norms_are_left_alone_while_ranges_are_found():
    one = small()
    before = {name: tensor.clone() for name, tensor in one.module.state_dict().items()}
    round_inputs(one, images())
    after = {name.replace(".1.", "."): tensor for name, tensor in one.module.state_dict().items()}
    assert all(torch.equal(after[name.replace(".1.", ".")], tensor) for name, tensor in before.items())
    assert not any(layer.training for layer in one.module.modules())


def test_what_is_not_decomposed_keeps_eight_bits_and_is_said():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip
    assert convert(module) == {"3": "is not decomposed: its weights get 8 bits"}
    harden(module)
    assert [is_ternary(module[number].weight) for number in (0, 1, 2, 3, 5)] == [False, False, True, False, False]


def test_a_layer_without_one_sign_or_without_anything_stays_as_it_is():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        module[1].weight.abs_()
        module[2].weight.zero_()
    convert(module)
    harden(module)
    assert len(module[1].weight.unique()) <= 2 and float(module[1].weight.detach().min()) >= 0
    assert not module[2].weight.any() and torch.isfinite(module[1].weight).all()


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (nn.ReLU(), "there is no convolution or linear layer to quantise"),
        (nn.Sequential(SvdConv2d(2, 2, (3, 3), 2, scheme="spatial")), "layer '0' is in SVD's form; ESCALATE takes"),
    ],
)
def test_what_cannot_be_quantised_is_refused(module, complaint):
    with pytest.raises(BadInput, match=complaint):
        convert(module)


def test_a_network_without_a_basis_is_no_network_for_escalate():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    one = Network(module, "plain", ("a", "b", "c"), (3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(BadInput, match="plain has no layer in PENNI's form; create one with `tprune cnn train"):
        quantise(one, images(), None, held=images())


def test_quantisers_are_not_put_on_twice():
    one = small()
    convert(one.module)
    with pytest.raises(BadInput, match="layer 'conv1' has quantisers already; harden the network first"):
        convert(one.module)


def test_the_bits_of_a_literal():
    """A 3 x 3 layer of 2 filters on 2 channels, 2 bases, 3 coefficients left; a 1 x 1 layer with 2 of 6 left."""
    first, basis_layer, point = nn.Conv2d(3, 2, 3), BasisConv2d(2, 2, (3, 3), 2), nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        basis_layer.basis.copy_(values(0, 2, 3, 3, zeros=0))
        basis_layer.coefficients.copy_(torch.tensor([[[0.5, 0], [0, -0.25]], [[0, 0], [0.5, 0]]]))
        point.weight.copy_(torch.tensor([1.0, 0, 0, 0, -2.0, 0]).view(3, 2, 1, 1))
    one = Network(
        nn.Sequential(first, basis_layer, point, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), "own",
        ("a", "b", "c"), (3, 8, 8), (0.0,) * 3, (1.0,) * 3,
    )  # fmt: skip
    found = measure(one, images(4))
    assert [None if layer.signs is None else layer.signs.tolist() for layer in found.layers] == [
        None, [[[1, 0], [0, -1]], [[0, 0], [1, 0]]], [[[1], [0]], [[0], [0]], [[-1], [0]]],
    ]  # fmt: skip
    layers = tuple(
        simulated.Layer(
            layer.name, simulated.Shape(**layer.shape), simulated.Operand.of(layer.weights),
            simulated.Operand(layer.density, layer.activations),
            None if layer.signs is None
            else simulated.Decomposition(layer.signs.shape[2], simulated.Operand.of(layer.signs)),
        )
        for layer in found.layers
    )  # fmt: skip
    size = storage.sizes(simulated.Workload("own", "trained", layers), exact=True)["bit mask", False]
    assert size.original == 32 * (54 + 36 + 6)
    assert (size.places, size.signs) == (2 * 2 * 2 + 3 * 2, 3 + 2)  # a bit a coefficient, and a sign a non-zero one
    assert (size.bases, size.scales, size.weights) == (2 * 9 * 8, 2 * 2 * 32, 54 * 8)
    assert size.norms == (2 + 2 + 3) * 32
    runs = storage.sizes(simulated.Workload("own", "trained", layers), exact=True)["run length", False]
    # gaps 0, 2, 2 in three fields of two bits; gaps 0 and 3 in fields of one bit, where 1 fills up: 0, 1, 1, 1, 0
    assert runs.places == 3 * 2 + 5 * 1


@pytest.fixture(scope="module")
def penni_form(tmp_path_factory):
    """A folder with data and a LeNet-5 in PENNI's form for it."""
    place = tmp_path_factory.mktemp("cnn")
    pictures.write(place / "data", (1, 28, 28), train=60, test=20)
    torch.manual_seed(0)
    one = Network(architectures.lenet_5(10), "lenet-5", tuple("0123456789"), (1, 28, 28), (0.0,), (1.0,))
    penni.convert(one.module, 4)
    network.save(one, place / "net")
    return place


def test_the_verb_writes_every_stage(penni_form, tmp_path):
    args = ("cnn", "quantise", penni_form / "net", "--data", penni_form / "data", "--held-out", 20, "--threads", 1)
    plan = tprune(*args, "--out", tmp_path / "plan", "--shift", 2, "--dry-run", "--json").json
    assert plan["recipe"]["lr"] == 0.01 and plan["recipe"]["shift"] == 2 and not (tmp_path / "plan").exists()
    ternary = tprune(*args, "--out", tmp_path / "ternary", "--epochs", 0, "--json").json
    assert ternary["epochs"] == 0 and ternary["losses"] == []
    both = tprune(
        *args, "--out", tmp_path / "both", "--epochs", 1, "--batch", 20, "--lr", 0.001, "--activations", "--json"
    ).json
    assert both["activations"] and len(both["losses"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"ternary", "both"}
    for name, told in (("ternary", ternary), ("both", both)):
        one = network.load(tmp_path / name)
        assert one.history[-1]["accuracy_held_out"] == told["accuracy_held_out"]
        assert all(is_ternary(layer.coefficients) for layer in basis(one)) and len(basis(one)) == 1
    rounded_inputs = [layer for layer in one.module.modules() if isinstance(layer, EightBit)]
    assert len(rounded_inputs) == 4 and all(float(layer.range[1]) > 0 for layer in rounded_inputs)
    tprune(*args, "--out", tmp_path / "ternary").check_failed(2, "exists and is not empty")
