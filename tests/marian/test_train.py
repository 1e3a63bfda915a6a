"""Training can be killed at any moment and ends with the same bits; what cannot go on stops and says so."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open

import tprune.base.state
from tests.support.command import small_disk
from tests.support.marians import random_plan, stock
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.hoyer import group_hoyer_square
from tprune.base.state import Progress, load_state, save_state
from tprune.marian.corpus import Pairs
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.train import LOOK_EVERY, Recipe, Regulariser, Trained, train
from tprune.pruning.penalty import Decoupled
from tprune.pruning.surgery import cut

RECIPE = Recipe(steps=16, lr=1e-2, warmup=2, tokens=40, dropout=0.2, seed=5, save_every=5)


def model_for(config) -> PrunedMarianMTModel:
    return PrunedMarianMTModel.from_stock(stock(config, 3))


@pytest.fixture
def model(tiny_config) -> PrunedMarianMTModel:
    return model_for(tiny_config())


def some_pairs(count: int = 24) -> Pairs:
    chance = random.Random(0)
    rows = [[[chance.randrange(2, 100) for _ in range(chance.randint(2, 6))] + [0] for _ in range(count)] for _ in "st"]
    return Pairs(*rows)


def regulariser(model: PrunedMarianMTModel) -> Regulariser:
    """SHS whose strength grows with the steps."""
    press = Decoupled(model, group_hoyer_square)
    return Regulariser(1e-2, press, adjust=lambda step, strength: strength * 1.1, name="test")


def run(model: PrunedMarianMTModel, run_dir: Path | None = None, recipe: Recipe = RECIPE, **options) -> Trained:
    return train(model, some_pairs(), recipe, regulariser=regulariser(model), run_dir=run_dir, **options)


def resume(model: PrunedMarianMTModel, folder: Path) -> tuple[Trained, int]:
    """Train on from the state in `folder`; return the result and the steps that were done before."""
    steps: list[int] = []
    done = run(model, folder, watch=lambda step, *_: steps.append(step))
    return done, RECIPE.steps - len(steps)


def check_identical(ours: PrunedMarianMTModel, theirs: PrunedMarianMTModel) -> None:
    other = theirs.state_dict()
    assert [name for name, tensor in ours.state_dict().items() if not torch.equal(tensor, other[name])] == []


def step_of(folder: Path) -> int:
    import json

    with safe_open(folder / "state.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["state"])["step"]


# ---- the same result


def test_training_learns_and_repeats(model, tiny_config) -> None:
    start = model_for(tiny_config())
    first = run(model)
    again = model_for(tiny_config())
    assert run(again).losses == first.losses
    check_identical(model, again)
    assert [step for step, _ in first.losses] == list(range(16))
    assert first.strength == pytest.approx(1e-2 * 1.1 ** len(range(0, 16, LOOK_EVERY)))
    assert not torch.equal(model.model.shared.weight, start.model.shared.weight)
    assert not model.training
    longer = train(model_for(tiny_config()), some_pairs(), replace(RECIPE, steps=60, dropout=0.0))
    losses = [loss for _, loss in longer.losses]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_seed_decides(model, tiny_config) -> None:
    assert run(model).losses != run(model_for(tiny_config()), recipe=replace(RECIPE, seed=6)).losses


KILLED = """
import sys, time
from pathlib import Path
from tests import conftest
from tests.marian.test_train import RECIPE, model_for, regulariser, some_pairs
from tprune.marian.train import train

def watch(done, total, loss):
    print(done, flush=True)
    time.sleep(60 if done == 12 else 0)  # so that the kill comes after step 12, whose state is not saved

