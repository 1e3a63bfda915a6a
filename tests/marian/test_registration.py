"""`import tprune` is cheap, and afterwards transformers knows the pruned Marian whichever is imported first."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from tests.support.marians import random_plan, stock
from tprune.marian.config import PrunedMarianConfig
from tprune.marian.model import PrunedMarianMTModel
from tprune.marian.registration import AUTO, _Waiting, register_with_transformers
from tprune.pruning.surgery import cut

FIRST_TPRUNE = """
import importlib.util, sys
import tprune
tprune.marian.registration.register_with_transformers()
assert not {"torch", "transformers"} & set(sys.modules), "importing tprune must stay cheap"
assert sum("_Waiting" in type(finder).__name__ for finder in sys.meta_path) == 1
assert importlib.util.find_spec("transformers.models.auto.modeling_auto")  # a look alone must not use the hook up
from transformers import AutoModelForSeq2SeqLM
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
assert not [finder for finder in sys.meta_path if "_Waiting" in type(finder).__name__]
print(type(model).__name__, model.config.encoder_sizes[0]["ffn"])
"""


def pruned_folder(tiny_config, tmp_path: Path) -> tuple[PrunedMarianMTModel, Path]:
    big = PrunedMarianMTModel.from_stock(stock(tiny_config()))
    small = cut(big, random_plan(big, 2))
    small.save_pretrained(tmp_path / "pruned")
    return small, tmp_path / "pruned"


def test_tprune_first(tiny_config, tmp_path: Path) -> None:
    small, folder = pruned_folder(tiny_config, tmp_path)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", FIRST_TPRUNE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PrunedMarianMTModel", str(small.config.encoder_sizes[0]["ffn"])]


def test_transformers_first(tiny_config, tmp_path: Path) -> None:
    assert AUTO in sys.modules
    for _ in range(2):  # twice is as good as once
        register_with_transformers()
    assert not [finder for finder in sys.meta_path if isinstance(finder, _Waiting)]
    small, folder = pruned_folder(tiny_config, tmp_path)
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is PrunedMarianConfig
    assert config.decoder_sizes == small.config.decoder_sizes
    assert type(AutoModelForSeq2SeqLM.from_pretrained(folder)) is PrunedMarianMTModel


def test_the_finder_leaves_other_modules_alone() -> None:
    assert _Waiting().find_spec("json", None) is None
    assert importlib.util.find_spec("json") is not None


@pytest.mark.parametrize("first", ["tprune.marian.model", "tprune.marian.checkpoint", "tprune.marian.quality"])
def test_every_module_can_be_the_first_that_loads_transformers(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {first}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
