"""Samplers of other libraries that estimate an evidence, each with its own defaults.

A sampler takes a log density with its number of parameters, the box of a uniform prior, a
seed and, where it has such a limit, the most evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from experiments.lab.peers import Array

__all__ = ["SAMPLERS", "Box", "CountedDensity", "SamplerResult", "UnnormalizedDensity"]

Box = tuple[tuple[float, float], ...]
"""The lowest and the highest value of every parameter."""

N_DRAWS = 20_000
"""Draws of equal weight that a sampler's weighted ones are resampled to."""


class UnnormalizedDensity(Protocol):
    """A target, or a known density."""

    @property
    def dim(self) -> int: ...

    @property
    def log_density(self) -> Callable[[Tensor], Tensor]: ...


class CountedDensity:
    """A log density of numpy arrays (n, d), and how many points it was asked for."""

    def __init__(self, density: UnnormalizedDensity) -> None:
        self.density = density
        self.n_evaluations = 0

    def __call__(self, x: Array) -> Array:
        x = np.atleast_2d(x)
        self.n_evaluations += len(x)
        return self.density.log_density(torch.from_numpy(np.ascontiguousarray(x))).numpy()


@dataclass(frozen=True, kw_only=True)
class SamplerResult:
    """What a sampler found.

    Attributes:
        log_z: log ∫ exp ``log_density`` over the box, nats.
        n_evaluations: of the log density.
        draws: of the posterior, of equal weight, (n, d).
    """

    log_z: float
    n_evaluations: int
    draws: Tensor


Sampler = Callable[[UnnormalizedDensity, Box, int, int | None], SamplerResult]
"""A sampler of a density in a box, by a seed, with at most so many evaluations."""


def nautilus(
    density: UnnormalizedDensity, box: Box, seed: int, max_evaluations: int | None = None
) -> SamplerResult:
    """Importance nested sampling with neural networks."""
    import nautilus as library

    counted, (low, high) = CountedDensity(density), np.array(box).T
    sampler = library.Sampler(
        lambda u: low + (high - low) * u, counted, n_dim=len(box), vectorized=True,
        pass_dict=False, seed=seed,
    )  # fmt: skip
    limit = {} if max_evaluations is None else {"n_like_max": max_evaluations}
    sampler.run(verbose=False, **limit)
    points, log_weights, _ = sampler.posterior()
    return SamplerResult(
        log_z=float(sampler.log_z) + float(np.log(high - low).sum()),
        n_evaluations=counted.n_evaluations,
        draws=_resample(points, np.exp(log_weights - log_weights.max()), seed),
    )


def pocomc(
    density: UnnormalizedDensity, box: Box, seed: int, max_evaluations: int | None = None
) -> SamplerResult:
    """Preconditioned Monte Carlo, with as many threads as torch has by default.

    Its own default is a single thread. It ends when it has converged: it has no limit of
    evaluations.
    """
    import pocomc as library
    from scipy.stats import uniform

    counted = CountedDensity(density)
    prior = library.Prior([uniform(low, high - low) for low, high in box])
    sampler = library.Sampler(
        prior, counted, vectorize=True, random_state=seed, pytorch_threads=None
    )
    sampler.run(progress=False)
    samples, weights, _, _ = sampler.posterior()
    return SamplerResult(
        log_z=float(sampler.evidence()[0]) + float(sum(np.log(high - low) for low, high in box)),
        n_evaluations=counted.n_evaluations,
        draws=_resample(samples, weights, seed),
    )


def _resample(points: Array, weights: Array, seed: int) -> Tensor:
    """Draws (n, d) in proportion to their weights."""
    rows = np.random.default_rng(seed).choice(len(points), N_DRAWS, p=weights / weights.sum())
    return torch.from_numpy(np.ascontiguousarray(points[rows], dtype=np.float64))


SAMPLERS: dict[str, Sampler] = {"nautilus": nautilus, "pocomc": pocomc}
"""Samplers by the name of their module."""
