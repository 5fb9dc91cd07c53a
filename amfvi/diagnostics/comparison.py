"""Importance-weighted draws: a mixture compared with a density at its own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.importance import ImportanceEstimate, khat_threshold, psis
from amfvi.diagnostics.thresholds import LOG_UNDETECTED_RATIO, MAX_TELLING_KHAT
from amfvi.mixture import Mixture
from amfvi.sampler.resolution import evaluate_constrained
from amfvi.statistics import Estimate
from amfvi.two_stage.split import Split

__all__ = ["MIN_LOG_Q", "WeightedDraws", "importance_sample", "measure_eubo"]

MIN_LOG_Q = -1e5
"""Log density of a mixture at its own draw below which that is rounding error, nats."""


@dataclass(frozen=True, kw_only=True)
class WeightedDraws:
    """Draws of a mixture q with their importance weights towards a density p̃.

    Attributes:
        x: draws in the user's parameters, (n, d).
        log_weights: log p̃ − log q in nats, (n,); −∞ where the density is zero.
        importance: what they say about p̃: evidence, bounds, k̂, effective sample size.
        khat_bound: k̂ of weights that these are bounded by, if that is known.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> q = Mixture({"gmm": GMM().fit(torch.randn(500, generator=torch.Generator()))}, [1.0])
        >>> draws = importance_sample(q, UnconstrainedDensity(normal), 500, torch.Generator())
        >>> draws.reliable, round(draws.importance.log_z.mean, 1)
        (True, 0.9)
    """

    x: Tensor
    log_weights: Tensor
    importance: ImportanceEstimate
    khat_bound: float | None = None

    @classmethod
    def of(cls, x: Tensor, log_weights: Tensor, khat_bound: float | None) -> WeightedDraws:
        """Weighted draws with what they say."""
        importance = ImportanceEstimate.from_log_weights(log_weights, khat_bound=khat_bound)
        return cls(x=x, log_weights=log_weights, importance=importance, khat_bound=khat_bound)

    def joined(self, other: WeightedDraws) -> WeightedDraws:
        """These draws and others of the same mixture."""
        return WeightedDraws.of(
            torch.cat([self.x, other.x]),
            torch.cat([self.log_weights, other.log_weights]),
            self.khat_bound,
        )

    @property
    def reliable(self) -> bool:
        """Whether the tail of the weights is light enough for them to be used."""
        return self.importance.khat < khat_threshold(self.importance.n_draws)

    @property
    def weights(self) -> Tensor:
        """Pareto-smoothed importance weights, (n,), summing to one."""
        return self.smoothed_log_weights.exp() / len(self.x)

    @cached_property
    def smoothed_log_weights(self) -> Tensor:
        """Pareto-smoothed log weights (n,), of weights with mean one."""
        smoothed = torch.from_numpy(psis(self.log_weights.numpy())[0])
        return smoothed - smoothed.logsumexp(dim=0) + math.log(len(smoothed))

    def unlikely_share(self, among: Tensor | None = None) -> Estimate:
        """Share of the mass where the mixture has next to no density, by the weights.

        In many dimensions even a good mixture has some. Zero where the tail of the weights is too
        heavy for them to tell.

        Args:
            among: which draws count, (n,); all if not given.
        """
        log_weights = self.smoothed_log_weights
        is_unlikely = log_weights > LOG_UNDETECTED_RATIO
        if among is not None:
            is_unlikely = is_unlikely & among
        if self.importance.khat >= MAX_TELLING_KHAT:
            return Estimate(0.0, 0.0)
        return Estimate.from_terms(torch.where(is_unlikely, log_weights.exp(), 0.0))


def importance_sample(
    mixture: Mixture,
    density: UnconstrainedDensity,
    n_draws: int,
    generator: torch.Generator,
    *,
    khat_bound: float | None = None,
) -> WeightedDraws:
    """Draw from the mixture and weigh the draws; ``n_draws`` evaluations of the density.

    Args:
        khat_bound: k̂ of weights that these are bounded by, if that is known.

    Raises:
        OutOfBudgetError: fewer evaluations are left.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> q = Mixture({"gmm": GMM().fit(torch.randn(500, generator=torch.Generator()))}, [1.0])
        >>> draws = importance_sample(q, UnconstrainedDensity(normal), 500, torch.Generator())
        >>> draws.reliable, round(draws.importance.log_z.mean, 1)
        (True, 0.9)
    """
    x = mixture.sample((n_draws,), generator)
    log_q = mixture.log_prob(x)
    log_weights = evaluate_constrained(density, x) - log_q
    # So far out that a flow's map cannot be undone in floating-point numbers.
    log_weights = torch.where(log_q > MIN_LOG_Q, log_weights, -math.inf)
    return WeightedDraws.of(x, log_weights, khat_bound)


def measure_eubo(mixture: Mixture, density: UnconstrainedDensity, split: Split) -> Estimate | None:
    """E_p[log p̃ − log q] at test draws of the posterior, nats, which is log Z at least.

    None without test draws, or with too few evaluations left for them.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> fit = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> eubo = measure_eubo(fit, UnconstrainedDensity(normal), fit.summary.split)
        >>> abs(eubo.mean - 0.919) < 0.05  # ½ log 2π
        True
    """
    if split.test is None:
        return None
    try:
        log_p = evaluate_constrained(density, split.test)
    except OutOfBudgetError:
        return None
    return Estimate.from_terms(log_p - mixture.log_prob(split.test), split.test_sample_weight)
