"""Simulate chunks one after the other, in processes, or in a pool of the user's."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from amfvi.errors import AmfviError, InputError, UsageError
from amfvi.simulation.calling import Calling
from amfvi.simulation.chunks import Chunk, Simulated, simulate_chunk

__all__ = ["check_pool", "map_chunks"]

Results = Generator[Simulated, None, None]

HINT = (
    "processes need a simulator that can be pickled: define it at the top of a module, or give "
    "pool= a number of processes or a ThreadPoolExecutor"
)
"""What to do if a user's pool cannot take a simulator."""

_calling: Calling | None = None
"""The simulator of a process of ours, which it was started with."""


def check_pool(pool: Any) -> None:
    """Reject what chunks cannot be handed to.

    Raises:
        UsageError: neither None, nor a positive whole number, nor an object with ``map``.

    Examples:
        >>> check_pool("many")
        Traceback (most recent call last):
        amfvi.errors.UsageError: pool must be a number of processes, or have a method map, ...
    """
    number = isinstance(pool, int) and not isinstance(pool, bool)
    if pool is None or (number and pool >= 1) or callable(getattr(pool, "map", None)):
        return
    raise UsageError(f"pool must be a number of processes, or have a method map, found {pool!r}")


def map_chunks(calling: Calling, chunks: Sequence[Chunk], pool: Any = None) -> Results:
    """Simulate chunks, and yield what they give in their order.

    Args:
        pool: a number of processes; or anything with ``map``, such as a
            ``multiprocessing.Pool`` or an executor of ``concurrent.futures``; None: this
            process.

    Raises:
        InputError: the simulator returns another shape, or the pool fails.

    Examples:
        >>> calling = Calling(function=lambda y: 2 * y, many=False, numpy=False, shape=(1,))
        >>> chunk = Chunk(start=0, y=torch.ones(2, 1), seed=0)
        >>> [simulated.given.tolist() for simulated in map_chunks(calling, [chunk])]
        [[[2.0], [2.0]]]
    """
    if pool is None or (isinstance(pool, int) and pool == 1) or not chunks:
        yield from (simulate_chunk(calling, chunk) for chunk in chunks)
        return
    try:
        if isinstance(pool, int):
            yield from _map_processes(calling, chunks, pool)
        else:
            # Pools of multiprocessing return from map when all is done, from imap one by one.
            mapped = getattr(pool, "imap", pool.map)
            yield from mapped(partial(simulate_chunk, calling), chunks)
    except AmfviError:
        raise
    except Exception as error:  # of the simulator, all errors are caught where it runs
        hint = f"; {HINT}" if "pickle" in f"{type(error).__name__} {error}".lower() else ""
        said = " ".join(str(error).split())
        raise InputError(f"pool: {type(error).__name__}: {said}{hint}") from error


def _map_processes(calling: Calling, chunks: Sequence[Chunk], count: int) -> Results:
    """Simulate in processes of our own, which end with the last chunk or with an error."""
    # A forked process has the function already, whether or not it can be pickled.
    forks = sys.platform == "linux" and not torch.cuda.is_initialized()
    context = multiprocessing.get_context("fork" if forks else "spawn")
    executor = ProcessPoolExecutor(
        min(count, len(chunks)), mp_context=context, initializer=_start, initargs=(calling,)
    )
    try:
        with warnings.catch_warnings():
            # Python warns of forks beside threads; these processes use one thread of torch.
            warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
            results = executor.map(_simulate_here, chunks)
        yield from results
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start(calling: Calling) -> None:
    """Prepare a process of ours."""
    global _calling
    _calling = calling
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, which a killed one cannot tell it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _simulate_here(chunk: Chunk) -> Simulated:
    """Simulate a chunk with the simulator that this process was started with."""
    if _calling is None:
        raise RuntimeError("this process was started without a simulator")
    return simulate_chunk(_calling, chunk)
