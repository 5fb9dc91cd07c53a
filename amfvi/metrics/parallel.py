"""Threads for the optimal transport solver, which lets others run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

__all__ = ["thread_pool"]

MAX_THREADS = 8
"""Most transport problems solved at once; each holds a cost matrix of n² numbers."""


def thread_pool() -> ThreadPoolExecutor:
    """Make a pool of a thread per processor, within a limit on memory.

    Examples:
        >>> with thread_pool() as pool:
        ...     pool.submit(max, 1, 2).result()
        2
    """
    return ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
