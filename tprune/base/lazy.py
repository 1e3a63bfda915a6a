"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, public: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package. `public` is name -> the module that defines it.

    Type checkers do not see these names: the package repeats them as imports under `TYPE_CHECKING`.
    """
    module = sys.modules[package]

    def find(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(public)}")
        value = getattr(import_module(public[name]), name)
        setattr(module, name, value)
        return value

    return find, lambda: sorted(public)
