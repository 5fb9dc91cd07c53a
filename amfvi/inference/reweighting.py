"""Weighted draws of a mixture in the place of a sampler's draws."""

from __future__ import annotations

import math

import torch

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.sampler.runs import PosteriorSample

__all__ = ["sample_from_weights"]


def sample_from_weights(weighted: WeightedDraws, unconstrained_dim: int) -> PosteriorSample:
    """Turn weighted draws of a mixture into a sample of the posterior.

    Args:
        unconstrained_dim: of the space of the sampler's history, which stays empty.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> posterior = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> sample = sample_from_weights(posterior.weighted_draws(), 1)
        >>> print(f"{float(sample.sample_weight.mean()):.3f}")
        1.000
    """
    weights = weighted.smoothed_log_weights.exp()
    kept = weights > 0
    log_z = weighted.importance.log_z
    return PosteriorSample(
        x=weighted.x[kept],
        sample_weight=weights[kept] / weights[kept].mean(),
        run=torch.zeros(int(kept.sum()), dtype=torch.int64),
        log_z=log_z,
        log_z_of_runs=(log_z,),
        max_mean_discrepancy_in_sd=math.nan,
        reference="the fitted mixture",
        n_temperatures=1,
        history=torch.empty(0, unconstrained_dim, dtype=torch.float64),
        history_log_p=torch.empty(0, dtype=torch.float64),
        stopped_by=None,
    )
