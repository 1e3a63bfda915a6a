"""A criterion is one row of a table: added from outside, it is in `--help`, the checks, a pruning, and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from torch import Tensor
from transformers import MarianTokenizer

from tests.conftest import SENTENCES
from tests.support import runs
from tests.support.marians import stock
from tprune.base.errors import BadInput
from tprune.bench.report.report import report
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.corpus import Corpus
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning.criteria import CRITERIA, Criterion
from tprune.pruning.prune import prune
from tprune.pruning.scores import Evidence, LineScores
from tprune.pruning.settings import Settings
from tprune.pruning.sites import sites

MINE = Criterion(f"{__name__}:first_lines", penalty=f"{__name__}:squares")


def first_lines(model: PrunedMarianMTModel, evidence: Evidence) -> LineScores:
    """Score lines by their place: the first ones stay."""
    import torch

    return {site.name: -torch.arange(float(site.lines)) for site in sites(model)}


def squares(weights: Tensor) -> Tensor:
    return weights.sum()


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "mine", MINE)


def test_it_is_in_the_help() -> None:
    code = (
        "from tprune.pruning.criteria import CRITERIA, Criterion\n"
        "CRITERIA['mine'] = Criterion('nowhere:nothing')\n"
        "from tprune.cli.main import app\n"
        "app(['prune', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "shs, group-lasso, magnitude, taylor, random or mine" in " ".join(done.stdout.split())


@pytest.mark.parametrize("steps", [0, 7])
def test_it_prunes(tiny_config, tiny_tokenizer_folder: Path, steps: int) -> None:
    """Without steps by its scores, with steps under its penalty."""
    model = PrunedMarianMTModel.from_stock(stock(tiny_config()))
    dense = Checkpoint(model, MarianTokenizer.from_pretrained(str(tiny_tokenizer_folder)), "0123456789abcdef", "tiny")
    corpus = Corpus(SENTENCES[:6], SENTENCES[6:], name="captions", split="train")
    small = prune(dense, corpus, criterion="mine", keep=0.5, steps=steps, finetune_steps=0, round_to=2, tokens=200)
    assert small.facts["criterion"] == "mine"
    assert ("last_strength" in small.facts) == bool(steps)
    if not steps:
        kept = [lines for lines in small.plan.ffn.values() if lines]
        assert kept and all(lines == tuple(range(len(lines))) for lines in kept)


def test_a_name_that_is_none_is_refused_with_it_among_the_legal_ones() -> None:
    with pytest.raises(BadInput, match="must be one of shs, group-lasso, magnitude, taylor, random, mine"):
        Settings(criterion="luck")


def test_it_is_in_the_report_and_in_the_legend_of_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    draw = Figure.legend

    def spy(figure: Figure, *args: object, **options: object) -> object:
        labels.extend(label for axes in figure.axes for label in axes.get_legend_handles_labels()[1])
        return draw(figure, *args, **options)

    monkeypatch.setattr(Figure, "legend", spy)
    half = runs.model("half", "mine", 0.5)
    records = [runs.timed(of, block, ms) for block in (0, 1) for of, ms in ((runs.DENSE, [10, 30]), (half, [5, 15]))]
    runs.write(tmp_path / "runs", [runs.quality(runs.DENSE, 40.0), runs.quality(half, 39.0)], records)
    report([tmp_path / "runs"], tmp_path / "report")
    assert "mine" in labels
    rows = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["rows"]
    assert [row["criterion"] for row in rows] == ["dense", "mine"]
    assert "mine" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
