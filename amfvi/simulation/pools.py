"""Simulate chunks one after the other, in processes, or in a pool of the user's."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from amfvi.pools import Workers
from amfvi.simulation.calling import Calling
from amfvi.simulation.chunks import Chunk, Simulated, simulate_chunk

__all__ = ["map_chunks"]


def map_chunks(
    calling: Calling, chunks: Sequence[Chunk], pool: Any = None
) -> Generator[Simulated, None, None]:
    """Simulate chunks, and yield what they give in their order.

    Args:
        pool: as of :class:`amfvi.pools.Workers`. Processes of ours end with the last chunk or
            with an error.

    Raises:
        InputError: the simulator returns another shape, or the pool fails.

    Examples:
        >>> import torch
        >>> calling = Calling(function=lambda y: 2 * y, many=False, numpy=False, shape=(1,))
        >>> chunk = Chunk(start=0, y=torch.ones(2, 1), seed=0)
        >>> [simulated.given.tolist() for simulated in map_chunks(calling, [chunk])]
        [[[2.0], [2.0]]]
    """
    if isinstance(pool, int):
        pool = min(pool, max(len(chunks), 1))
    with Workers(partial(simulate_chunk, calling), pool, "simulator").closing() as workers:
        yield from workers.map(chunks)
