"""The two ways a command can end badly: the call was wrong, or the work failed.

Only these two are turned into one line and an exit code by the command line; anything else is a bug and keeps its
traceback.
"""

from __future__ import annotations


class BadInput(ValueError):
    """The call was wrong: exit code 2. The message names the value, why it is wrong and what would be legal."""


class WorkFailed(RuntimeError):
    """The work itself failed (NaN loss, full disk, parity lost): exit code 1. The message says what to do next."""


class Caution(UserWarning):
    """What does not stop the work, but decides what its result is worth; the command line shows it as one line."""
