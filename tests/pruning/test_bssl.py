"""BSSL on a tiny random model: what is penalised, how lines die, and that a killed analysis continues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import MarianTokenizer

from tprune.base.errors import BadInput
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.allocate import allocate
from tprune.pruning.bssl import MATRICES, Job, Shrink, Target, analyse, jobs, targets
from tprune.pruning.sensitivity import Sensitivity
from tprune.pruning.settings import AnalysisSettings
from tprune.pruning.sites import sites
from tprune.pruning.surgery import cut

SMALL = AnalysisSettings(strengths=(0.5, 4.0), steps=4, lr=1e-3, block_types=("q", "fc2", "all"), tokens=64)
EMPTY_ROW = {
    "block_type": "dense", "direction": "paper", "strength": 0, "unit": 0, "dev_loss": 1, "dev_loss_zeroed": 1,
    "bleu": None, "blocks": [],
}  # fmt: skip


@pytest.fixture
def checkpoint(tiny_model, tiny_tokenizer_folder) -> Checkpoint:
    model = PrunedMarianMTModel.from_stock(tiny_model)
    return Checkpoint(model, MarianTokenizer.from_pretrained(tiny_tokenizer_folder), "ab" * 8, "tiny")


@pytest.fixture
def corpus() -> Corpus:
    source = ("A man in a blue shirt.", "Two young boys play football.", "The dog runs.", "A woman reads a book.")
    target = ("Ein Mann in einem Hemd.", "Zwei Jungen spielen Fußball.", "Der Hund läuft.", "Eine Frau liest.")
    return Corpus(source, target, name="tiny", split="train", language="de")


def test_jobs_are_the_baselines_then_every_type():
    assert jobs(AnalysisSettings(strengths=(1.0, 2.0, 3.0), block_types=("q",))) == [
        Job("dense"), Job("none"),
        Job("q", "paper", 1.0), Job("q", "paper", 2.0), Job("q", "paper", 3.0), Job("q", "opposite", 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", MATRICES)
def test_targets_are_the_matrices_of_one_type(checkpoint, kind):
    """2 + 2 layers: attention types stand in 2 + 2 * 2 places, feed-forward ones in 4."""
    found = targets(checkpoint.model, kind, "paper")
    assert len(found) == (4 if kind.startswith("fc") else 6)
    lines = {target.weight.shape[target.dim] for target in found}
    assert lines == {32 if kind.startswith("fc") else 16}
    assert all(name.rpartition(".")[2] == kind for name, *_ in found)
    assert {t.dim for t in targets(checkpoint.model, kind, "opposite")} == {1 - found[0].dim}


def test_all_types_are_everything(checkpoint):
    assert len(targets(checkpoint.model, "all", "paper")) == 4 * 6 + 2 * 4
    assert targets(checkpoint.model, "none", "paper") == []


def test_shrink_is_the_proximal_step():
    """Against the definition: the minimiser of |x - w|^2 d / (2 lr) + strength |x|, searched along the ray of w."""
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    optimiser = after_one_step(weight, gradients=torch.tensor([[0.5, -0.5], [1.0, 1.0]]), lr=0.4)
    before = weight.detach().clone()
    shrink = Shrink([target_of(weight)])
    shrink.look(optimiser)
    shrink(2.0)
    for line, w, d in zip(weight.detach(), before, (0.5, 1.0), strict=True):
        scales = torch.linspace(0, 1, 10_001)[:, None]
        costs = ((scales * w - w).square().sum(1) * d / (2 * 0.4)) + 2.0 * (scales * w).norm(dim=1)
        assert torch.allclose(line, scales[costs.argmin()] * w, atol=1e-3)
    assert weight[1].count_nonzero() == 0  # its norm is less than 0.4 * 2 / 1


def test_unit_pays_for_the_median_line():
    weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [2.0, 0.0], [9.0, 0.0]]))
    shrink = Shrink([target_of(weight)])
    shrink.look(after_one_step(weight, gradients=torch.full((3, 2), 0.5), lr=1e-9))
    shrink(0.0)
    assert shrink.unit() == pytest.approx(2.0 * 0.5 / 1e-9)


def after_one_step(weight: torch.nn.Parameter, *, gradients: torch.Tensor, lr: float) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW([weight], lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    weight.grad = gradients
    optimiser.step()
    return optimiser


def target_of(weight):
    return Target("encoder.layers.0.self_attn.q", weight, 0, 1.0)


def test_analysis_of_a_tiny_model(checkpoint, corpus, tmp_path: Path):
    weights = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    seen = []
    found = analyse(checkpoint, corpus, SMALL, dev=corpus, out=tmp_path, watch=lambda *args: seen.append(args))
    assert [row.block_type for row in found.rows[:3]] == ["dense", "none", "q"]
    assert found.unpenalised.unit > 0
    for kind, lines in (("q", 6 * 16), ("fc2", 4 * 32)):
        low, high = found.runs(types=[kind])
        assert sum(block.lines for block in low.blocks) == lines
        assert low.dead_share < high.dead_share
        assert high.dead_share > 0.5
    assert fc2_only(found)
    assert seen[-1][1] == seen[-1][2] == 4 * (1 + 3 * 3)
    assert Sensitivity.read(tmp_path) == found
    assert (tmp_path / "heatmap.png").is_file()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in checkpoint.model.state_dict().items())


def fc2_only(found: Sensitivity) -> bool:
    return all(block.name.endswith(".ffn.fc2") for row in found.runs(types=["fc2"]) for block in row.blocks)


def test_killed_analysis_continues(checkpoint, corpus, tmp_path: Path):
    some = AnalysisSettings(strengths=(2.0,), steps=3, block_types=("q", "o"), tokens=64, bleu_sentences=2)
    whole = analyse(checkpoint, corpus, some, dev=corpus, out=tmp_path / "whole")
    assert whole.dense.bleu is not None

    def die(label: str, done: int, total: int, loss: float) -> None:
        if label == "o paper 2":
            raise KeyboardInterrupt(label)

    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt, match="o paper 2"):
        analyse(checkpoint, corpus, some, dev=corpus, out=out, watch=die)
    assert not (out / "sensitivity.json").exists()
    with (out / "runs.jsonl").open("a") as journal:
        journal.write('{"fingerprint": "to')  # a line that a kill tore
    seen: list[str] = []
    again = analyse(checkpoint, corpus, some, dev=corpus, out=out, watch=lambda label, *_: seen.append(label))
    assert set(seen) == {"o paper 2", "o opposite 2"}
    assert again == whole
    assert (out / "runs.jsonl").read_bytes() == (tmp_path / "whole" / "runs.jsonl").read_bytes()


def test_runs_of_another_analysis_are_refused(checkpoint, corpus, tmp_path: Path):
    (tmp_path / "runs.jsonl").write_text(json.dumps({"fingerprint": "0" * 16, **EMPTY_ROW}) + "\n")
    with pytest.raises(BadInput, match="runs of another analysis"):
        analyse(checkpoint, corpus, SMALL, dev=corpus, out=tmp_path)


def test_foreign_line_is_refused(checkpoint, corpus, tmp_path: Path):
    (tmp_path / "runs.jsonl").write_text("hello\n")
    with pytest.raises(BadInput, match="line 1 is no run of an analysis"):
        analyse(checkpoint, corpus, SMALL, dev=corpus, out=tmp_path)


def test_folder_of_something_else_is_refused(checkpoint, corpus, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not empty"):
        analyse(checkpoint, corpus, SMALL, dev=corpus, out=tmp_path)


def test_several_processes_are_refused(checkpoint, corpus, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="WORLD_SIZE 2"):
        analyse(checkpoint, corpus, SMALL, dev=corpus, out=tmp_path)


def test_empty_sub_blocks_are_left_out(checkpoint):
    model = checkpoint.model
    scores = {site.name: torch.rand(site.lines) + 1 for site in sites(model)}
    scores["encoder.layers.0.ffn"].zero_()
    small = cut(model, allocate(model, scores, keep=0.8, round_to=4))
    assert {t.name for t in targets(small, "fc1", "paper")} == {
        f"{side}.layers.{i}.ffn.fc1" for side, i in (("encoder", 1), ("decoder", 0), ("decoder", 1))
    }


def test_quick_settings_can_be_changed():
    assert AnalysisSettings.quick().steps < AnalysisSettings().steps
    assert AnalysisSettings.quick(steps=7, strengths=(1.0,)) == AnalysisSettings.quick(strengths=(1.0,), steps=7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strengths": ()}, "must be above 0 and rising"),
        ({"strengths": (1.0, 0.5)}, "must be above 0 and rising"),
        ({"strengths": (0.0, 0.5)}, "must be above 0 and rising"),
        ({"block_types": ("w",)}, "one or more of q, k, v, o, fc1, fc2, all"),
        ({"block_types": ("q", "q")}, "each once"),
        ({"directions": ("opposite",)}, "paper's direction must be among"),
        ({"directions": ("sideways",)}, "one or more of paper, opposite"),
        ({"steps": 0}, "steps: 0 must be at least 1"),
        ({"limit": 0}, "limit: 0 must be at least 1"),
        ({"threshold": 1.0}, "threshold: 1 must lie between"),
        ({"lr": 0.0}, "lr: 0 must lie between"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(BadInput, match=message):
        AnalysisSettings(**change)
