"""What the command line shows a person: progress bars, tables and one-line errors on stderr, one JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

talk = Console(stderr=True)


def answer(
    document: Mapping[str, Any], *, as_json: bool, lines: Sequence[str] = (), table: RenderableType | None = None
) -> None:
    """Give a verb's result: one JSON object on stdout with `--json`, else a table and `lines` for a person."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    screen = Console()
    if table is not None:
        screen.print(table)
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=True, markup=False)


@contextlib.contextmanager
def bar() -> Iterator[Callable[[str, int, int, str], None]]:
    """Yield `show(task, done, total, note)`: one progress line a task, on a terminal only."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=talk, disable=not talk.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = progress.add_task(task, total=total, note=note)
            progress.update(tasks[task], completed=done, total=total, note=note)

        yield show