model = model_for(conftest._config())
train(model, some_pairs(), RECIPE, regulariser=regulariser(model), run_dir=Path(sys.argv[1]), watch=watch)
"""


def test_kill_9_and_resume_give_the_same_bits(model, tiny_config, tmp_path: Path) -> None:
    unbroken = run(model)
    paths = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "12":
                process.kill()
        assert process.wait() == -signal.SIGKILL
    assert step_of(tmp_path) == 10
    resumed_model = model_for(tiny_config())
    resumed, before = resume(resumed_model, tmp_path)
    assert before == 10
    assert resumed.losses == unbroken.losses
    assert resumed.strength == unbroken.strength
    check_identical(resumed_model, model)


def test_a_finished_run_is_not_trained_again(model, tiny_config, tmp_path: Path) -> None:
    first = run(model, tmp_path)
    again = model_for(tiny_config())
    second, before = resume(again, tmp_path)
    assert (before, second.losses) == (16, first.losses)
    check_identical(again, model)


@pytest.mark.parametrize("kind", ["no cross-attention", "nothing", "random"])
def test_cut_models_train_save_and_resume(model, tmp_path: Path, kind: str) -> None:
    """Without cross-attention no gradient reaches the encoder, and Adam has no moments for it."""
    small = cut(model, random_plan(model, 1, kind))
    unbroken, halted, resumed = (cut(small, random_plan(small, 0, "everything")) for _ in range(3))
    run(unbroken)
    with pytest.raises(KeyboardInterrupt, match="step 12"):
        train(halted, some_pairs(), RECIPE, regulariser=regulariser(halted), run_dir=tmp_path, watch=interrupt)
    assert resume(resumed, tmp_path)[1] == 10
    check_identical(resumed, unbroken)


def interrupt(done: int, total: int, loss: float) -> None:
    if done == 12:
        raise KeyboardInterrupt("step 12")


def test_untied_embeddings_train_and_save(tiny_config, tmp_path: Path) -> None:
    """Untied, `model.shared` is read by nobody: it has no gradient and no moments."""
    run(model_for(tiny_config(tie_word_embeddings=False)), tmp_path)
    assert resume(model_for(tiny_config(tie_word_embeddings=False)), tmp_path)[1] == 16


def test_distillation_runs(model, tiny_config) -> None:
    teacher = model_for(tiny_config())
    before = teacher.model.shared.weight.clone()
    train(model, some_pairs(), replace(RECIPE, steps=2), teacher=teacher)
    assert torch.equal(teacher.model.shared.weight, before)


# ---- saving


def state_of(model: PrunedMarianMTModel) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser


def test_kill_9_during_saving_keeps_the_old_state(model, tmp_path: Path) -> None:
    optimiser, path = state_of(model), tmp_path / "state.safetensors"
    save_state(path, model, optimiser, Progress(3, 0.5, ((0, 1.0),)), run={"epochs": 1})
    child = os.fork()
    if not child:
        die_half_way(path, model, optimiser)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors", "state.safetensors.part"]
    assert load_state(path, model, optimiser, run={"epochs": 1}) == Progress(3, 0.5, ((0, 1.0),))
    save_state(path, model, optimiser, Progress(4, 0.5, ()), run={"epochs": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    assert step_of(tmp_path) == 4


def die_half_way(path: Path, model: PrunedMarianMTModel, optimiser: torch.optim.Optimizer) -> None:
    """In a child process: save, but be killed when half of the bytes are on disk."""
    whole = tprune.base.state.save_file

    def half(tensors: dict, target: Path, metadata: dict) -> None:
        whole(tensors, target, metadata)
        os.truncate(target, target.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    tprune.base.state.save_file = half
    try:
        save_state(path, model, optimiser, Progress(4, 0.5, ()), run={"epochs": 1})
    finally:
        os._exit(1)


def test_the_state_holds_moments_and_no_pickle(model, tmp_path: Path) -> None:
    run(model, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {"weight.model.shared.weight", "exp_avg.model.shared.weight", "exp_avg_sq.model.shared.weight"} <= names


def test_a_full_disk_keeps_the_old_state(model, tiny_config, tmp_path: Path) -> None:
    complaint = r"training state '.*' cannot be written \(.*[Nn]o space left.*run again to cont"
    with small_disk(tmp_path / "disk", "256k") as disk:
        with pytest.raises(WorkFailed, match=complaint):
            run(model, disk)
        assert [p.name for p in disk.iterdir()] == ["state.safetensors"]
        assert step_of(disk) == 5


# ---- what cannot go on


def poison(model: PrunedMarianMTModel) -> None:
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.weight[0, 0] = torch.nan


def test_a_broken_weight_stops_at_once(model) -> None:
    poison(model)
    with pytest.raises(WorkFailed, match="loss is nan at step 1; no state was saved; try a smaller --lr or --strength"):
        run(model)


def test_nan_in_mid_run_keeps_the_last_good_state(model, tiny_config, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"loss is nan at step 12; the last good state is kept in '.*'; try a smaller"):
        run(model, tmp_path, watch=lambda done, *_: poison(model) if done == 11 else None)
    assert step_of(tmp_path) == 10
    good, unbroken = model_for(tiny_config()), model_for(tiny_config())
    assert resume(good, tmp_path)[1] == 10
    run(unbroken)
    check_identical(good, unbroken)


def other_data() -> Pairs:
    pairs = some_pairs(200)
    pairs.target[150][0] += 1
    return pairs


@pytest.mark.parametrize(
    ("pairs", "recipe", "name", "differs"),
    [
        (some_pairs(200), replace(RECIPE, lr=2e-2), "test", "lr is 0.02"),
        (other_data(), RECIPE, "test", "data is [0-9a-f]{16}"),
        (some_pairs(200), RECIPE, "another penalty", r"penalty is .'another penalty', 0.001."),
    ],
)
def test_the_folder_of_another_run(model, tiny_config, tmp_path: Path, pairs, recipe, name: str, differs: str) -> None:
    asked = Regulariser(1e-3, Decoupled(model, group_hoyer_square), name="test")
    with pytest.raises(KeyboardInterrupt, match="step 12"):
        train(model, some_pairs(200), RECIPE, regulariser=asked, run_dir=tmp_path, watch=interrupt)
    with pytest.raises(
        BadInput, match=f"belongs to another run .{differs} and was .*; to continue that run, use the same settings"
    ):
        train(
            model_for(tiny_config()),
            pairs,
            recipe,
            regulariser=replace(asked, name=name),
            run_dir=tmp_path,
        )


def test_other_start_weights(model, tiny_config, tmp_path: Path) -> None:
    run(model, tmp_path)
    other = model_for(tiny_config())
    with torch.no_grad():
        other.model.decoder.layers[1].fc2.bias[0] += 1e-3
    with pytest.raises(BadInput, match="belongs to another run .start weights is [0-9a-f]{16} and was"):
        run(other, tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "text", "foreign"])
def test_a_damaged_state(model, tiny_config, tmp_path: Path, damage: str) -> None:
    run(model, tmp_path)
    path = tmp_path / "state.safetensors"
    data = path.read_bytes()
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    else:
        broken = {
            "empty": b"",
            "cut": data[: len(data) // 2],
            "header": b"\xff" * 16 + data[16:],
            "text": b"no state\n",
        }
        path.write_bytes(broken[damage])
    with pytest.raises(
        BadInput, match=r"training state '.*state.safetensors' is damaged \(.*\); remove it to start aga"
    ):
        run(model_for(tiny_config()), tmp_path)


def test_a_state_of_an_older_version(model, tiny_config, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "state.safetensors", {"state": json.dumps({"key": "abc", "step": 3})})
    with pytest.raises(BadInput, match=r"state.safetensors' was written by an older tprune; remove it to start again"):
        run(model_for(tiny_config()), tmp_path)


def test_nothing_to_train_on(model) -> None:
    with pytest.raises(BadInput, match="nothing to train on: the corpus has no sentence pairs"):
        train(model, Pairs([], []), RECIPE)


# ---- the recipe


def test_the_learning_rate_by_hand() -> None:
    recipe = Recipe(steps=10, lr=0.5, warmup=4)
    rates = [recipe.lr_at(step) for step in range(11)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[4:] == pytest.approx([0.5 * left / 6 for left in (6, 5, 4, 3, 2, 1, 0)])
    constant = replace(recipe, final_lr_share=1.0)
    assert {constant.lr_at(step) for step in range(4, 10)} == {0.5}
    assert Recipe(steps=1, warmup=0, lr=0.5).lr_at(0) == 0.5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": 0}, "Recipe.steps: 0 must be at least 1"),
        ({"tokens": 0}, "Recipe.tokens: 0 must be at least 1"),
        ({"save_every": 0}, "Recipe.save_every: 0 must be at least 1"),
        ({"save_every": 7}, "Recipe.save_every: 7 must be a multiple of 5"),
        ({"lr": 0.0}, "Recipe.lr: 0.0 must lie between 0 and 1"),
        ({"lr": float("nan")}, "Recipe.lr: nan must lie between 0 and 1"),
        ({"smoothing": 1.0}, r"Recipe.smoothing: 1.0 must lie in \[0, 1\)"),
        ({"dropout": -0.1}, r"Recipe.dropout: -0.1 must lie in \[0, 1\)"),
    ],
)
def test_an_impossible_recipe(changes: dict, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        replace(RECIPE, **changes)


def test_an_accelerator_of_another_precision_in_this_process_is_no_matter(model, monkeypatch):
    """Accelerate holds one precision for a process; training an image network before must not decide ours."""
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(cpu=True)
    monkeypatch.setattr("tprune.marian.train.bf16_is_faster", lambda work: True)
    assert len(run(model).losses) == RECIPE.steps
