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
from amfvi.experts.folds import TRAIN, Folds
from amfvi.randomness import stream
from amfvi.support import Support
from amfvi.targets import Target
from amfvi.weighting import effective_sample_size, weighted_sd, weighted_subset

__all__ = ["Split", "check_folds", "split_draws", "split_target"]

N_TEST = 20_000  # fresh exact draws that score a fit to a named target
MIN_BLOCKS_PER_CHAIN = 20
HELDOUT_SHARE = 3 / 17  # of a file less its test draws, without folds: 70/15/15
TARGET_HELDOUT_SHARE = 0.2
MOST_FOLDS = 20


@dataclass(frozen=True, kw_only=True)
class Split:
    """Draws by role, n × d float64 each, in the user's parameters.

    Attributes:
        draws: what the experts are fitted to.
        fold: for each of them the member of every expert that does not train on it
            but stops early by it, and whose density there goes into the weights;
            −1 for draws that all members train on.
        fresh: further draws for the weights alone, or None.
        test: for scores only, or None.
        weight, test_weight: importance weights of ``draws`` and ``test``; None where all
            are equal.
        names, support: of the parameters.
    """

    draws: Tensor
    fold: Tensor
    fresh: Tensor | None
    test: Tensor | None
    names: tuple[str, ...]
    support: Support
    weight: Tensor | None = None
    test_weight: Tensor | None = None

    @property
    def dim(self) -> int:
        return self.draws.shape[1]

    @property
    def folds(self) -> Folds:
        """The draws and their folds in unconstrained space."""
        return Folds(self.support.to_unconstrained(self.draws)[0], self.fold, self.weight)

    @property
    def seen(self) -> Tensor:
        """All draws that the fit has seen, fresh ones included."""
        return self.draws if self.fresh is None else torch.cat([self.draws, self.fresh])

    @property
    def equally_weighted_reference(self) -> Tensor:
        """Test draws, or those fitted to where there are none, thinned by their weights."""
        draws, weight = self.draws, self.weight
        if self.test is not None:
            draws, weight = self.test, self.test_weight
        if weight is None:
            return draws
        n = max(1, int(effective_sample_size(weight)))
        return weighted_subset(draws, weight, n, stream(0, "reference"))

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each parameter over ``draws``, (d,)."""
        return weighted_sd(self.draws, self.weight)

    @property
    def n_train(self) -> int:
        """Draws that a member trains on; the fewest, where folds differ by a few."""
        return min(int((self.fold != f).sum()) for f in range(int(self.fold.max()) + 1))

    @property
    def n_heldout(self) -> int:
        """Draws that a member does not train on."""
        return len(self.draws) - self.n_train

    @property
    def n_weight(self) -> int:
        """Draws that the weights rest on."""
        return int((self.fold != TRAIN).sum()) if self.fresh is None else len(self.fresh)


def split_target(
    target: Target, n_draws: int, n_fresh: int, seed: int, n_test: int, folds: int
) -> Split:
    """Exactly ``n_draws`` exact draws in folds (in 80% and 20%, for one), and fresh test draws.

    Raises:
        UsageError: too few draws, or a number of folds out of range.
    """
    check_folds(folds)
    if n_draws < 20:
        raise UsageError(f"--n-draws must be at least 20, found {n_draws}")
    if n_fresh < 0:
        raise UsageError(f"--n-fresh cannot be negative, found {n_fresh}")
    drawn = target.sample(n_draws, stream(seed, "draws"))
    fold = torch.arange(n_draws) % folds
    if folds == 1:
        fold[: n_draws - round(TARGET_HELDOUT_SHARE * n_draws)] = TRAIN
    return Split(
        draws=drawn,
        fold=fold,
        fresh=target.sample(n_fresh, stream(seed, "fresh")) if n_fresh else None,
        test=target.sample(n_test, stream(seed, "test")) if n_test else None,
        names=default_names(target.dim),
        support=Support.unbounded(target.dim),
    )


def split_draws(draws: Draws, test_fraction: float, seed: int, folds: int) -> Split:
    """Whole blocks of each chain to the folds and to the test draws.

    Neighbours in a chain resemble each other, so each chain is cut into contiguous
    blocks and a block goes to one role; copies of a row follow the first of them. The shares
    are of distinct rows. One fold holds out 3/17 of what is not test.

    Raises:
        UsageError: ``test_fraction`` outside [0, 0.5], or folds out of range.
        InputError: a role would be left without draws.
    """
    check_folds(folds)
    if not 0 <= test_fraction <= 0.5:
        raise UsageError(f"--test-fraction must be in [0, 0.5], found {test_fraction}")
    of_folds = [1 / folds] * folds if folds > 1 else [1 - HELDOUT_SHARE, HELDOUT_SHARE]
    names = [f"fold {f + 1}" for f in range(folds)] if folds > 1 else ["train", "held-out"]
    shares = np.array([*(share * (1 - test_fraction) for share in of_folds), test_fraction])
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
    role = torch.from_numpy(role_of_distinct[copy_of.reshape(-1)])
    for number, (name, share) in enumerate(zip([*names, "test"], shares, strict=True)):
        found = int((role == number).sum())
        if share > 0 and found < 2:
            raise InputError(
                f"the {name} split would hold {found} of {len(draws)} draws; "
                "give more distinct draws"
            )
    is_test = role == len(names)
    fold = role[~is_test]
    fitted = draws.values[~is_test]
    weight = None if draws.weight is None else draws.weight[~is_test]
    return Split(
        draws=fitted,
        fold=fold if folds > 1 else fold - 1,  # role 0 is TRAIN then
        fresh=None,
        test=draws.values[is_test] if test_fraction > 0 else None,
        names=draws.names,
        support=draws.support.turned(fitted, weight),
        weight=weight,
        test_weight=None if draws.weight is None or test_fraction == 0 else draws.weight[is_test],
    )


def check_folds(folds: int) -> None:
    """Check the number of folds.

    Raises:
        UsageError: out of range.
    """
    if not 1 <= folds <= MOST_FOLDS:
        raise UsageError(f"--folds must be in [1, {MOST_FOLDS}], found {folds}")


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
    block_roles = np.searchsorted(np.cumsum(shares)[:-1], midpoints, side="right")
    role = np.empty(n, dtype=np.int64)
    for block, its_role in zip(order, block_roles, strict=True):
        role[edges[block] : edges[block + 1]] = its_role
    return role
