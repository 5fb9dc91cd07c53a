"""A function mapped over arguments: in this process, in processes of ours, or by a user's pool."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeGuard

import torch

from amfvi.errors import AmfviError, InputError, UsageError
from amfvi.user_modules import send_by_value

__all__ = ["Workers", "check_pool", "pool_size"]

Function = Callable[[Any], Any]

Caught = tuple[str, type[Warning], str, int]
"""A warning: its message, category, file and line."""

SIZES = ("size", "num_workers", "n_jobs", "_max_workers", "_processes")
"""Where pools say how many workers they have: schwimmbad, mpi4py, joblib, ``concurrent.futures``
and ``multiprocessing``."""

SECONDS_TO_NOTICE = 1.0
"""Seconds within which a process of ours notices that the one that started it is gone."""

_function: Function | None = None
"""What a process of ours computes, which it was started with."""


def check_pool(pool: Any) -> None:
    """Reject what arguments cannot be handed to.

    Raises:
        UsageError: neither None, nor a positive whole number, nor an object with ``map``.

    Examples:
        >>> check_pool("many")
        Traceback (most recent call last):
        amfvi.errors.UsageError: pool must be a number of processes, or have a method map, ...
    """
    if pool is None or (_is_number(pool) and pool >= 1) or callable(getattr(pool, "map", None)):
        return
    raise UsageError(f"pool must be a number of processes, or have a method map, found {pool!r}")


def pool_size(pool: Any) -> int:
    """The number of workers of a pool: what it says itself, else the number of cores.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> pool_size(None), pool_size(3), pool_size(ThreadPoolExecutor(5))
        (1, 3, 5)
    """
    if pool is None or _is_number(pool):
        return int(pool or 1)
    for name in SIZES:
        size = getattr(pool, name, None)
        if _is_number(size) and size > 0:
            return int(size)
    return os.cpu_count() or 1


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class Workers:
    """A function and the workers that compute it.

    Processes of ours start at the first use and stay until :meth:`close`; what they warn of is
    warned of here. Where the system forks, they have the function already, whether or not it
    can be pickled; a user's pool gets it pickled with every argument, unless its workers are
    threads. A ``multiprocessing.Pool`` waits for ever for a process that died; executors of
    ``concurrent.futures`` tell.

    Args:
        function: of one argument; what it returns can be pickled.
        pool: a number of processes, of which 1 is this one; anything with ``map``, such as
            an executor of ``concurrent.futures``, a ``multiprocessing.Pool`` or a client of
            Dask; None: this process.
        subject: what the function is, for messages.
        differentiates: whether torch differentiates in it, which a forked process cannot where
            there is a GPU.

    Raises:
        UsageError: something else as a pool.

    Examples:
        >>> with Workers(abs, None, "function").closing() as workers:
        ...     list(workers.map([-1, -2]))
        [1, 2]
    """

    def __init__(
        self, function: Function, pool: Any, subject: str, *, differentiates: bool = False
    ) -> None:
        check_pool(pool)
        self._forks = _can_fork(differentiates)
        self._function = function
        self._pool = pool
        self._subject = subject
        self._processes: _Processes | None = None

    def map(self, arguments: Sequence[Any]) -> Generator[Any, None, None]:
        """Yield the function's value for every argument, in their order.

        Raises:
            InputError: the pool fails: a process died, or something cannot be pickled.
            Exception: what the function raises, where this process computes it.
        """
        if self._pool is None or self._pool == 1 or not arguments:
            yield from map(self._function, arguments)
            return
        try:
            yield from self._map(arguments)
        except (AmfviError, Warning):  # a warning that the caller wants as an error
            raise
        except BrokenProcessPool:
            self.close(now=True)
            unguarded = "" if self._forks else ', or a script lacks if __name__ == "__main__"'
            raise InputError(
                f"pool: a process died while it computed the {self._subject}: it ran out of "
                f"memory, was killed or ended itself{unguarded}"
            ) from None
        except Exception as error:
            raise InputError(self._explain(error)) from error

    def _map(self, arguments: Sequence[Any]) -> Iterable[Any]:
        if isinstance(self._pool, int):
            if self._processes is None:
                self._processes = _Processes(self._function, self._pool, self._forks)
            return self._processes.map(arguments)
        if callable(getattr(self._pool, "gather", None)):  # a client of Dask, which has futures
            return self._pool.gather(self._pool.map(self._function, arguments, pure=False))
        # Pools of multiprocessing return from map when all is done, from imap one by one.
        return getattr(self._pool, "imap", self._pool.map)(self._function, arguments)

    def _explain(self, error: Exception) -> str:
        said = f"pool: {type(error).__name__}: {' '.join(str(error).split())}"
        is_pickling = isinstance(error, pickle.PicklingError) or "pickle" in said.lower()
        if not is_pickling:
            return said
        instead = "" if isinstance(self._pool, int) else "a number of processes or "
        return (
            f"{said}; processes need a {self._subject} that can be pickled: define it at the top "
            f"of a module, or give pool= {instead}a ThreadPoolExecutor"
        )

    def close(self, *, now: bool = False) -> None:
        """End the processes of ours, if there are any; a user's pool stays as it is.

        Args:
            now: whatever they are doing.
        """
        if self._processes is not None:
            self._processes.close(now=now)
            self._processes = None

    @contextmanager
    def closing(self) -> Iterator[Workers]:
        """Close after the block, at once if it raises or is interrupted."""
        try:
            yield self
        except BaseException:
            self.close(now=True)
            raise
        self.close()


def _can_fork(differentiates: bool) -> bool:
    """Whether processes of ours can be copies of this one."""
    needs_own_threads = differentiates and torch.cuda.is_available()  # those of autograd
    return sys.platform == "linux" and not torch.cuda.is_initialized() and not needs_own_threads


def _pickled(function: Function) -> bytes:
    """A function for a process that is started anew: also a wrapped one, or one of a file."""
    import cloudpickle

    send_by_value(cloudpickle)
    return bytes(cloudpickle.dumps(function))


class _Processes:
    """Processes of ours, which compute a function that they are started with."""

    def __init__(self, function: Function, count: int, forks: bool) -> None:
        context = multiprocessing.get_context("fork" if forks else "spawn")
        self._reader, self._writer = context.Pipe(duplex=False)
        self._warned: dict[Any, Any] = {}
        self._executor = ProcessPoolExecutor(
            count,
            mp_context=context,
            initializer=_start,
            initargs=(function if forks else _pickled(function), self._reader, os.getpid()),
        )

    def map(self, arguments: Sequence[Any]) -> Iterator[Any]:
        for value, caught in self._submit(arguments):
            for message, category, filename, line in caught:
                warnings.warn_explicit(message, category, filename, line, registry=self._warned)
            yield value

    def _submit(self, arguments: Sequence[Any]) -> Iterator[tuple[Any, list[Caught]]]:
        with warnings.catch_warnings():
            # Python warns of forks beside threads; these processes use one thread of torch.
            warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
            return self._executor.map(_compute, arguments)

    def close(self, *, now: bool) -> None:
        if now:
            self._writer.send_bytes(b"end")
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
        self._writer.close()


def _start(function: Function | bytes, end: Connection, parent: int) -> None:
    """Prepare a process of ours."""
    global _function
    _function = pickle.loads(function) if isinstance(function, bytes) else function
    # An interrupt of the terminal reaches all its processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_wait_for, args=(end, parent), daemon=True).start()


def _wait_for(end: Connection, parent: int) -> None:
    """End this process when told so, or once its parent is gone, which a killed one cannot tell."""
    while os.getppid() == parent and not end.poll(SECONDS_TO_NOTICE):
        pass
    os._exit(1)


def _compute(argument: Any) -> tuple[Any, list[Caught]]:
    """The value of the function that this process was started with, and what it warns of."""
    if _function is None:
        raise RuntimeError("this process was started without a function")
    with warnings.catch_warnings(record=True) as caught:
        value = _function(argument)
    return value, [
        (str(each.message), _built_in(each.category), each.filename, each.lineno) for each in caught
    ]


def _built_in(category: type[Warning]) -> type[Warning]:
    """The category itself if it is Python's own, else the nearest of those it derives from."""
    return next(each for each in category.__mro__ if each.__module__ == "builtins")
