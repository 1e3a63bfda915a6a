"""The two expected kinds of failure, a wrong call and failed work, and checks of flags.

The command line prints these two as one line and sets an exit code. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Mapping


class BadInput(ValueError):
    """The call was wrong: exit code 2. The message names the value, why it is wrong and what would be legal."""


class WorkFailed(RuntimeError):
    """The work itself failed (NaN loss, full disk, parity lost): exit code 1. The message says what to do next."""


class Caution(UserWarning):
    """A warning about the value of a result. The work goes on; the command line prints one line."""


def only_one(flags: Mapping[str, object]) -> None:
    """Raise BadInput when more than one of the flags is given."""
    given = [name for name, value in flags.items() if value is not None]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)} exclude each other: give one of {', '.join(flags)}")


def only_for(what: str, flags: Mapping[str, object]) -> None:
    """Raise BadInput when a flag is given that has a meaning for `what` alone."""
    if given := [name for name, value in flags.items() if value is not None]:
        raise BadInput(f"{' and '.join(given)}: only for {what}")


def one_of(flag: str, value: str, legal: tuple[str, ...]) -> None:
    """Raise BadInput unless the flag's value is legal."""
    if value not in legal:
        raise BadInput(f"{flag} {value!r}: must be {' or '.join(legal)}")
