"""The cut network computes what the masked one does; what goes is dead, and all that is dead goes."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.tiny_nets import FORMS, NETS, Squashed, cut_exactly, images, net, outputs, randomised, strew
from tprune.base.errors import BadInput
from tprune.cnn import nets
from tprune.cnn.channels import spaces
from tprune.cnn.forms import BasisConv2d, SvdConv2d
from tprune.cnn.shrink import settle, shrink

few = settings(max_examples=15, deadline=None)
masked_nets = st.tuples(st.sampled_from(tuple(NETS)), st.sampled_from(FORMS), st.integers(0, 10**6), st.floats(0, 0.9))
IMAGE = (3, 8, 8)


@few
@given(masked_nets)
def test_cut_equals_masked(drawn):
    name, form, seed, share = drawn
    module, image = net(name, form, seed)
    done = cut_exactly(strew(module, share, torch.Generator().manual_seed(seed)), image)
    for cut in done.cuts:
        assert len(cut.kept) == cut.space.size if cut.space.fixed else len(cut.kept) >= 1
        for end in cut.space.writers:
            assert len(kernel(module.get_submodule(end.path))) == len(cut.kept)


@few
@given(masked_nets)
def test_settling_takes_only_what_is_dead(drawn):
    """Without biases a channel that nobody writes is 0 as it is, so settling must not change a single output."""
    name, form, seed, share = drawn
    module, image = net(name, form, seed)
    for tensor_name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor_name.endswith(("bias", "running_mean")):
            tensor.data.zero_()
    strew(module, share, torch.Generator().manual_seed(seed))
    want = outputs(module, image)
    settle(module, image)
    torch.testing.assert_close(outputs(module, image), want, rtol=0, atol=1e-5 * max(1.0, float(want.abs().max())))


@few
@given(masked_nets)
def test_all_that_is_dead_goes(drawn):
    """By the composed kernels: every channel that stays is written by somebody and read by somebody."""
    name, form, seed, share = drawn
    module, image = net(name, form, seed)
    shrink(strew(module, share, torch.Generator().manual_seed(seed)), image)
    for space in spaces(module, image):
        if space.fixed or space.size == 1:
            continue
        layers = dict(module.named_modules())
        written = sum(kernel(layers[end.path]).abs().flatten(1).sum(1) for end in space.writers)
        read = sum(
            kernel(layers[end.path]).abs().transpose(0, 1).reshape(space.size, -1).sum(1) for end in space.readers
        )
        assert bool((written > 0).all()) and bool((read > 0).all())


def kernel(layer: nn.Module) -> Tensor:
    return layer.weight() if isinstance(layer, (SvdConv2d, BasisConv2d)) else layer.weight


@few
@given(masked_nets)
def test_settled_is_settled(drawn):
    name, form, seed, share = drawn
    module, image = net(name, form, seed)
    settle(strew(module, share, torch.Generator().manual_seed(seed)), image)
    once = copy.deepcopy(module.state_dict())
    settle(module, image)
    assert all(torch.equal(tensor, once[path]) for path, tensor in module.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETS)
def test_nothing_to_cut_changes_nothing(name, form):
    module, image = net(name, form, 0)
    before = copy.deepcopy(module.state_dict())
    done = shrink(module, image)
    assert done.before == done.after == sum(space.size for space in spaces(module, image))
    assert all(torch.equal(tensor, before[path]) for path, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet20", "mobilenet-v2"])
def test_named_networks_shrink_exactly(name):
    row = nets.named(name)
    torch.manual_seed(0)
    module = strew(randomised(row.build(10), row.image), 0.3, torch.Generator().manual_seed(0))
    done = cut_exactly(module, row.image)
    assert done.after < 0.9 * done.before


def test_resnet18_takes_well_under_three_seconds():
    row = nets.named("resnet18")
    module = strew(row.build(10).eval(), 0.3, torch.Generator().manual_seed(0))
    began = time.process_time()
    settle(module, row.image)
    shrink(module, row.image)
    assert time.process_time() - began < 3


# One residual sum by hand: who writes, who reads.


def a_residual() -> nn.Module:
    return net("resnet", "plain", 3)[0]


STEM, FIRST, SECOND = "conv1", "stages.0.0", "stages.0.1"  # they write the four channels of the first stage
READERS = ("stages.0.0.conv1", "stages.0.1.conv1", "stages.1.0.conv1", "stages.1.0.shortcut.0")


def zero_outputs(module: nn.Module, channel: int, *paths: str) -> None:
    for path in paths:
        module.get_submodule(path).weight.data[channel] = 0


def zero_inputs(module: nn.Module, channel: int, *paths: str) -> None:
    for path in paths:
        module.get_submodule(path).weight.data[:, channel] = 0


def test_a_channel_that_one_layer_still_writes_into_a_sum_stays_as_it_is():
    module = a_residual()
    zero_outputs(module, 2, STEM, f"{FIRST}.conv2")
    before = copy.deepcopy(module.state_dict())
    settle(module, IMAGE)
    assert all(torch.equal(tensor, before[path]) for path, tensor in module.state_dict().items())
    assert module.bn1.bias[2] != 0
    assert shrink(module, IMAGE).after == shrink(a_residual(), IMAGE).after


def test_a_channel_that_nobody_writes_into_a_sum_goes_everywhere():
    module = a_residual()
    zero_outputs(module, 2, STEM, f"{FIRST}.conv2", f"{SECOND}.conv2")
    cut_exactly(module, IMAGE)
    assert [module.get_submodule(path).in_channels for path in READERS] == [3] * 4
    assert module.conv1.out_channels == module.bn1.num_features == module.stages[0][1].bn2.num_features == 3


def test_a_channel_that_nobody_reads_goes():
    module = a_residual()
    zero_inputs(module, 1, *READERS)
    want = outputs(module, IMAGE)
    done = cut_exactly(module, IMAGE)
    torch.testing.assert_close(outputs(module, IMAGE), want, rtol=1e-5, atol=1e-5)  # settling dropped nothing, too
    assert next(cut.kept for cut in done.cuts if "conv1" in [end.path for end in cut.space.writers]) == (0, 2, 3)


def test_a_channel_that_is_read_only_before_it_is_written_goes():
    """The stem does not write it, the blocks do, but only the first block reads it: nobody reads what they wrote."""
    module = a_residual()
    zero_outputs(module, 0, STEM)
    zero_inputs(module, 0, *READERS[1:])
    cut_exactly(module, IMAGE)
    assert module.conv1.out_channels == 3


def test_settling_zeroes_what_belongs_to_the_channel_and_nothing_else():
    module, image = net("lenet", "plain", 0)
    module[3].weight.data[2] = 0
    before = copy.deepcopy(module)
    settle(module, image)
    assert module[3].bias[2] == 0
    assert module[7].weight[:, 8:12].abs().sum() == 0  # four positions of the third channel
    module[3].bias.data[2], module[7].weight.data[:, 8:12] = before[3].bias[2], before[7].weight[:, 8:12]
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), before.parameters(), strict=True))


def test_one_dead_channel_kills_another():
    """A filter that reads nothing but dead channels writes nothing itself."""
    module = nn.Sequential(*(nn.Conv2d(i, o, 1) for i, o in ((1, 2), (2, 2), (2, 2), (2, 1))))
    module[0].weight.data[0] = 0
    module[1].weight.data[0, 1] = 0  # reads channel 0 alone
    module[2].weight.data[1, 1] = 0
    module[2].weight.data[1, 0] = 1.0  # reads what module[1] no longer writes
    cut_exactly(module, (1, 2, 2))
    assert [layer.out_channels for layer in module] == [1, 1, 1, 1]


def test_a_dead_layer_keeps_its_largest_channel():
    module = net("vgg", "plain", 0)[0]
    module[4].weight.data[:] = 0
    module[5].bias.data[3] = 9.0
    done = cut_exactly(module, IMAGE)
    assert done.cuts[2].kept == (3,)
    assert module[5].bias.tolist() == [9.0]  # its constant is still added


@pytest.mark.parametrize("kill", ["depthwise", "norm"])
def test_a_link_of_zeros_kills_the_channel(kill):
    module = net("mobilenet", "plain", 0)[0]
    expand, norm, _, depthwise, *_ = module[4].layers
    if kill == "depthwise":
        depthwise.weight.data[5] = 0
    else:
        norm.weight.data[5] = norm.bias.data[5] = 0
    cut_exactly(module, IMAGE)
    assert expand.out_channels == norm.num_features == depthwise.groups == depthwise.in_channels == 7


def test_factors_that_nobody_uses_go():
    module, image = net("vgg", "basis", 0)
    module[0].coefficients.data[:, :, 1] = 0
    factored, _ = net("vgg", "channel", 0)
    factored[4].scale.data[2] = 0
    factored[4].first.data[1] = 0
    for one in (module, factored):
        cut_exactly(one, image)
    assert (module[0].bases, tuple(module[0].basis.shape)) == (2, (2, 3, 3))
    assert (factored[4].rank, tuple(factored[4].second.shape)) == (2, (5, 2, 1, 1))


def test_a_filter_of_factors_that_are_zero_writes_nothing():
    """Its own factors are not zero: the singular value is, or the basis kernel."""
    based, image = net("vgg", "basis", 0)
    based[4].coefficients.data[1, :, 1:] = 0
    based[4].basis.data[0] = 0
    factored, _ = net("vgg", "channel", 0)
    factored[4].second.data[1, 1:] = 0
    factored[4].scale.data[0] = 0
    for one in (based, factored):
        cut_exactly(one, image)
        assert (one[4].outputs, one[5].num_features, one[8].inputs) == (4, 4, 4)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_zeros_keeps_one_of_everything(form):
    module, image = net("resnet", form, 0)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, SvdConv2d, BasisConv2d)):
            for tensor in layer.parameters():
                tensor.data.zero_()
    cut_exactly(module, image)
    assert {space.size for space in spaces(module, image) if not space.fixed} == {1}


# Constants: activations that make something of nothing.


KEEPING = [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.GELU(), nn.Tanh(), nn.Hardtanh(-1, 2), nn.Dropout(0.5)]
CONSTANT = [nn.Sigmoid(), nn.Hardsigmoid(), nn.Softplus(), nn.Hardtanh(1, 2), nn.LogSigmoid(), nn.Threshold(-1, 3)]


@pytest.mark.parametrize("activation", KEEPING, ids=repr)
def test_activations_that_keep_zero_let_a_silent_channel_go(activation):
    module = randomised(Squashed(activation), IMAGE)
    module.one.weight.data[1] = 0
    cut_exactly(module, IMAGE)
    assert module.one.out_channels == 3


@pytest.mark.parametrize("activation", [one for one in CONSTANT if type(one) is not nn.Threshold], ids=repr)
def test_activations_that_do_not_keep_zero_hold_a_silent_channel_but_not_an_unread_one(activation):
    module = randomised(Squashed(activation), IMAGE)
    module.one.weight.data[1] = 0
    module.two.weight.data[:, 2] = 0
    want = outputs(module, IMAGE)
    done = cut_exactly(module, IMAGE)
    torch.testing.assert_close(outputs(module, IMAGE), want)
    assert done.cuts[1].kept == (0, 1, 3)
    assert "of 0 is not 0" in next(iter(done.cuts[1].space.constants.values()))


# What stays as it was.


def test_modes_statistics_formats_and_gradients_stay():
    module, image = net("resnet", "plain", 0)
    module = module.to(memory_format=torch.channels_last).train()
    module.bn1.eval()
    module.conv1.weight.requires_grad = False
    zero_outputs(module, 1, "stages.0.0.conv1")
    statistics = module.bn1.running_mean.clone()
    conv, norm = module.stages[0][0].conv1, module.stages[0][0].bn1
    shrink(module, image)
    assert module.training and not module.bn1.training and module.stages.training
    assert torch.equal(module.bn1.running_mean, statistics)
    assert module.stages[0][0].conv1 is conv and conv.out_channels == 3  # the same object, smaller
    assert norm.running_mean.shape == norm.running_var.shape == norm.weight.shape == norm.bias.shape == (3,)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) and conv.weight.requires_grad
    assert not module.conv1.weight.requires_grad
    module(images(image)).sum().backward()  # it trains on
    assert conv.weight.grad is not None


def test_a_wrong_image_is_refused():
    with pytest.raises(
        BadInput, match="ResNet does not take an image of 1 x 8 x 8 .channels, height, width.: .*channels"
    ):
        shrink(net("resnet", "plain", 0)[0], (1, 8, 8))
