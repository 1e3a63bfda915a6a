"""A tiny pruned Marian as an artefact of every runtime, for tests that run artefacts rather than make them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.conftest import SENTENCES, randomised
from tests.support.marians import random_plan
from tprune.export.graphs.precision import Precision
from tprune.export.marian.publish import ungated
from tprune.export.ort.export import to_onnx
from tprune.marian.checkpoint import Checkpoint
from tprune.marian.model import PrunedMarianMTModel
from tprune.pruning import surgery

MOST = 12  # target tokens, the start token included


def export(runtime: str, config: MarianConfig, tokenizer: Path, out: Path, *, int8: Collection[str] = ()) -> Path:
    """Write a randomly pruned Marian of that config to `out`; the test is skipped where `runtime` is not installed.

    `int8` names the components that are.
    """
    precision = Precision(frozenset(int8))
    whole = PrunedMarianMTModel.from_stock(MarianMTModel(config))
    model = randomised(surgery.cut(whole, random_plan(whole, seed=3)))
    model.final_logits_bias[0, config.pad_token_id] = 12.0  # it takes its share, and would often win
    model.generation_config.max_length = MOST
    checkpoint = Checkpoint(model, MarianTokenizer.from_pretrained(tokenizer), "0123456789abcdef", "tiny")
    if runtime == "executorch":
        pytest.importorskip("executorch")
        from tprune.export.et.export import to_executorch

        to_executorch(checkpoint, out, sentences=SENTENCES[:2], precision=precision, judge=ungated)
    else:
        to_onnx(checkpoint, out, sentences=SENTENCES[:2], precision=precision, judge=ungated)
    return out
