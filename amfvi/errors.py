"""The errors that amfvi raises, each with its exit code on the command line.

Every class also inherits the builtin that plain Python code would expect, so that
``except ValueError`` works as for any other library.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable

__all__ = [
    "AmfviError",
    "AmfviWarning",
    "ExitCode",
    "FitError",
    "InputError",
    "MissingFileError",
    "UsageError",
    "unknown_name",
]


class ExitCode(enum.IntEnum):
    """How the process ``amfvi`` ends.

    Examples:
        >>> ExitCode.USAGE == 2
        True
    """

    GOOD = 0
    UNEXPECTED = 1
    USAGE = 2
    INPUT = 3
    FIT = 4
    NOT_TRUSTED = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class AmfviError(Exception):
    """Base of all errors that a user can act on; the message is one line.

    Examples:
        >>> issubclass(UsageError, AmfviError) and issubclass(UsageError, ValueError)
        True
    """

    exit_code = ExitCode.UNEXPECTED


class UsageError(AmfviError, ValueError):
    """An option or argument that does not exist or does not go with another."""

    exit_code = ExitCode.USAGE


class InputError(AmfviError, ValueError):
    """Draws, a model or a directory that is unreadable or wrong."""

    exit_code = ExitCode.INPUT


class MissingFileError(InputError, FileNotFoundError):
    """A file or directory that should be there and is not."""


class FitError(AmfviError, RuntimeError):
    """An expert or the weights could not be fitted."""

    exit_code = ExitCode.FIT


class AmfviWarning(UserWarning):
    """Warning about the input or the fit that the user should look at."""


def unknown_name(what: str, found: str, known: Iterable[str]) -> UsageError:
    """Make the error for a misspelt name, with the nearest known ones.

    Examples:
        >>> print(unknown_name("target", "bananna", ["banana", "rings"]))
        unknown target 'bananna'; did you mean banana? (known: banana, rings)
    """
    names = list(known)
    near = difflib.get_close_matches(found, names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return UsageError(f"unknown {what} {found!r}{hint} (known: {', '.join(names)})")
