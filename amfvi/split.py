"""Who sees which draws: decided once, by seed, before anything is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.draws import Draws, default_names
from amfvi.errors import InputError, UsageError
from amfvi.randomness import stream
from amfvi.support import Support
from amfvi.targets import Target

__all__ = ["Split", "split_draws", "split_target"]

N_TEST = 20_000  # fresh exact draws that score a fit to a named target
MIN_BLOCKS_PER_CHAIN = 20
HELDOUT_SHARE = 3 / 17  # of what is not test: 70/15/15 at the default test fraction
TARGET_TRAIN_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Split:
    """Draws by role, n × d float64 each, in the user's parameters.

    Attributes:
        train: what the experts are fitted to.
        heldout: for early stopping, and for the weights unless there are fresh draws.
        fresh: further draws for the weights alone, or None.
        test: for scores only, or None.
        names, support: of the parameters.
    """

    train: Tensor
    heldout: Tensor
    fresh: Tensor | None
    test: Tensor | None
    names: tuple[str, ...]
    support: Support

    @property
    def dim(self) -> int:
        return self.train.shape[1]

    @property
    def seen(self) -> Tensor:
        """All draws that the fit has seen: training, held-out and fresh."""
        parts = (self.train, self.heldout, self.fresh)
        return torch.cat([part for part in parts if part is not None])

    @property
    def for_weights(self) -> Tensor:
        return self.heldout if self.fresh is None else self.fresh


def split_target(target: Target, n_draws: int, n_fresh: int, seed: int, n_test: int) -> Split:
    """Exactly ``n_draws`` exact draws, 80% to train, and fresh test draws.

    Raises:
        UsageError: too few draws.
    """
    if n_draws < 20:
        raise UsageError(f"--n-draws must be at least 20, found {n_draws}")
    if n_fresh < 0:
        raise UsageError(f"--n-fresh cannot be negative, found {n_fresh}")
    drawn = target.sample(n_draws, stream(seed, "draws"))
    n_train = round(TARGET_TRAIN_SHARE * n_draws)
    return Split(
        train=drawn[:n_train],
        heldout=drawn[n_train:],
        fresh=target.sample(n_fresh, stream(seed, "fresh")) if n_fresh else None,
        test=target.sample(n_test, stream(seed, "test")) if n_test else None,
        names=default_names(target.dim),
        support=Support.unbounded(target.dim),
    )


def split_draws(draws: Draws, test_fraction: float, seed: int) -> Split:
    """Whole blocks of each chain to train, held-out and test.

    Neighbours in a chain resemble each other, so each chain is cut into contiguous
    blocks and a block goes to one role; copies of a row follow the first of them. The shares
    are of distinct rows.

    Raises:
        UsageError: ``test_fraction`` outside [0, 0.5].
        InputError: a role would be left without draws.
    """
    if not 0 <= test_fraction <= 0.5:
        raise UsageError(f"--test-fraction must be in [0, 0.5], found {test_fraction}")
    heldout = HELDOUT_SHARE * (1 - test_fraction)
    shares = np.array([1 - heldout - test_fraction, heldout, test_fraction])
    generator = np.random.default_rng(stream(seed, "split").initial_seed())
    _, first, copy_of = np.unique(
        draws.values.numpy(), axis=0, return_index=True, return_inverse=True
    )
    role_of_distinct = np.empty(len(first), dtype=np.int64)
    chain = draws.chain.numpy()[first]
    for number in np.unique(chain):
        rows = np.flatnonzero(chain == number)
        in_order = rows[np.argsort(first[rows])]
        role_of_distinct[in_order] = _roles_of_chain(len(rows), shares, generator)
    role = role_of_distinct[copy_of.reshape(-1)]
    parts = [draws.values[torch.from_numpy(np.flatnonzero(role == r))] for r in range(3)]
    for name, part, share in zip(("train", "held-out", "test"), parts, shares, strict=True):
        if share > 0 and len(part) < 2:
            raise InputError(
                f"the {name} split would hold {len(part)} of {len(draws)} draws; "
                "give more distinct draws"
            )
    return Split(
        train=parts[0],
        heldout=parts[1],
        fresh=None,
        test=parts[2] if test_fraction > 0 else None,
        names=draws.names,
        support=draws.support,
    )


def _roles_of_chain(
    n: int, shares: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """A role per row of a chain: contiguous blocks in random order fill the shares."""
    # Few blocks, so that few neighbours part, but enough for the smallest share.
    blocks = max(MIN_BLOCKS_PER_CHAIN, math.ceil(3 / shares[shares > 0].min()))
    edges = np.linspace(0, n, min(blocks, n) + 1).round().astype(np.int64)
    order = generator.permutation(len(edges) - 1)
    sizes = np.diff(edges)[order]
    midpoints = (np.cumsum(sizes) - sizes / 2) / n
    block_roles = np.searchsorted(np.cumsum(shares)[:2], midpoints, side="right")
    role = np.empty(n, dtype=np.int64)
    for block, its_role in zip(order, block_roles, strict=True):
        role[edges[block] : edges[block + 1]] = its_role
    return role
