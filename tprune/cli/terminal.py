"""What the command line shows a person: progress bars, tables and one-line errors on stderr, one JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError

from tprune.base import busy, processor
from tprune.base.errors import BadInput, Caution, WorkFailed
from tprune.base.signals import as_interrupts

talk = Console(stderr=True)
LOG_EVERY = 10.0  # seconds from one line of progress to the next, where there is no terminal
# A wrong call, in click's words. Newer typers bring their own copy of click; only its leaves have public names.
UsageError: Any = typer.BadParameter.__bases__[0]
WIDE = 120  # characters of a line that goes to a file or another program
INTERRUPTED = 130  # what a newer typer returns for Ctrl-C instead of raising


def answer(
    document: Mapping[str, Any], *, as_json: bool, lines: Sequence[str] = (), table: RenderableType | None = None
) -> None:
    """Give a verb's result: one JSON object on stdout with `--json`, else a table and `lines` for a person."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    screen = Console() if sys.stdout.isatty() else Console(width=WIDE)
    if table is not None:
        screen.print(table)
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=True, markup=False)


def warn(message: str) -> None:
    """Say on stderr what does not stop the work, but decides what its result is worth."""
    talk.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)


class Log:
    """Progress in plain lines: one every `LOG_EVERY` seconds at most, none for what is over sooner."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.restart()

    def restart(self) -> None:
        """Forget the tasks: others of the same names follow."""
        self._task, self._began = "", self._clock()

    def line(self, task: str, done: int, total: int, note: str = "") -> str | None:
        """Return the line to print now, None where none is due."""
        now = self._clock()
        if self._task and task != self._task:
            self._began = now  # one task follows the other
        self._task = task
        if now - self._last < LOG_EVERY or not total / 50 <= done < total:  # the first steps are slow
            return None
        self._last = now
        left = duration((total - done) * (now - self._began) / done)
        return f"{task}: {done} of {total}, {left} left{', ' if note else ''}{note}"


_log: Log | None = None


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """In the block, print progress as plain lines where stderr is no terminal."""
    global _log  # noqa: PLW0603 - one process has one stderr
    _log = None if talk.is_terminal else Log()
    try:
        yield
    finally:
        _log = None


def duration(seconds: float) -> str:
    """Return a time for a person: `about 50 s`, `about 3 min`."""
    return f"about {max(5, 5 * round(seconds / 5))} s" if seconds < 100 else f"about {round(seconds / 60)} min"


def warn_if_busy() -> None:
    """Warn when other programs leave less than half of the CPUs that this process may use."""
    taken, allowed, usable = busy.busy_cpus(), processor.allowed_cpus(), processor.usable_cpus()
    if taken is not None and allowed - taken < usable / 2:
        warn(
            f"other programs keep {taken:.1f} of {allowed} CPUs busy: this takes several times as long as on a quiet "
            "machine, and speeds that are measured now are worth little"
        )


@contextlib.contextmanager
def bar() -> Iterator[Callable[[str, int, int, str], None]]:
    """Yield `show(task, done, total, note)`: one progress line a task on a terminal, else lines if `logged`."""
    if _log:
        _log.restart()
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=talk, disable=not talk.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(task: str, done: int, total: int, note: str = "") -> None:
            if _log and (line := _log.line(task, done, total, note)):
                talk.print(line, highlight=False, markup=False, soft_wrap=True)
            if task not in tasks:
                tasks[task] = progress.add_task(task, total=total, note=note)
            progress.update(tasks[task], completed=done, total=total, note=note)

        yield show


@contextlib.contextmanager
def cautions() -> Iterator[None]:
    """In the block, let `warnings.warn(..., Caution)` of the library be one line on stderr, as `warn` writes it."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, Caution):
            warn(str(message))
        else:
            others(message, category, *rest, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = others


def run(app: Callable[..., object]) -> None:
    """Run the command line; every failure that is not a bug is one line on stderr and an exit code."""
    try:
        with cautions(), as_interrupts():
            call(app)
    except (KeyboardInterrupt, typer.Abort):
        fail(1, "interrupted; give the same command again")
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no arguments at all: the message is the whole help
            sys.stderr.write(f"{error.format_message()}\n")
            raise SystemExit(2) from None
        fail(2, error.format_message())
    except BadInput as error:
        fail(2, str(error))
    except WorkFailed as error:
        fail(1, str(error))
    except OSError as error:
        fail(1, f"{error.strerror or error} ({error.filename})" if error.filename else str(error))
    except SafetensorError as error:  # a disk that is full, as safetensors says it
        fail(1, str(error))


def call(app: Callable[..., object], *args: object) -> None:
    """Run one call of the command line and let its exceptions through, KeyboardInterrupt among them."""
    if app(*args, standalone_mode=False) == INTERRUPTED:
        raise KeyboardInterrupt


def fail(code: int, message: str) -> None:
    """Leave with an exit code and one line on stderr."""
    sys.stderr.write(f"tprune: {' '.join(message.split())}\n")
    raise SystemExit(code)


def only_one(flags: dict[str, float | None]) -> None:
    """Raise BadInput when more than one of the flags is given."""
    given = [name for name, value in flags.items() if value is not None]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)} exclude each other: give one of {', '.join(flags)}")


def only_for(what: str, flags: dict[str, object]) -> None:
    """Raise BadInput when a flag is given that means something for `what` alone."""
    if given := [name for name, value in flags.items() if value is not None]:
        raise BadInput(f"{' and '.join(given)}: only for {what}")


def one_of(flag: str, value: str, legal: tuple[str, ...]) -> None:
    """Raise BadInput unless the flag's value is legal."""
    if value not in legal:
        raise BadInput(f"{flag} {value!r}: must be {' or '.join(legal)}")
