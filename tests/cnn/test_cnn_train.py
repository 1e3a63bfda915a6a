"""The loop for image networks: killed or not it ends with the same bits, and what cannot go on stops and says so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import tprune.cnn.training
from tests.support.tiny import Stop, a_network, check_same, some_images
from tprune.base.errors import BadInput, WorkFailed
from tprune.cnn.deephoyer import penalty
from tprune.cnn.nets import NETS
from tprune.cnn.network import Network
from tprune.cnn.settings import Recipe, recipe_of
from tprune.cnn.training import fit

RECIPE = Recipe(epochs=3, lr=0.05, batch=8, seed=3)  # 3 epochs of 4 steps
ADAM = replace(RECIPE, optimiser="adam", lr=1e-2, weight_decay=0.0)


@dataclass(frozen=True)
class Spoilt:
    """A penalty whose gradient is no number after its first `good` ones, though the loss is."""

    weight: nn.Parameter = field(repr=False)
    calls: list[int] = field(repr=False, default_factory=list)
    good: int = field(repr=False, default=2)

    def backward(self) -> None:
        self.calls.append(0)
        (self.weight.sum() * (0.0 if len(self.calls) <= self.good else math.inf)).backward()


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the state after every step."""
    monkeypatch.setattr(tprune.cnn.training, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(tprune.cnn.training, "FIRST_SAVE", -1.0)


# ---- the same result


def test_training_learns_and_repeats() -> None:
    one, other = a_network(), a_network()
    before = one.id
    fitted = fit(one, some_images(), replace(RECIPE, epochs=8, shift=0, flip=False))
    assert fit(other, some_images(), replace(RECIPE, epochs=8, shift=0, flip=False)).losses == fitted.losses
    check_same(one, other)
    assert one.id != before and not one.module.training
    assert len(fitted.losses) == 8 and fitted.losses[-1] < 0.7 * fitted.losses[0]


def test_the_mean_loss_is_over_every_step_of_an_epoch() -> None:
    seen: list[float] = []
    fitted = fit(a_network(), some_images(), RECIPE, watch=lambda done, steps, loss: seen.append(loss))
    assert fitted.losses == pytest.approx([sum(seen[at : at + 4]) / 4 for at in (0, 4, 8)])


def lying(memory_format: torch.memory_format) -> Network:
    one = a_network()
    one.module.insert(3, nn.Dropout(0.2))
    one.module.to(memory_format=memory_format)
    return one


@pytest.mark.parametrize("after", [1, 5, 8, 11])
@pytest.mark.parametrize("recipe", [RECIPE, ADAM])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])  # fresh; as `load` leaves it
def test_a_killed_run_ends_with_the_same_bits(
    saving, tmp_path: Path, recipe: Recipe, after: int, memory_format: torch.memory_format
) -> None:
    whole = lying(memory_format)
    expected = fit(whole, some_images(), recipe, penalty=penalty(whole.module, "hoyer-square", 1e-3))
    for stop in (Stop(after), None):
        one = lying(memory_format)
        measure = penalty(one.module, "hoyer-square", 1e-3)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                fit(one, some_images(), recipe, penalty=measure, run_dir=tmp_path, watch=stop)
        else:
            fitted = fit(one, some_images(), recipe, penalty=measure, run_dir=tmp_path)
    assert fitted.resumed_at == after - 1 and fitted.losses == pytest.approx(expected.losses)
    check_same(one, whole)


