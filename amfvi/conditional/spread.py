"""How much wider than trained a conditional expert should be.

Fitted to few pairs, an expert is too narrow: its residuals are those of the pairs it has seen.
One number for each expert mends that. Averaging the members of an ensemble widens them too, so
what a member loses on held-out pairs is compared with what the average gains.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.experts import Expert, Folds
from amfvi.experts.optimism import average_members
from amfvi.statistics import effective_sample_size

__all__ = ["widen"]

STEP = 1.025
"""Ratio of two spreads that are compared."""

MAX_SPREAD = 1.5
"""Largest spread."""

PRIOR_SD = 0.05
"""Standard deviation of the log spread around that of a linear regression, before the pairs."""

MAX_ROWS = 2_000
"""Most held-out pairs, by folds, that a spread is chosen on."""

N_DRAWS = 1_000
"""About how many draws of the ensemble the gain from averaging is measured on."""


def widen(expert: Expert, folds: Folds, generator: torch.Generator) -> Expert:
    """Widen a conditional expert by the factor, at least 1, that suits pairs it has not seen.

    The factor maximizes the mean log density of held-out pairs under the members that did not
    train on them, plus the gain from averaging the members, log mean q − mean log q at draws of
    the ensemble, less the penalty of a prior: log-normal around the factor by which a linear
    regression with as many pairs is too narrow.

    Returns:
        The wider expert; the same one where nothing is gained.

    Examples:
        >>> from amfvi.experts import GMM
        >>> generator = torch.Generator().manual_seed(0)
        >>> pairs = torch.randn(60, 12, generator=generator, dtype=torch.float64)
        >>> folds = Folds(pairs, torch.arange(60) % 5, given=8)
        >>> expert, _ = GMM(max_components=1).fit_folds(folds, generator=generator)
        >>> wider = widen(expert, folds, generator)
        >>> fresh = torch.randn(1000, 12, generator=generator, dtype=torch.float64)
        >>> bool(wider.log_prob(fresh).mean() > expert.log_prob(fresh).mean() + 0.1)
        True
    """
    if expert.widened(STEP) is expert:  # it has no wider form
        return expert
    folds = folds.at_most(MAX_ROWS)
    n = _n_heldout(folds)
    expected = math.log(_spread_of_a_regression(folds))
    drawn = _draws(expert, folds, generator)
    shares = folds.heldout_sample_weight

    def loss(spread: float) -> float:
        wider = expert.widened(spread)
        log_q = wider.log_prob_out_of_fold(folds).cpu()
        mean = log_q.mean() if shares is None else (shares * log_q).sum()
        penalty = (math.log(spread) - expected) ** 2 / (2 * PRIOR_SD**2)
        return penalty - n * (float(mean) + _gain_of_averaging(wider, drawn))

    best, least = 1.0, loss(1.0)
    while best < MAX_SPREAD and (other := loss(best * STEP)) < least:
        best, least = best * STEP, other
    return expert.widened(best)


def _n_heldout(folds: Folds) -> float:
    """How many equally weighted held-out pairs there are."""
    shares = folds.heldout_sample_weight
    return int(folds.is_heldout.sum()) if shares is None else effective_sample_size(shares)


def _spread_of_a_regression(folds: Folds) -> float:
    """By how much the residuals that a linear regression leaves are narrower than fresh ones.

    Their variance is (1 − p/n) times that of the noise, that of a fresh one 1 + p/n.
    """
    share = (folds.given + 1) / min(len(rows) for rows in folds.train_rows)
    return math.sqrt((1 + share) / (1 - share)) if share < 0.5 else MAX_SPREAD


def _draws(expert: Expert, folds: Folds, generator: torch.Generator) -> Tensor:
    """Draws of the ensemble behind the conditions of the pairs, (m, given + d)."""
    condition = folds.draws[:, : folds.given]
    condition = condition[:: math.ceil(len(condition) / N_DRAWS)]
    condition = condition.repeat(max(1, round(N_DRAWS / len(condition))), 1)
    return torch.cat([condition, expert.sample_given(condition, generator).cpu()], dim=1)


@torch.no_grad()
def _gain_of_averaging(expert: Expert, drawn: Tensor) -> float:
    """Mean log density of the ensemble less that of its members, at draws of it, nats."""
    if expert.n_members == 1:
        return 0.0
    points = drawn.to(expert.device)
    log_q = expert._log_prob(points.expand(expert.n_members, *points.shape))
    return float((average_members(log_q) - log_q.mean(dim=0)).mean())
