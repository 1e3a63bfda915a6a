"""Compression of image networks: DeepHoyer, SVD training, PENNI and ESCALATE's quantisation.

    from tprune import cnn
    rest, held = cnn.load_images("cifar10", split="train").hold_out(5000)
    network = cnn.fresh("resnet20", rest)
    cnn.train(network, rest, held=held, epochs=30)
    cnn.save(network, "dense")

The public names are imported on first use, so importing the package alone is cheap. Every module here that uses torch
first replaces an operator of torch whose kernel is broken on some processors: see `tprune.cnn.strided`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tprune.cnn.escalate import quantise
    from tprune.cnn.images import Images
    from tprune.cnn.images import load as load_images
    from tprune.cnn.methods import DeepHoyer, Penni, Svd
    from tprune.cnn.network import Network, fresh, load, save
    from tprune.cnn.pacing import pace
    from tprune.cnn.score import evaluate
    from tprune.cnn.settings import Compression, Recipe
    from tprune.cnn.sparsity import measure
    from tprune.cnn.steps import compress, train
    from tprune.cnn.teacher import Teacher

__all__ = [  # of the modules above
    "Compression", "DeepHoyer", "Images", "Network", "Penni", "Recipe", "Svd", "Teacher", "compress", "evaluate",
    "fresh", "load", "load_images", "measure", "pace", "quantise", "save", "train",
]  # fmt: skip
_HOMES = {
    "escalate": ("quantise",), "images": ("Images",), "methods": ("DeepHoyer", "Penni", "Svd"),
    "network": ("Network", "fresh", "load", "save"), "pacing": ("pace",), "score": ("evaluate",),
    "settings": ("Compression", "Recipe"), "sparsity": ("measure",), "steps": ("compress", "train"),
    "teacher": ("Teacher",),
}  # fmt: skip
_PUBLIC = {name: (module, name) for module, names in _HOMES.items() for name in names} | {
    "load_images": ("images", "load")
}

if "torch" in sys.modules:  # nothing more to save: replace the broken operator at once
    import_module("tprune.cnn.strided")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tprune.cnn' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(f"tprune.cnn.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
