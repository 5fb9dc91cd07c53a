"""Simulate rows of parameters in chunks, each with random numbers of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import InputError
from amfvi.simulation.calling import Calling, Evaluate
from amfvi.simulation.seeding import key_for
from amfvi.simulation.values import Array

__all__ = ["NOT_FINITE", "Chunk", "Simulated", "make_chunks", "simulate_chunk"]

CHUNKS = 100
"""Chunks that simulations are divided into, for processes to share and for the disk to keep."""

MAX_ROWS = 1000
"""Most rows in a chunk."""

MIN_BATCH = 20
"""Fewest rows in a chunk of a simulator of batches, if there are as many."""

NOT_FINITE = "it returned NaN or infinity"
"""What is said of a simulation whose data are not all numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Neighboring rows to simulate.

    Attributes:
        start: number of the first row.
        y: parameters, (r, d).
        seed: of all simulations.

    Examples:
        >>> import torch
        >>> Chunk(start=10, y=torch.zeros(5, 2), seed=0).stop
        15
    """

    start: int
    y: Tensor
    seed: int

    @property
    def stop(self) -> int:
        """Number of the row after the last one."""
        return self.start + len(self.y)

    def __reduce__(self) -> tuple[Any, ...]:
        # A tensor would travel as a file descriptor, to be fetched from a thread of the sender.
        return _unpickle, (self.start, self.y.numpy(), self.seed)


def _unpickle(start: int, y: Array, seed: int) -> Chunk:
    return Chunk(start=start, y=torch.from_numpy(y), seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulated:
    """What a chunk gave.

    Attributes:
        given: data, (r, k), NaN in the rows that failed.
        messages: of each row, (r,), empty where it did not fail.

    Examples:
        >>> Simulated(given=np.zeros((2, 1)), messages=np.array(["", "no"])).n_failed
        1
    """

    given: Array
    messages: np.ndarray[tuple[int], np.dtype[np.str_]]

    @property
    def n_failed(self) -> int:
        """How many rows failed."""
        return int((self.messages != "").sum())


def make_chunks(y: Tensor, seed: int, *, many: bool) -> list[Chunk]:
    """Divide rows (n, d) into chunks of nearly the same size, which n alone decides.

    Args:
        many: whether the simulator takes a chunk at once.

    Examples:
        >>> import torch
        >>> [len(c.y) for c in make_chunks(torch.zeros(50, 1), 0, many=True)]
        [25, 25]
    """
    n = len(y)
    most = max(1, n // MIN_BATCH) if many else n
    count = max(min(CHUNKS, most), -(-n // MAX_ROWS))
    edges = [n * i // count for i in range(count + 1)]
    return [
        Chunk(start=start, y=y[start:stop], seed=seed) for start, stop in itertools.pairwise(edges)
    ]


def simulate_chunk(calling: Calling, chunk: Chunk) -> Simulated:
    """Simulate the rows of a chunk; those for which the simulator raises count as failed.

    The random numbers of a row follow from the seed and the row, those of a batch from the
    seed and its first row. A batch that raises is done again, row by row.

    Raises:
        InputError: it returns another shape than at first.

    Examples:
        >>> import torch
        >>> calling = Calling(function=lambda y: 1 / y, many=False, numpy=False, shape=(1,))
        >>> simulate_chunk(calling, Chunk(start=0, y=torch.ones(2, 1), seed=0)).given
        array([[1.],
               [1.]])
    """
    given = np.full((len(chunk.y), calling.size), np.nan)
    messages = [""] * len(chunk.y)
    with calling.ready() as evaluate:
        rows: list[int] = list(range(len(chunk.y)))
        if calling.many:
            try:
                key = key_for(chunk.seed, "batch", chunk.start)
                given[:] = _as_rows(evaluate(chunk.y, key), calling, chunk, rows)
                rows = []
            except InputError:
                raise
            except Exception:  # at least one of the rows is the cause: which, is found below
                pass
        for i in rows:
            try:
                given[i] = _simulate_row(evaluate, calling, chunk, i)
            except InputError:
                raise
            except Exception as error:
                messages[i] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for i in np.flatnonzero(~np.isfinite(given).all(axis=1)).tolist():
        given[i] = np.nan
        messages[i] = messages[i] or NOT_FINITE
    return Simulated(given=given, messages=np.array(messages, dtype=np.str_))


def _simulate_row(evaluate: Evaluate, calling: Calling, chunk: Chunk, i: int) -> Array:
    """Data (1, k) of one row, with random numbers of its own."""
    point = chunk.y[i : i + 1] if calling.many else chunk.y[i]
    out = evaluate(point, key_for(chunk.seed, "row", chunk.start + i))
    return _as_rows(out, calling, chunk, [i])


def _as_rows(out: Array, calling: Calling, chunk: Chunk, rows: list[int]) -> Array:
    """What the simulator returned for these rows, (r, k).

    Raises:
        InputError: it has another shape than at first.
    """
    expected = (len(rows), *calling.shape) if calling.many else calling.shape
    # A batch of one row may come without its first dimension.
    if out.shape != expected and not (calling.many and len(rows) == 1 and out.size == calling.size):
        raise InputError(
            f"the simulator returned shape {out.shape} at row {chunk.start + rows[0]}, expected "
            f"{expected} as for the first points; it must return the same every time"
        )
    return out.reshape(len(rows), calling.size)
