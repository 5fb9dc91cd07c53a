"""Settings of the process that a user's module may change, kept apart from our own."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["ProcessState", "UserState"]


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """The settings of this process at one time.

    Attributes:
        directory: the working directory; None where it was removed.
        numpy_errors: how numpy treats division by zero, overflow, underflow and NaN.
        dtype: torch's default for floating-point numbers.
        device: torch's default.
        matmul_precision: of products of float32 matrices in torch.
        recursion_limit: of Python.

    Examples:
        >>> before = ProcessState.capture()
        >>> _ = np.seterr(all="raise")
        >>> before.restore()
        >>> ProcessState.capture() == before
        True
    """

    directory: str | None
    numpy_errors: Mapping[str, Any]
    dtype: torch.dtype
    device: torch.device
    matmul_precision: str
    recursion_limit: int

    @classmethod
    def capture(cls) -> ProcessState:
        """Read the settings as they are now."""
        try:
            directory = os.getcwd()
        except FileNotFoundError:
            directory = None
        return cls(
            directory=directory,
            numpy_errors=dict(np.geterr()),
            dtype=torch.get_default_dtype(),
            device=torch.get_default_device(),
            matmul_precision=torch.get_float32_matmul_precision(),
            recursion_limit=sys.getrecursionlimit(),
        )

    def restore(self) -> None:
        """Change the settings of the process to these."""
        if self.directory is not None:
            with suppress(OSError):  # removed since then
                os.chdir(self.directory)
        np.seterr(**self.numpy_errors)
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.matmul_precision)
        with suppress(RecursionError):  # a limit of the user's that is too low for this depth
            sys.setrecursionlimit(self.recursion_limit)
        if torch.get_default_device() != self.device:
            # A default that is set slows down every call of torch, even if it is the CPU.
            torch.set_default_device(None if self.device.type == "cpu" else self.device)


class UserState:
    """Run a user's code under its own settings, and everything else under ours.

    What the code changes holds whenever it runs again, and never outside of it.

    Examples:
        >>> state = UserState()
        >>> with state.active():
        ...     _ = np.seterr(over="raise")
        >>> np.geterr()["over"]
        'warn'
        >>> state.guard(lambda x: np.geterr()["over"])(0.0)
        'raise'
    """

    def __init__(self) -> None:
        self._ours = self._theirs = ProcessState.capture()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the block under the user's settings, as while a module is imported."""
        with torch.set_grad_enabled(torch.is_grad_enabled()), warnings.catch_warnings():
            self._enter()
            try:
                yield
            finally:
                self._leave()

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make the function run under the user's settings."""

        @functools.wraps(function)
        def guarded(*arguments: Any, **named: Any) -> Any:
            self._enter()
            try:
                return function(*arguments, **named)
            finally:
                self._leave()

        return guarded

    def _enter(self) -> None:
        if self._theirs != self._ours:
            self._theirs.restore()

    def _leave(self) -> None:
        self._theirs = ProcessState.capture()
        if self._theirs != self._ours:
            self._ours.restore()
