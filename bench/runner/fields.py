"""`Fields`: a JSON object written by a device, checked field by field as it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fields:
    """A JSON object from a device. Reading a field that is missing or of the wrong type raises ValueError."""

    document: Any
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.document, dict):
            raise ValueError(f"{self.name} is no JSON object")

    def get(self, key: str) -> Any:
        return self.document.get(key)

    def _checked(self, key: str, legal: Callable[[Any], bool], what: str) -> Any:
        value = self.document.get(key)
        if not legal(value):
            raise ValueError(f"{self.name}.{key} is {one_line(repr(value))[:60]}, not {what}")
        return value

    def text(self, key: str) -> str:
        return str(self._checked(key, lambda value: isinstance(value, str), "a text"))

    def object(self, key: str) -> dict[str, Any]:
        return dict(self._checked(key, lambda value: isinstance(value, dict), "an object"))

    def integer(self, key: str) -> int:
        return int(self._checked(key, _is_integer, "a whole number"))

    def count(self, key: str, least: int = 0) -> int:
        return int(self._checked(key, lambda value: _is_integer(value) and value >= least, f"a number from {least}"))

    def counts(self, key: str, least: int = 0) -> list[int]:
        def legal(value: Any) -> bool:
            return isinstance(value, list) and all(_is_integer(item) and item >= least for item in value)

        return list(self._checked(key, legal, f"a list of numbers from {least}"))

    def share(self, key: str) -> float:
        def legal(value: Any) -> bool:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10_000

        return float(self._checked(key, legal, "a share"))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def one_line(words: object) -> str:
    """Return text from a device as one line of at most 300 characters, without control characters."""
    line = " ".join(str(words).split())[:300]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
