"""The two expected errors of a command: invalid input, and work that failed.

The command line prints these two as one line and sets the exit code. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations


class BadInput(ValueError):
    """Invalid input: exit code 2. The message names the value, why it is wrong and what would be valid."""


class WorkFailed(RuntimeError):
    """The work failed (NaN loss, full disk, parity check): exit code 1. The message says what to do next."""


class Caution(UserWarning):
    """A problem that does not stop the work but affects what the result means; printed as one line."""
