"""Compression of image networks: DeepHoyer, SVD training, PENNI and ESCALATE's quantisation.

    from tprune import cnn
    rest, held = cnn.load_images("cifar10", split="train").hold_out(5000)
    network = cnn.fresh("resnet20", rest)
    cnn.train(network, rest, cnn.Recipe(epochs=30), held=held)
    cnn.save(network, "dense")

The public names are imported on first use, so importing the package alone is cheap. Every module here that uses torch
first replaces an operator of torch whose kernel is broken on some processors: see `tprune.cnn.strided`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tprune.cnn.escalate import quantise as quantise
    from tprune.cnn.images import Images as Images
    from tprune.cnn.images import load as load_images  # noqa: F401
    from tprune.cnn.methods import DeepHoyer as DeepHoyer
    from tprune.cnn.methods import Penni as Penni
    from tprune.cnn.methods import Svd as Svd
    from tprune.cnn.network import Network as Network
    from tprune.cnn.network import fresh as fresh
    from tprune.cnn.network import load as load
    from tprune.cnn.network import save as save
    from tprune.cnn.pacing import pace as pace
    from tprune.cnn.score import evaluate as evaluate
    from tprune.cnn.settings import Compression as Compression
    from tprune.cnn.settings import Recipe as Recipe
    from tprune.cnn.sparsity import measure as measure
    from tprune.cnn.steps import compress as compress
    from tprune.cnn.steps import train as train
    from tprune.cnn.teacher import Teacher as Teacher

# public name -> (module, name there)
_PUBLIC = {
    "Compression": ("settings", "Compression"),
    "DeepHoyer": ("methods", "DeepHoyer"),
    "Images": ("images", "Images"),
    "Network": ("network", "Network"),
    "Penni": ("methods", "Penni"),
    "Recipe": ("settings", "Recipe"),
    "Svd": ("methods", "Svd"),
    "Teacher": ("teacher", "Teacher"),
    "compress": ("steps", "compress"),
    "evaluate": ("score", "evaluate"),
    "fresh": ("network", "fresh"),
    "load": ("network", "load"),
    "load_images": ("images", "load"),
    "measure": ("sparsity", "measure"),
    "pace": ("pacing", "pace"),
    "quantise": ("escalate", "quantise"),
    "save": ("network", "save"),
    "train": ("steps", "train"),
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the table above is the one list

if "torch" in sys.modules:  # nothing more to save: replace the broken operator at once
    import_module("tprune.cnn.strided")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tprune.cnn' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(f"tprune.cnn.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
