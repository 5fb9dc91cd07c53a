"""Assign draws to folds and the test set, once, by seed, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from amfvi.constraints.constraints import Constraints, default_names
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.draws.draws import Draws
from amfvi.errors import InputError
from amfvi.experts.folds import TRAIN, Folds
from amfvi.randomness import generator_for
from amfvi.statistics import effective_sample_size, weighted_sd, weighted_subset
from amfvi.targets import ExactTarget
from amfvi.two_stage.roles import assign_roles

__all__ = ["N_TEST", "Split", "assign_folds", "split_draws", "split_target"]

N_TEST = 20_000
"""Exact draws that score a fit to a named target."""

MAX_WEIGHED = 100_000
"""Most draws, by folds, whose densities the weights rest on: more would move no weight by more
than its fit to them does."""

ROUNDING = 1e-14
"""Spread of a parameter, relative to its size, up to which it is one number but for rounding."""

HELDOUT_SHARE = 3 / 17
"""Held-out share of a file's draws less its test draws, with one fold: 70/15/15."""

TARGET_HELDOUT_SHARE = 0.2
"""Held-out share of a target's draws, with one fold."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Draws by role, n × d float64 each, in the user's parameters.

    Attributes:
        draws: what the experts are fitted to.
        fold: for each of them the member of every expert that does not train on it
            but stops early by it, and whose density there goes into the weights;
            −1 for draws that all members train on.
        weight_draws: further draws for the weights alone, or None.
        test: for scores only, or None.
        names: parameter names.
        transform: the change of variables to unconstrained space, where experts live.
        sample_weight, test_sample_weight: importance weights of ``draws`` and ``test``;
            None where all are equal.

    Examples:
        >>> from amfvi import targets
        >>> split = split_target(targets.get("banana"), 100, seed=0)
        >>> split.n_train, split.n_heldout, split.n_weight, len(split.test)
        (80, 20, 100, 20000)
    """

    draws: Tensor
    fold: Tensor
    weight_draws: Tensor | None
    test: Tensor | None
    names: tuple[str, ...]
    transform: UnconstrainingTransform
    sample_weight: Tensor | None = None
    test_sample_weight: Tensor | None = None

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.draws.shape[1]

    @property
    def constraints(self) -> Constraints:
        """Constraints on the parameters."""
        return self.transform.constraints

    @cached_property
    def folds(self) -> Folds:
        """The draws and their folds in unconstrained space."""
        return Folds(self.transform.to_unconstrained(self.draws)[0], self.fold, self.sample_weight)

    @cached_property
    def folds_for_weights(self) -> Folds:
        """Of the folds the rows, at most ``MAX_WEIGHED``, whose densities the weights rest on."""
        return self.folds.at_most(MAX_WEIGHED)

    @property
    def seen(self) -> Tensor:
        """All draws that the fit has seen, those for the weights included."""
        return (
            self.draws if self.weight_draws is None else torch.cat([self.draws, self.weight_draws])
        )

    @property
    def equally_weighted_reference(self) -> Tensor:
        """Test draws, or else the draws fitted to, thinned by their importance weights."""
        if self.test is not None:
            return _equally_weighted(self.test, self.test_sample_weight)
        return _equally_weighted(self.draws, self.sample_weight)

    @property
    def equally_weighted_draws(self) -> Tensor:
        """The draws fitted to and the test draws, thinned by their importance weights."""
        if self.test is None:
            return _equally_weighted(self.draws, self.sample_weight)
        weights = (self.sample_weight, self.test_sample_weight)
        if weights == (None, None):
            return torch.cat([self.draws, self.test])
        parts = zip((self.draws, self.test), weights, strict=True)
        filled = [torch.ones(len(x)).double() if w is None else w for x, w in parts]
        return _equally_weighted(torch.cat([self.draws, self.test]), torch.cat(filled))

    @cached_property
    def scale(self) -> Tensor:
        """Standard deviation of each parameter over ``draws``, (d,).

        One for a parameter that its constraint holds constant, such as the first entry of a
        Cholesky factor of correlations.
        """
        sd = weighted_sd(self.draws, self.sample_weight)
        is_held = sd <= ROUNDING * self.draws.abs().amax(dim=0)
        return torch.where(is_held, 1.0, sd)

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
        if self.weight_draws is not None:
            return len(self.weight_draws)
        return int(self.folds_for_weights.is_heldout.sum())


