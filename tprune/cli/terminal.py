"""What the command line prints: progress bars and one-line errors on stderr, tables or one JSON object on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from tprune.base import busy, processor
from tprune.base.errors import BadInput, Caution, WorkFailed, one_of, only_for
from tprune.base.signals import as_interrupts

if TYPE_CHECKING:  # rich costs a third of the time that --help takes: it is loaded when something is printed
    from rich.console import Console, RenderableType
    from rich.progress import Progress

__all__ = ["one_of", "only_for"]
LOG_EVERY = 10.0  # seconds between two lines of progress without a terminal
# click's class of wrong calls. Newer typers bring their own copy of click, in which only subclasses are public.
UsageError: Any = typer.BadParameter.__bases__[0]
WIDE = 120  # characters per line of a table that goes to a file or another program
RESUMING = ("analyse", "prune", "bench", "cnn train", "cnn compress", "cnn quantise")
WORDING = {  # of pydantic -> ours
    "greater than or equal to": "at least", "less than or equal to": "at most", "a valid i": "an i", "a valid": "a"
}  # fmt: skip
INTERRUPTED = 130  # what a newer typer returns for Ctrl-C instead of raising


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console for stdout or stderr."""
    from rich.console import Console

    return Console(stderr=stderr, width=width)


def say(line: str, style: str | None = None) -> None:
    """Print one line on stderr as it is."""
    console(stderr=True).print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def answer(
    document: Mapping[str, Any], lines: Sequence[str] = (), *, as_json: bool, table: RenderableType | None = None
) -> None:
    """Print a verb's result: with `--json` one JSON object, else a table and `lines`."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    screen = console(width=None if sys.stdout.isatty() else WIDE)
    if table is not None:
        screen.print(table)
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=True, markup=False)


def warn(message: str) -> None:
    """Print a warning about the value of the result on stderr."""
    say(message, "yellow")


class Log:
    """Progress in plain lines, at most one every `LOG_EVERY` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.restart()

    def restart(self) -> None:
        """Forget all tasks; new ones of the same names may follow."""
        self._task, self._began = "", self._clock()

    def line(self, task: str, done: int, total: int, note: str = "") -> str | None:
        """Return the line to print now, or None."""
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
    """In the block, print progress as plain lines if stderr is not a terminal."""
    global _log  # noqa: PLW0603 - one process has one stderr
    _log = None if console(stderr=True).is_terminal else Log()
    try:
        yield
    finally:
        _log = None


def duration(seconds: float) -> str:
    """Return a rounded time: `about 50 s`, `about 3 min`."""
    return f"about {max(5, 5 * round(seconds / 5))} s" if seconds < 100 else f"about {round(seconds / 60)} min"


def warn_if_busy() -> None:
    """Warn when other programs leave less than half of the CPUs that this process may use."""
    taken, allowed, usable = busy.busy_cpus(), processor.allowed_cpus(), processor.usable_cpus()
    if taken is not None and allowed - taken < usable / 2:
        warn(
            f"other programs keep {taken:.1f} of {allowed} CPUs busy: this takes several times as long as on a quiet "
            "machine, and measured speeds are unreliable"
        )


@contextlib.contextmanager
def bar() -> Iterator[Callable[[str, int, int, str], None]]:
    """Yield `show(task, done, total, note)`: one progress line a task on a terminal, else lines if `logged`."""
    if _log:
        _log.restart()
    with contextlib.ExitStack() as stack:
        progress: Progress | None = None
        tasks: dict[str, Any] = {}

        def show(task: str, done: int, total: int, note: str = "") -> None:
            nonlocal progress
            if _log and (line := _log.line(task, done, total, note)):
                say(line)
            progress = progress or stack.enter_context(_progress())
            if task not in tasks:
                tasks[task] = progress.add_task(task, total=total, note=note)
            progress.update(tasks[task], completed=done, total=total, note=note)

        yield show


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console(stderr=True)
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=screen, disable=not screen.is_terminal)


@contextlib.contextmanager
def cautions() -> Iterator[None]:
    """In the block, print `warnings.warn(..., Caution)` as one line on stderr."""
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
    """Run the command line. Every failure except a bug is printed as one line on stderr with an exit code."""
    try:
        with cautions(), as_interrupts():
            call(app)
    except (KeyboardInterrupt, typer.Abort):
        resumes = " ".join(sys.argv[1:3]).startswith(RESUMING)
        fail(1, f"interrupted; give the same command again{' to continue' if resumes else ''}")
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no arguments at all: the message is the whole help
            sys.stderr.write(f"{error.format_message()}\n")
            raise SystemExit(2) from None
        fail(2, _usage(error))
    except BadInput as error:
        fail(2, str(error))
    except WorkFailed as error:
        fail(1, str(error))
    except OSError as error:
        fail(1, f"{error.strerror or error} ({error.filename})" if error.filename else str(error))
    except _safetensor_error() as error:  # such as a full disk
        fail(1, str(error))


def _usage(error: Any) -> str:
    """Return the message of a wrong call, with the value that pydantic, in newer typers, leaves out."""
    message: str = error.format_message()
    if faults := getattr(error.__cause__, "errors", None):
        message = message.replace("Input should be", f"{str(faults()[0]['input'])!r} must be").partition(", unable")[0]
        for theirs, ours in WORDING.items():
            message = message.replace(theirs, ours)
    return message


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


def call(app: Callable[..., object], *args: object) -> None:
    """Run one call of the command line and let all exceptions through, KeyboardInterrupt included."""
    if app(*args, standalone_mode=False) == INTERRUPTED:
        raise KeyboardInterrupt


def fail(code: int, message: str) -> None:
    """Exit with a code and one line on stderr."""
    sys.stderr.write(f"tprune: {' '.join(message.split())}\n")
    raise SystemExit(code)