def test_a_resumed_run_keeps_its_precision(saving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, at_the_end = replace(RECIPE, bf16=True), list[Network]()
    for faster, stop in ((True, None), (True, Stop(5)), (False, None)):
        monkeypatch.setattr(tprune.cnn.training, "bf16_is_faster", lambda work, faster=faster: faster)
        one = a_network()
        if stop:
            with pytest.raises(KeyboardInterrupt):
                fit(one, some_images(), recipe, run_dir=tmp_path, watch=stop)
        else:
            fit(one, some_images(), recipe, run_dir=tmp_path if at_the_end else None)
        at_the_end.append(one)
    check_same(at_the_end[0], at_the_end[2])


@dataclass(frozen=True)
class Turns:
    """The parameters rest by turns, one an epoch."""

    parameters: tuple[torch.nn.Parameter, ...] = field(repr=False)

    def __call__(self, epoch: int) -> tuple[torch.nn.Parameter, ...]:
        return self.parameters[epoch % 2 :][:1]


@pytest.mark.parametrize("recipe", [RECIPE, ADAM])
def test_a_killed_run_with_resting_parameters_too(saving, tmp_path: Path, recipe: Recipe) -> None:
    def train(run_dir: Path | None, stop: Stop | None = None) -> Network:
        one = a_network()
        turns = Turns((one.module[0].weight, one.module[5].weight))
        fit(one, some_images(), recipe, frozen=turns, run_dir=run_dir, watch=stop)
        return one

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Stop(7))
    check_same(train(tmp_path), whole)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    one, again = a_network(), a_network()
    fit(one, some_images(), RECIPE, run_dir=tmp_path)
    assert fit(again, some_images(), RECIPE, run_dir=tmp_path, watch=Stop(1)).resumed_at == 12
    check_same(one, again)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("recipe", "smoothing is 0.1 and was 0.0"),
        ("penalty", r"penalty is Penalty\(name='l1', strength=0.001, image=None\) and was None"),
        ("zeros", "zeros stay is True and was False"),
        ("network", "start network is [0-9a-f]+ and was [0-9a-f]+"),
        ("images", "images is [0-9a-f]+ and was [0-9a-f]+"),
    ],
)
def test_the_state_of_another_run_is_refused(tmp_path: Path, change: str, told: str) -> None:
    fit(a_network(), some_images(), RECIPE, run_dir=tmp_path)
    one = a_network(seed=1 if change == "network" else 0)
    with pytest.raises(
        BadInput, match=rf"belongs to another run \({told}\); to continue that run, use the same settings"
    ):
        fit(
            one,
            some_images(35 if change == "images" else 34),
            replace(RECIPE, smoothing=0.1) if change == "recipe" else RECIPE,
            penalty=penalty(one.module, "l1", 1e-3) if change == "penalty" else None,
            keep_zeros=change == "zeros",
            run_dir=tmp_path,
        )


# ---- what rests


@pytest.mark.parametrize("recipe", [RECIPE, ADAM])
def test_zeros_stay_and_the_rest_trains(recipe: Recipe) -> None:
    one = a_network()
    weight = one.module[0].weight
    dead = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    with torch.no_grad():
        weight[dead] = 0
    before = weight.clone()
    fit(one, some_images(), recipe, keep_zeros=True)
    assert torch.equal(weight == 0, dead)
    assert not torch.isclose(weight, before)[~dead].all()


@pytest.mark.parametrize("recipe", [RECIPE, ADAM])
def test_frozen_parameters_rest_in_their_epochs(recipe: Recipe) -> None:
    one = a_network()
    first, last = one.module[0].weight, one.module[5].weight
    seen = [[first.clone(), last.clone()]]

    def watch(done: int, steps: int, loss: float) -> None:
        if done % 4 == 0:
            seen.append([first.clone(), last.clone()])

    fit(one, some_images(), recipe, frozen=lambda epoch: [(first, last)[epoch % 2]], watch=watch)
    rested = [[torch.equal(*pair) for pair in zip(*two, strict=True)] for two in zip(seen, seen[1:], strict=False)]
    assert rested == [[True, False], [False, True], [True, False]]


# ---- what cannot go on


