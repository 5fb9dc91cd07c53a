"""Assign the sampler's draws to folds and the test set."""

from __future__ import annotations

import warnings
from dataclasses import replace

from amfvi.density.log_density import LogDensity
from amfvi.draws.draws import Draws
from amfvi.errors import AmfviWarning
from amfvi.sampler.runs import PosteriorSample
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.split import Split, split_draws

__all__ = ["split_sample"]


def split_sample(
    sample: PosteriorSample, log_density: LogDensity, options: FitOptions, *, compress_tails: bool
) -> Split:
    """Split draws of the sampler by run, as the draws of any chains are.

    Args:
        compress_tails: whether heavy tails of unconstrained parameters are compressed.

    Examples:
        >>> from amfvi.density.unconstrained import UnconstrainedDensity
        >>> from amfvi.sampler.runs import sample_posterior
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> sample = sample_posterior(UnconstrainedDensity(normal), 200, seed=0)
        >>> split = split_sample(sample, normal, FitOptions(), compress_tails=True)
        >>> split.transform.is_identity
        True
    """
    with warnings.catch_warnings():  # the verdict supersedes warnings about draws
        warnings.simplefilter("ignore", AmfviWarning)
        draws = Draws.from_array(
            sample.x,
            names=log_density.names,
            constraints=log_density.constraints,
            sample_weight=sample.sample_weight,
            chain_ids=sample.run,
            source="the sampler",
        )
    split = split_draws(draws, options.test_share, options.seed, options.folds)
    if not compress_tails:
        return split
    return replace(split, transform=split.transform.with_compressed_tails(split.draws))
