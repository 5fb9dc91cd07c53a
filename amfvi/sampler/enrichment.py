"""More draws far out, each of smaller weight, so that a fit learns the tails as well.

A thousandth of the mass may have a third of the variance: a dozen of ten thousand draws, too
few to fit to. Chains in the posterior times the squared distance give many there. Both samples
together, weighted by the balance heuristic (Veach & Guibas 1995), are a sample of the posterior.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from amfvi.constraints.tails import TailCompression
from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.outer_chains import OuterChains
from amfvi.sampler.runs import PosteriorSample

__all__ = ["enrich"]

N_CHAINS = 100
"""Chains that walk where the variance comes from."""

THINNING = 4
"""Steps from one state that is kept to the next."""

VERY_HEAVY = 200.0
"""Distance from the median, in median absolute deviations, that only a tail without a variance
reaches."""


@torch.no_grad()
def enrich(
    sample: PosteriorSample, density: UnconstrainedDensity, generator: torch.Generator
) -> PosteriorSample:
    """Add draws far out to a sample.

    The sample itself where tails are so heavy that there is no variance, or where too few
    evaluations are left.

    Args:
        density: over unconstrained space, in which distances are measured.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.sampler.runs import sample_posterior
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> sample = sample_posterior(density, 2000, seed=0)
        >>> rich = enrich(sample, density, torch.Generator().manual_seed(0))
        >>> int((rich.x.abs() > 2).sum()) > 1.5 * int((sample.x.abs() > 2).sum())
        True
        >>> 0.9 < float((rich.sample_weight * rich.x[:, 0].square()).mean()) < 1.1
        True
    """
    y = density.transform.to_unconstrained(sample.x)[0]
    usable = y.isfinite().all(dim=1)
    if TailCompression.fit(y[usable], VERY_HEAVY).is_needed:
        return sample
    weights = sample.sample_weight if sample.sample_weight is not None else y.new_ones(len(y))
    chains = OuterChains(density, y[usable], weights[usable], share=1.0)
    try:
        states = [state for state, _ in chains.walk(N_CHAINS, generator)][::THINNING]
    except OutOfBudgetError:
        return sample
    outer = torch.stack(states, dim=1).flatten(0, 1)  # chain after chain
    x = density.transform.from_unconstrained(outer)
    kept = x.isfinite().all(dim=1)
    outer, x = outer[kept], x[kept]
    squares = chains.squared_distance(torch.cat([y[usable], outer]))
    n, mean_square = int(usable.sum()), chains.mean_square
    shares = 1 / (n + len(outer) * squares / mean_square)
    shares[:n] *= weights[usable]
    return replace(
        sample,
        x=torch.cat([sample.x[usable], x]),
        sample_weight=shares / shares.mean(),
        run=torch.cat([sample.run[usable], sample.run.max() + sample.run.new_ones(len(outer))]),
    )
