"""Expectation maximization of mixtures of linear regressions, for all members at once.

The components are Gaussians of condition and parameters whose marginal of the condition is one
and the same: given a condition, their weights are what they are everywhere, and their means are
linear in it. The likelihood is that of the parameters given the condition alone (DeSarbo & Cron
1988, doi:10.1007/BF01897167; Gershenfeld's cluster-weighted model, which
:mod:`~amfvi.experts.elliptical.em` fits, has a marginal for each component).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.problem import MixtureProblem
from amfvi.experts.folds import Folds

__all__ = ["RegressionProblem"]

CONCENTRATION = 0.5
"""Of the Dirichlet distribution that responsibilities of a random start are drawn from."""


class RegressionProblem(MixtureProblem):
    """The EM steps of a mixture of linear regressions.

    Args:
        z: whitened rows (c, y), (n, given + d), float64.
        folds: with the number of coordinates of the condition.

    Examples:
        >>> z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> problem = RegressionProblem(z, Folds(z, torch.arange(100) % 2, given=1))
        >>> line = problem.random_components(1, np.random.default_rng(0))
        >>> line.factors[0, 0, 0, 0], line.means[0, 0, 0]  # c is standard normal by convention
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """

    def __init__(self, z: Tensor, folds: Folds) -> None:
        super().__init__(z, folds, gaussian=True)
        self.given = folds.given
        of_condition = z[:, : self.given].square().sum(dim=1)
        self.log_marginal = -0.5 * (of_condition + self.given * math.log(2 * math.pi))

    def random_components(self, k: int, random: np.random.Generator) -> Components:
        """Components of responsibilities that are drawn at random, row by row.

        Regressions may cross, or lie in one place and differ in width: then no clusters of rows
        are a good start.
        """
        drawn = random.dirichlet(np.full(k, CONCENTRATION), size=len(self.z))
        weights = torch.from_numpy(drawn).T.to(self.z) * self.train_weights[:, None]
        moments = weights @ self.monomials
        return self._maximize(
            weights.sum(dim=2), moments, torch.full_like(self.train_mass, math.inf)
        )

    def _maximize(self, mass: Tensor, moments: Tensor, freedom: Tensor) -> Components:
        """Weighted linear regressions, written as components with a standard normal condition."""
        free = super()._maximize(mass, moments, freedom)
        given, means, factors = self.given, free.means.clone(), free.factors.clone()
        slopes = torch.linalg.solve_triangular(
            factors[..., :given, :given], factors[..., given:, :given], upper=False, left=False
        )
        means[..., given:] -= (slopes @ means[..., :given, None]).squeeze(-1)
        means[..., :given] = 0
        factors[..., :given, :given] = torch.eye(given).to(factors)
        factors[..., given:, :given] = slopes
        return replace(free, means=means, factors=factors)
