"""Settings as keyword arguments: `chosen(Settings, settings, {"keep": 0.5})`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


def chosen(kind: Callable[..., T], settings: T | None, changes: Mapping[str, Any], *, of: Any = None) -> T:
    """Return `settings` (default: what `kind` makes) with `changes`; `kind` is a settings dataclass.

    `of` is the dataclass where `kind` is a function that makes one. Raises TypeError, which lists the legal names, for
    an unknown name.
    """
    legal = [field.name for field in fields(of or kind)]
    if unknown := [name for name in changes if name not in legal]:
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}; settings are {', '.join(legal)}")
    return kind(**changes) if settings is None else replace(settings, **changes)  # type: ignore[type-var]
