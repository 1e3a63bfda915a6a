"""Inputs that several verbs share: parallel text, a checkpoint, a callback for progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tprune.base.errors import BadInput
from tprune.base.threads import use_threads
from tprune.marian import folder

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint
    from tprune.marian.corpus import Corpus

Watch = Callable[[str, int, int, str], None]
"""watch(task, steps done, total steps, note)"""


def silent(task: str, done: int, total: int, note: str) -> None:
    """Show no progress."""


def with_loss(watch: Watch, name: str | None = None) -> Callable[[str, int, int, float], None]:
    """Return `watch` for a training that reports its loss: (phase, steps done, total steps, loss).

    With a `name`, that is the task, and the phase becomes part of the note.
    """
    if name is None:
        return lambda phase, done, total, loss: watch(phase, done, total, f"loss {loss:.3f}")
    return lambda phase, done, total, loss: watch(name, done, total, f"{phase}, loss {loss:.2f}")


@dataclass(frozen=True)
class Text:
    """One split of parallel text, in a form that `tprune.load_corpus` accepts; `source` and `target` are languages."""

    data: str
    source: str = "en"
    target: str = "de"
    split: str = "test"
    limit: int | None = None

    def load(self) -> Corpus:
        """Return the split, or its first `limit` sentences."""
        return self._load(self.split, self.limit)

    def whole(self, split: str | None = None) -> Corpus:
        """Return the whole split, or another one."""
        return self._load(split or self.split, None)

    def _load(self, split: str, limit: int | None) -> Corpus:
        from tprune.marian import corpus

        return corpus.load(self.data, split=split, source=self.source, target=self.target, limit=limit)


def open_model(model: str, *, threads: int | None = None) -> Checkpoint:
    """Load a checkpoint. A wrong folder or hub id is refused (BadInput) before torch is loaded."""
    folder.locate(model)
    if threads is not None:
        use_threads(threads)
    from tprune.marian.checkpoint import load

    return load(model)


def check_readable(what: str, path: Path | None) -> None:
    """Raise BadInput for a file that cannot be read; None is accepted."""
    try:
        if path is not None:
            path.open("rb").close()
    except OSError as error:
        raise BadInput(f"{what} {str(path)!r} cannot be read: {error.strerror}") from None
