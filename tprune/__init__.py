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

from tprune.registration import register_with_transformers

# public name -> (module, name there)
_PUBLIC = {
    "BadInput": ("tprune.errors", "BadInput"),
    "Checkpoint": ("tprune.checkpoint", "Checkpoint"),
    "Corpus": ("tprune.corpus", "Corpus"),
    "Plan": ("tprune.plan", "Plan"),
    "PrunedMarianConfig": ("tprune.config", "PrunedMarianConfig"),
    "PrunedMarianMTModel": ("tprune.marian", "PrunedMarianMTModel"),
    "WorkFailed": ("tprune.errors", "WorkFailed"),
    "analyse": ("tprune.bssl", "analyse"),
    "expand": ("tprune.surgery", "expand"),
    "load": ("tprune.checkpoint", "load"),
    "load_corpus": ("tprune.corpus", "load"),
    "prune": ("tprune.pruning", "prune"),
    "save": ("tprune.checkpoint", "save"),
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
