"""The errors amfvi raises, each with the exit code the command line gives it.

Every class also inherits the builtin that plain Python code would expect, so
``except ValueError`` keeps working for somebody who has never heard of amfvi.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AmfviError",
    "AmfviWarning",
    "FitError",
    "InputError",
    "MissingFileError",
    "UsageError",
    "unknown_name",
]


class AmfviError(Exception):
    """Base of all errors that a user can act on; the message is one line."""

    exit_code = 1


class UsageError(AmfviError, ValueError):
    """An option or argument that does not exist or does not go with another."""

    exit_code = 2


class InputError(AmfviError, ValueError):
    """Draws, a model or a directory that is unreadable or wrong."""

    exit_code = 3


class MissingFileError(InputError, FileNotFoundError):
    """A file or directory that should be there and is not."""


class FitError(AmfviError, RuntimeError):
    """An expert or the weights could not be fitted."""

    exit_code = 4


class AmfviWarning(UserWarning):
    """Something about the input or the fit that the user should look at."""


def unknown_name(what: str, found: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt name, with the nearest known ones."""
    names = list(known)
    near = difflib.get_close_matches(found, names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return UsageError(f"unknown {what} {found!r}{hint} (known: {', '.join(names)})")
