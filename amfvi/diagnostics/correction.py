"""Draws of a posterior from those of a mixture, corrected by weights and Markov chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.errors import InputError
from amfvi.mixture import Mixture
from amfvi.sampler.latent_walk import walk_in_latent_space
from amfvi.statistics import resample
from amfvi.transport import choose_flow

__all__ = ["correct_draws"]

STEPS = 16
"""Evaluations of the density that each draw is moved by."""

PILOT_DRAWS = 1_000
"""Weighted draws that tell how many are needed."""

MAX_FACTOR = 10
"""Weighted draws per corrected draw at most."""


def correct_draws(
    mixture: Mixture, density: UnconstrainedDensity, n: int, generator: torch.Generator
) -> Tensor:
    """Draw from a posterior: ``n`` points (n, d) in the user's parameters.

    Draws of the mixture are resampled by their importance weights, from so many that
    repeats are few, and then moved by steps that leave the posterior invariant, which ends
    the repeats. Some n · (1/efficiency + 16) evaluations.

    Raises:
        InputError: no draw of the mixture has a positive density.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = 0.8 * torch.randn(500, 1, generator=generator).double()
        >>> narrow = Mixture({"gmm": GMM(max_components=1).fit(draws)}, [1.0])
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1))
        >>> corrected = correct_draws(narrow, normal, 2000, generator)
        >>> abs(float(corrected.std()) - 1) < 0.05
        True
    """
    pilot = importance_sample(mixture, density, PILOT_DRAWS, generator)
    if not pilot.importance.ess > 0:
        raise InputError(
            "the log density is -inf at every draw of the mixture; is it the one that the "
            "mixture was fitted to?"
        )
    factor = min(1 / pilot.importance.efficiency, MAX_FACTOR)
    weighted = importance_sample(mixture, density, math.ceil(factor * n), generator)
    density = density.with_transform(mixture.transform)
    y = density.transform.to_unconstrained(weighted.x)[0]
    y = torch.where(y.isfinite(), y, y.nanmedian(dim=0).values)
    start = y[resample(weighted.weights, n, generator)]
    walk = walk_in_latent_space(density, choose_flow(mixture, y), start, STEPS * n, generator)
    return density.transform.from_unconstrained(walk.last)
