"""Packages that only some commands need: each belongs to an extra of tprune, such as `pip install 'tprune[demo]'`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tprune.base.errors import BadInput


def load(module: str, extra: str, purpose: str) -> Any:
    """Import and return an optional module. Raises BadInput, with what to install, when its package is missing."""
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise BadInput(f"{purpose} needs the package {package}: pip install 'tprune[{extra}]'") from None
