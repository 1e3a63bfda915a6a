"""Handle SIGTERM and SIGHUP like Ctrl-C: unwind, clean up, and end with one line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGTERM or SIGHUP, as far as this thread may say so.

    A second one does not disturb the unwinding (a closed terminal sends both); one that is ignored, as by nohup, stays
    ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGHUP)}
    heard = {kind for kind, handler in known.items() if handler is not signal.SIG_IGN}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for kind in heard:
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    for kind in heard:
        signal.signal(kind, interrupt)
    try:
        yield
    finally:
        for kind in heard:
            signal.signal(kind, known[kind])
