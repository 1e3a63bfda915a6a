"""Prune HuggingFace Marian translation models line by line, cut the matrices for real, and prove what it costs.

    import tprune
    dense = tprune.load("Helsinki-NLP/opus-mt-en-de")
    corpus = tprune.load_corpus("data/multi30k", split="train")

The public names are imported when they are first used; importing the package alone is cheap.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from tprune.marian.registration import register_with_transformers

# public name -> (module, name there)
_PUBLIC = {
    "BadInput": ("tprune.base.errors", "BadInput"),
    "Checkpoint": ("tprune.marian.checkpoint", "Checkpoint"),
    "Corpus": ("tprune.marian.corpus", "Corpus"),
    "Plan": ("tprune.pruning.plan", "Plan"),
    "PrunedMarianConfig": ("tprune.marian.config", "PrunedMarianConfig"),
    "PrunedMarianMTModel": ("tprune.marian.model", "PrunedMarianMTModel"),
    "WorkFailed": ("tprune.base.errors", "WorkFailed"),
    "analyse": ("tprune.pruning.bssl", "analyse"),
    "expand": ("tprune.pruning.surgery", "expand"),
    "load": ("tprune.marian.checkpoint", "load"),
    "load_corpus": ("tprune.marian.corpus", "load"),
    "prune": ("tprune.pruning.prune", "prune"),
    "save": ("tprune.marian.checkpoint", "save"),
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list

register_with_transformers()
for _name in ("torchao", "torch.utils._pytree"):  # transformers loads torchao, which tells what it was not built with
    logging.getLogger(_name).setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tprune' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)
