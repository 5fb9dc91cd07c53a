"""The log of a run: lines with their time, and amfvi's warnings among them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from amfvi.errors import AmfviWarning

__all__ = ["RunLog"]


class RunLog:
    """Lines for ``log.txt``, passed on as they come; warnings are lines too."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.lines: list[str] = []
        self.warned: list[str] = []
        self._say = say
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        self.lines.append(f"[{time.monotonic() - self._started:7.2f} s] {line}")
        if self._say is not None:
            self._say(line)

    @contextmanager
    def catching_warnings(self) -> Iterator[None]:
        """Make amfvi's own warnings lines of the log; others stay warnings."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", AmfviWarning)
                yield
        finally:
            for warning in caught:
                if issubclass(warning.category, AmfviWarning):
                    self.warned.append(str(warning.message))
                    self(f"warning: {warning.message}")
                else:
                    warnings.warn_explicit(
                        warning.message, warning.category, warning.filename, warning.lineno
                    )
