"""Samplers of other libraries that estimate an evidence, each with its own defaults.

A sampler takes the name of a target, the box of a uniform prior and a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from amfvi.targets import Target, get
from experiments.lab.peers import Array

__all__ = ["SAMPLERS", "Box", "CountedDensity", "SamplerResult"]

Box = tuple[float, float]
"""The lowest and the highest value of every parameter."""


class CountedDensity:
    """A target's log density of numpy arrays (n, d), and how many points it was asked for."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.n_evaluations = 0

    def __call__(self, x: Array) -> Array:
        x = np.atleast_2d(x)
        self.n_evaluations += len(x)
        return self.target.log_density(torch.from_numpy(np.ascontiguousarray(x))).numpy()


@dataclass(frozen=True, kw_only=True)
class SamplerResult:
    """What a sampler found.

    Attributes:
        log_z: log ∫ exp ``log_density`` over the box, nats.
        n_evaluations: of the log density.
    """

    log_z: float
    n_evaluations: int


def nautilus(target: str, box: Box, seed: int) -> SamplerResult:
    """Importance nested sampling with neural networks."""
    import nautilus as library

    density, (low, high) = CountedDensity(get(target)), box
    dim = density.target.dim
    sampler = library.Sampler(
        lambda u: low + (high - low) * u, density, n_dim=dim, vectorized=True, pass_dict=False,
        seed=seed,
    )  # fmt: skip
    sampler.run(verbose=False)
    return SamplerResult(
        log_z=float(sampler.log_z) + dim * math.log(high - low),
        n_evaluations=density.n_evaluations,
    )


def pocomc(target: str, box: Box, seed: int) -> SamplerResult:
    """Preconditioned Monte Carlo, with as many threads as torch has by default.

    Its own default is a single thread.
    """
    import pocomc as library
    from scipy.stats import uniform

    density, (low, high) = CountedDensity(get(target)), box
    dim = density.target.dim
    prior = library.Prior([uniform(low, high - low)] * dim)
    sampler = library.Sampler(
        prior, density, vectorize=True, random_state=seed, pytorch_threads=None
    )
    sampler.run(progress=False)
    return SamplerResult(
        log_z=float(sampler.evidence()[0]) + dim * math.log(high - low),
        n_evaluations=density.n_evaluations,
    )


SAMPLERS: dict[str, Callable[[str, Box, int], SamplerResult]] = {
    "nautilus": nautilus,
    "pocomc": pocomc,
}
"""Samplers by the name of their module."""
