"""Pairs that the studies of conditional densities fit to, and fresh pairs to score on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.conditional.bounds import choose_bounds
from amfvi.conditional.pairs import Pairs, PairSplit, split_pairs
from amfvi.conditional.sources import to_pairs
from amfvi.randomness import generator_for
from amfvi.targets.conditional import CONDITIONAL, get
from amfvi.two_stage.options import FitOptions
from experiments.lab.tables import Row

__all__ = ["DIABETES", "FOLDS", "N_DIABETES", "Task", "n_coefficients", "read_task"]

DIABETES = "diabetes"
"""Name of the real data: how far the disease went in a year, given ten measurements."""

N_DIABETES = 353
"""Rows of it that are fitted to; the other 89 are scored."""

FOLDS = 5
"""Parts that an ensemble holds out one by one."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Pairs to fit to, and others to score on.

    Attributes:
        name: of the target, or ``DIABETES``.
        pairs: that all methods are fitted to.
        seed: of the pairs and of all fits.
        given: conditions to score on, (n_test, g).
        y: parameters to score on, (n_test, d).
        log_p: their exact log density in nats, (n_test,); None for real data.
    """

    name: str
    pairs: Pairs
    seed: int
    given: Tensor
    y: Tensor
    log_p: Tensor | None

    @property
    def dim(self) -> int:
        return self.y.shape[1]

    @cached_property
    def box(self) -> tuple[Tensor, Tensor] | None:
        """Bounds (d,) below and above; None where there are none."""
        constraints = self.pairs.draws.constraints
        low, high = (torch.tensor(b).double() for b in (constraints.lower, constraints.upper))
        is_box = bool(low.isfinite().all() and high.isfinite().all())
        return (low, high) if is_box else None

    @cached_property
    def split(self) -> PairSplit:
        """The pairs in folds, behind the map to the bounds that amfvi chooses for them."""
        split = split_pairs(self.pairs, 0.0, self.seed, FOLDS)
        return split.with_transform(choose_bounds(split, self.seed))

    def share_near_bounds(self, y: Tensor) -> float | None:
        """Share of points (…, d) within 1% of the interval of a bound; None without bounds."""
        if self.box is None:
            return None
        low, high = self.box
        margin = 0.01 * (high - low)
        near = ((y < low + margin) | (y > high - margin)).any(dim=-1)
        return float(near.double().mean())


def read_task(cell: Row) -> Task:
    """Draw the pairs of a cell with the keys task, n, n_test and seed."""
    name, seed = cell["task"], cell["seed"]
    if name == DIABETES:
        return _diabetes(cell["n"], seed)
    target = get(name)
    pairs = to_pairs(name, None, None, {}, FitOptions(n_draws=cell["n"], seed=seed))
    given, y = target.sample(cell["n_test"], generator_for(seed, "fresh pairs of a study"))
    return Task(
        name=name, pairs=pairs, seed=seed, given=given, y=y, log_p=target.log_prob(y, given=given)
    )


def n_coefficients(name: str) -> int | None:
    """Parameters of the linear regression that a linear target is; None for other targets."""
    if not name.startswith("linear"):
        return None
    d, g = CONDITIONAL[name].dim, CONDITIONAL[name].given_dim
    return d * (g + 1) + math.comb(d + 1, 2)


def _diabetes(n: int, seed: int) -> Task:
    """Rows of scikit-learn's data set, ``n`` of them drawn at random to fit to."""
    from sklearn.datasets import load_diabetes

    given, y = (torch.from_numpy(a).double() for a in load_diabetes(return_X_y=True, scaled=False))
    order = torch.randperm(len(y), generator=generator_for(seed, "rows of the diabetes data"))
    fitted, scored = order[:n], order[n:]
    return Task(
        name=DIABETES,
        pairs=Pairs.from_arrays(y[fitted][:, None], given[fitted]),
        seed=seed,
        given=given[scored],
        y=y[scored][:, None],
        log_p=None,
    )
