"""Roles of draws, such as folds and the test set: copies and neighbors in a chain share one."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.draws.draws import Draws
from amfvi.randomness import generator_for

__all__ = ["assign_roles"]

MIN_BLOCKS_PER_CHAIN = 20
"""Fewest contiguous blocks that a chain is cut into."""


def assign_roles(draws: Draws, shares: NDArray[np.float64], seed: int) -> Tensor:
    """Assign a role to each draw: equal draws share one, and blocks of a chain stay together.

    A chain of few draws is a block of its own, where there are many of them, as the last states
    of many walkers are.

    Args:
        shares: of the draws, of each role.

    Returns:
        Numbers of roles, (n,).

    Examples:
        >>> draws = Draws.from_array(torch.randn(200, 2, generator=generator_for(0)).double())
        >>> assign_roles(draws, np.array([0.75, 0.25]), seed=0).bincount()
        tensor([150,  50])
    """
    generator = np.random.default_rng(generator_for(seed, "split").initial_seed())
    _, first, copy_of = np.unique(
        draws.values.numpy(), axis=0, return_index=True, return_inverse=True
    )
    role_of_distinct = np.empty(len(first), dtype=np.int64)
    chain = draws.chain.numpy()[first]
    _, number, sizes = np.unique(chain, return_inverse=True, return_counts=True)
    # Few blocks, so that few neighbors are separated, but enough for the smallest share.
    blocks = max(MIN_BLOCKS_PER_CHAIN, math.ceil(3 / shares[shares > 0].min()))
    is_short = sizes < MIN_BLOCKS_PER_CHAIN
    if is_short.sum() >= blocks:
        in_order = np.lexsort((first, number))
        in_order = in_order[is_short[number[in_order]]]
        edges = np.concatenate([[0], np.cumsum(sizes[is_short])])
        role_of_distinct[in_order] = _roles_of_blocks(edges, shares, generator)
    else:
        is_short[:] = False
    for each in np.flatnonzero(~is_short):
        rows = np.flatnonzero(number == each)
        in_order = rows[np.argsort(first[rows])]
        edges = np.linspace(0, len(rows), min(blocks, len(rows)) + 1).round().astype(np.int64)
        role_of_distinct[in_order] = _roles_of_blocks(edges, shares, generator)
    return torch.from_numpy(role_of_distinct[copy_of.reshape(-1)])


def _roles_of_blocks(
    edges: NDArray[np.int64], shares: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """A role per row, of blocks between edges; in random order they fill the shares."""
    n = edges[-1]
    order = generator.permutation(len(edges) - 1)
    sizes = np.diff(edges)[order]
    midpoints = (np.cumsum(sizes) - sizes / 2) / n
    block_roles = np.searchsorted(np.cumsum(shares)[:-1], midpoints, side="right")
    role = np.empty(n, dtype=np.int64)
    for block, block_role in zip(order, block_roles, strict=True):
        role[edges[block] : edges[block + 1]] = block_role
    return role