def _equally_weighted(draws: Tensor, sample_weight: Tensor | None) -> Tensor:
    if sample_weight is None:
        return draws
    n = max(1, int(effective_sample_size(sample_weight)))
    return weighted_subset(draws, sample_weight, n, generator_for(0, "reference"))


def split_target(
    target: ExactTarget,
    n_draws: int,
    *,
    seed: int,
    n_weight_draws: int = 0,
    n_test: int = N_TEST,
    folds: int = 5,
) -> Split:
    """Draw from a target and put the draws in folds (80% and 20%, for one).

    Args:
        n_draws: draws to fit to.
        n_weight_draws: further draws for the weights alone.
        n_test: further draws for scores.

    Examples:
        >>> from amfvi import targets
        >>> split_target(targets.get("rings"), 50, seed=0, n_test=0).draws.shape
        torch.Size([50, 2])
    """
    drawn = target.sample(n_draws, generator_for(seed, "draws"))
    fold = torch.arange(n_draws) % folds
    if folds == 1:
        fold[: n_draws - round(TARGET_HELDOUT_SHARE * n_draws)] = TRAIN
    weight_draws = test = None
    if n_weight_draws:
        weight_draws = target.sample(n_weight_draws, generator_for(seed, "fresh"))
    if n_test:
        test = target.sample(n_test, generator_for(seed, "test"))
    return Split(
        draws=drawn,
        fold=fold,
        weight_draws=weight_draws,
        test=test,
        names=default_names(target.dim),
        transform=UnconstrainingTransform(Constraints.unbounded(target.dim)),
    )


def split_draws(draws: Draws, test_fraction: float, seed: int, folds: int) -> Split:
    """Assign whole blocks of each chain to the folds and to the test draws.

    Neighbors in a chain resemble each other, so each chain is cut into contiguous
    blocks and a block goes to one role; copies of a row follow the first of them. The shares
    are of distinct rows. One fold holds out 3/17 of what is not test.

    Raises:
        InputError: a role would be left without draws.

    Examples:
        >>> draws = Draws.from_array(torch.randn(200, 2, generator=generator_for(0)).double())
        >>> split = split_draws(draws, 0.15, seed=0, folds=5)
        >>> len(split.draws) + len(split.test)
        200
    """
    role, is_test = assign_folds(draws, test_fraction, seed, folds)
    fitted = draws.values[~is_test]
    weight = None if draws.sample_weight is None else draws.sample_weight[~is_test]
    has_test = test_fraction > 0
    test_weight = None if draws.sample_weight is None else draws.sample_weight[is_test]
    return Split(
        draws=fitted,
        fold=role[~is_test],
        weight_draws=None,
        test=draws.values[is_test] if has_test else None,
        names=draws.names,
        transform=UnconstrainingTransform.fit(draws.constraints, fitted, weight),
        sample_weight=weight,
        test_sample_weight=test_weight if has_test else None,
    )


def assign_folds(
    draws: Draws, test_fraction: float, seed: int, folds: int
) -> tuple[Tensor, Tensor]:
    """Assign draws to folds, as :func:`split_draws` does.

    Returns:
        The fold of each row (n,), −1 for one that all members train on, and which rows are
        for testing (n,), whose folds mean nothing.

    Raises:
        InputError: a role would be left without draws.

    Examples:
        >>> draws = Draws.from_array(torch.randn(200, 2, generator=generator_for(0)).double())
        >>> fold, is_test = assign_folds(draws, 0.2, seed=0, folds=4)
        >>> int(is_test.sum()), fold[~is_test].bincount().tolist()
        (40, [40, 40, 40, 40])
    """
    of_folds = [1 / folds] * folds if folds > 1 else [1 - HELDOUT_SHARE, HELDOUT_SHARE]
    names = [f"fold {f + 1}" for f in range(folds)] if folds > 1 else ["train", "held-out"]
    shares = np.array([*(share * (1 - test_fraction) for share in of_folds), test_fraction])
    role = assign_roles(draws, shares, seed)
    for number, (name, share) in enumerate(zip([*names, "test"], shares, strict=True)):
        count = int((role == number).sum())
        if share > 0 and count < 2:
            raise InputError(
                f"the {name} split would hold {count} of {len(draws)} draws; "
                "give more distinct draws"
            )
    is_test = role == len(names)
    return (role if folds > 1 else role - 1), is_test  # role 0 is TRAIN with one fold