def test_weights_that_are_no_numbers_stop_it_and_are_not_kept(saving, tmp_path: Path) -> None:
    one, seen = a_network(), list[dict[str, Tensor]]()

    def watch(done: int, steps: int, loss: float) -> None:
        seen.append({name: tensor.clone() for name, tensor in one.module.state_dict().items()})

    with pytest.raises(
        WorkFailed, match=r"0.weight is no longer finite; the last good state is kept in .*try a smaller"
    ):
        fit(one, some_images(), RECIPE, penalty=Spoilt(one.module[0].weight), run_dir=tmp_path, watch=watch)
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("weight.0.weight"), seen[1]["0.weight"])  # after the second step
    again = a_network()
    again_fitted = fit(again, some_images(), RECIPE, penalty=Spoilt(again.module[0].weight, good=99), run_dir=tmp_path)
    assert again_fitted.resumed_at == 2


def test_without_a_folder_it_says_that_nothing_was_saved() -> None:
    one = a_network()
    with pytest.raises(WorkFailed, match="loss is nan at step 4; no state was saved; try a smaller --lr or --strength"):
        fit(one, some_images(), RECIPE, penalty=Spoilt(one.module[0].weight))


def test_a_last_step_that_breaks_the_weights_is_no_result(tmp_path: Path) -> None:
    one = a_network()
    with pytest.raises(WorkFailed, match="0.weight is no longer finite; no state was saved"):
        fit(one, some_images(), RECIPE, penalty=Spoilt(one.module[0].weight, good=11), run_dir=tmp_path)
    assert not (tmp_path / "state.safetensors").exists()


def test_images_of_another_network_are_refused() -> None:
    with pytest.raises(BadInput, match=r"images are 3 x 6 x 6 .*; mine takes 2 x 6 x 6"):
        fit(a_network(), some_images(shape=(3, 6, 6)), RECIPE)
    with pytest.raises(BadInput, match=r"images are 2 x 6 x 7 "):
        fit(a_network(), some_images(shape=(2, 6, 7)), RECIPE)
    with pytest.raises(BadInput, match="some has 4 classes; mine knows 3"):
        fit(a_network(), replace(some_images(), classes=("a", "b", "c", "d")), RECIPE)


def test_a_shift_out_of_the_image_is_refused() -> None:
    side = some_images().shape[1]
    with pytest.raises(BadInput, match=f"shift {side} would move a whole image away; 0 to {side - 1} are legal"):
        fit(a_network(), some_images(), replace(RECIPE, shift=side))


# ---- the recipe


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 0}, "epochs 0 must be at least 1"),
        ({"batch": 0}, "batch 0 must be at least 1"),
        ({"shift": -1}, "shift -1 must be at least 0"),
        ({"optimiser": "lion"}, "optimiser 'lion' must be sgd or adam"),
        ({"lr": 0.0}, "lr 0.0 must be above 0"),
        ({"lr": math.nan}, "lr nan must be above 0"),
        ({"lr": 11.0}, "at most 10"),
        ({"weight_decay": -0.1}, r"weight_decay -0.1 must be in \[0, 1\)"),
        ({"warmup": 1.0}, r"warmup 1.0 must be in \[0, 1\)"),
        ({"smoothing": math.nan}, r"smoothing nan must be in \[0, 1\)"),
    ],
)
def test_what_no_recipe_is(change, reason) -> None:
    with pytest.raises(BadInput, match=reason):
        replace(RECIPE, **change)


def test_the_rate_rises_to_its_peak_and_falls_towards_0() -> None:
    rates = [Recipe(epochs=1, lr=1.0, warmup=0.2).lr_at(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 20
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 0.02
    assert Recipe(epochs=1, lr=1.0, warmup=0.0).lr_at(0, 1) == 1.0


def test_a_network_has_its_usual_recipe() -> None:
    assert recipe_of(NETS["lenet-5"], 2) == Recipe(2, 1e-3, "adam", 0.0, shift=0, flip=False)
    assert recipe_of(NETS["resnet20"], 2, lr=None, batch=64) == Recipe(2, 0.1, "sgd", 5e-4, 64, bf16=True)
    assert recipe_of(NETS["resnet20"], 2, optimiser="adam", lr=1e-3).weight_decay == 0
    assert recipe_of(NETS["lenet-5"], 2, shift=1).shift == 1
