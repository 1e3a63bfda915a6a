"""Settings as keyword arguments: `chosen(Settings, settings, {"keep": 0.5})`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


def chosen(kind: type[T], settings: T | None, changes: Mapping[str, Any], *, make: Callable[..., T] | None = None) -> T:
    """Return `settings` with `changes`, or without `settings` what `make` (default: `kind`) returns for them.

    `kind` is a dataclass. Raises TypeError, which lists the legal names, for an unknown name.
    """
    legal = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in changes if name not in legal]:
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}; legal are {', '.join(legal)}")
    if settings is None:
        return (make or kind)(**changes)
    return replace(settings, **changes)  # type: ignore[type-var]
