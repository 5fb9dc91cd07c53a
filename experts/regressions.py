"""Mixture of linear regressions, by expectation maximization (DeSarbo & Cron 1988)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.config import EllipticalConfig
from amfvi.experts.elliptical.em import ascend
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.elliptical.regressions import RegressionProblem
from amfvi.experts.folds import Folds
from amfvi.experts.reports import FitReport

__all__ = ["RegressionMixture"]

MAX_RANDOM = 4
"""Most components for which EM starts at random responsibilities too."""


@dataclass(frozen=True, kw_only=True)
class RegressionMixture(EllipticalConfig):
    """Settings of a mixture of linear regressions; it needs a condition.

    Each component is a Gaussian whose mean is linear in the condition, with a covariance and a
    weight that are the same everywhere. It has few parameters, and is hard to beat where that is
    how the parameters depend on the condition: an unknown shift, several branches that are
    straight, residuals that are no Gaussian.

    EM starts at clusters of the pairs, for few components at random responsibilities as well, and
    the likelier end is kept.

    Examples:
        >>> import torch
        >>> c = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> sign = torch.where(torch.arange(300)[:, None] % 2 == 0, 1.0, -1.0)
        >>> noise = torch.randn(300, 1, generator=torch.Generator().manual_seed(1)).double()
        >>> crossed = RegressionMixture().fit(
        ...     torch.cat([c, sign * c + 0.1 * noise], dim=1), given=1, folds=2)
        >>> crossed.components.means.shape[1], crossed.sample_given(c[:5]).shape
        (2, torch.Size([5, 1]))
    """

    kind: ClassVar[str] = "rmm"
    gaussian: ClassVar[bool] = True
    max_components: int = 12
    tolerance: float = 1e-4

    def fit_folds(self, folds: Folds, **options: Any) -> tuple[EllipticalMixture, FitReport]:
        """Fit more and more regressions; see :meth:`ExpertConfig.fit_folds`.

        Raises:
            UsageError: there is no condition.
        """
        if not folds.given:
            raise UsageError(
                "rmm is a density given a condition, and there is none: give given=, or take gmm"
            )
        return super().fit_folds(folds, **options)

    def _problem(self, z: Tensor, folds: Folds) -> RegressionProblem:
        return RegressionProblem(z, folds)

    def _fit_components(  # type: ignore[override]  # of its own problem
        self, problem: RegressionProblem, count: int, random: np.random.Generator
    ) -> tuple[Components, float, float]:
        starts = [problem.seed_components(count, random)]
        if 1 < count <= MAX_RANDOM:
            starts.append(problem.random_components(count, random))
        ends = [
            ascend(problem, start, tolerance=self.tolerance, max_iterations=self.max_iterations)
            for start in starts
        ]
        return min(ends, key=lambda end: end[1])
