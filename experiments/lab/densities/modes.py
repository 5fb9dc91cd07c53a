"""Several modes: unequal in mass and in width, spikes, label switching, grids, nearly touching."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from amfvi.randomness import generator_for
from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    random_rotation,
    torch_function,
)
from experiments.lab.densities.parts import Mixture, choose, log_sum_exp, normals

__all__ = ["LabelSwitching", "known_mixture", "mode_densities"]

SMALL_MODES = (
    (0.1, 6, 2), (0.1, 20, 2), (0.1, 10, 10), (0.01, 8, 2), (0.01, 30, 2), (0.01, 10, 10),
    (0.005, 6, 1), (0.005, 10, 5),
)  # fmt: skip
"""Mass of the smaller of two modes, their distance in standard deviations, and d."""

SPIKES = ((0.2, 0.01, 2), (0.05, 0.001, 3), (0.3, 0.02, 5), (0.1, 0.01, 10))
"""Mass of a spike inside a standard Gaussian, its standard deviation, and d."""

SPIKE_PLACE = 0.7
"""Each coordinate of a spike's center."""

NARROW = (2, 5, 10)
"""Numbers of dimensions of a narrow mode beside a standard Gaussian, not inside it."""

TOUCHING = ((2.5, 2), (3.5, 2), (4.0, 10))
"""Distance of two equal modes in standard deviations, and d."""

DATA = {
    2: (-2.6, -1.9, -3.3, -2.2, 1.8, 2.4, 3.1, 2.7),
    3: (-5.2, -4.6, -0.3, 0.4, 0.1, 4.7, 5.5),
    4: (-6.1, -5.5, -1.9, 2.2, 5.8, 6.6),
}
"""Observations, by the number of components that they are explained by."""


def known_mixture(name: str, family: str, mixture: Mixture, source: str) -> KnownDensity:
    """Make the density of the library of a mixture of Gaussians."""
    return KnownDensity(
        name=name,
        family=family,
        dim=mixture.dim,
        log_density=torch_function(mixture.formula),
        log_z=mixture.log_z,
        sample=mixture.sample,
        source=source,
        exact_moments=mixture.exact_moments,
        jax_log_density=jax_function(mixture.formula),
    )


def _round_modes(
    name: str, source: str, weights: Sequence[float], means: Tensor, sds: Sequence[float]
) -> KnownDensity:
    """Modes N(mean, sd² I)."""
    scales = torch.tensor(sds, dtype=torch.float64)[:, None].expand(means.shape).contiguous()
    mixture = Mixture(
        weights=torch.tensor(weights, dtype=torch.float64), means=means.double(), scales=scales
    )
    return known_mixture(name, "modes", mixture, source)


def _two(dim: int, distance: float) -> Tensor:
    """Two centers a distance apart along the diagonal, the first at the origin; (2, d)."""
    second = torch.full((dim,), distance / math.sqrt(dim), dtype=torch.float64)
    return torch.stack([torch.zeros(dim, dtype=torch.float64), second])


@dataclass(frozen=True, kw_only=True)
class LabelSwitching:
    """The K means of a mixture model with known weights 1/K and standard deviation 1.

    y_i ~ (1/K) Σ_k N(m_k, 1) and m_k ~ N(0, ``prior_sd``²), which has K! equal modes at least.
    The posterior is a mixture of Kⁿ Gaussians, one for each way of assigning the n
    observations to components: its integral and its draws are exact.

    Attributes:
        data: n observations.
        components: K.
        prior_sd: standard deviation of the prior.
    """

    data: tuple[float, ...]
    components: int
    prior_sd: float = 6.0

    @cached_property
    def _assignments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log evidences (Kⁿ,), means and standard deviations (Kⁿ, K) of each assignment."""
        k, y = self.components, torch.tensor(self.data, dtype=torch.float64)
        labels = torch.tensor(list(itertools.product(range(k), repeat=len(y))))
        member = torch.nn.functional.one_hot(labels, k).double()
        precision = member.sum(dim=1) + self.prior_sd**-2
        total = torch.einsum("ank,n->ak", member, y)
        log_prior_scale = 0.5 * (precision * self.prior_sd**2).log().sum(dim=1)
        square = y.square().sum() - (total.square() / precision).sum(dim=1)
        log_evidence = -0.5 * square - log_prior_scale - len(y) * math.log(k)
        return log_evidence - 0.5 * len(y) * LOG_TWO_PI, total / precision, precision.rsqrt()

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        prior = self.components * (math.log(self.prior_sd) + 0.5 * LOG_TWO_PI)
        return float(torch.logsumexp(self._assignments[0], dim=0)) + prior

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of means (…, K)."""
        data = torch.tensor(self.data, dtype=torch.float64).numpy()
        terms = -0.5 * (xp.asarray(data)[:, None] - x[..., None, :]) ** 2
        likelihood = log_sum_exp(terms, xp) - math.log(self.components) - 0.5 * LOG_TWO_PI
        return likelihood.sum(-1) - 0.5 * ((x / self.prior_sd) ** 2).sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, K) exactly."""
        log_evidence, means, sds = self._assignments
        which = choose(n, torch.softmax(log_evidence, dim=0), generator)
        return means[which] + sds[which] * normals(n, self.components, generator)

    def known(self) -> KnownDensity:
        """Make the density of the library."""
        return KnownDensity(
            name=f"label-switching-d{self.components}",
            family="modes",
            dim=self.components,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source=f"means of a mixture model with {len(self.data)} observations, K! modes",
            jax_log_density=jax_function(self.formula),
        )


def _scattered(modes: int, dim: int, spread: float) -> Tensor:
    """Centers (K, d) from N(0, spread² I)."""
    return spread * normals(modes, dim, generator_for(modes, "centers", dim))


def _crossed() -> KnownDensity:
    """Three long and narrow Gaussians in four dimensions, each along a direction of its own."""
    mixture = Mixture(
        weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        means=_scattered(3, 4, 3.0),
        scales=torch.tensor([[3.0, 0.3, 0.3, 0.3]] * 3, dtype=torch.float64),
        axes=torch.stack([random_rotation(4, seed) for seed in range(3)]),
    )
    return known_mixture("modes-long-d4", "modes", mixture, "narrow modes in three directions")


def mode_densities() -> list[KnownDensity]:
    """List the family."""
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    return [
        *(
            _round_modes(
                f"modes-widths-d{dim}", "half in sd .2, half in sd 1, ten apart",
                [0.5, 0.5], _two(dim, 10.0), [0.2, 1.0],
            )
            for dim in (2, 10)
        ),
        *(
            _round_modes(
                f"modes-mass{mass:g}-distance{distance}-d{dim}", "a small mode beside a large one",
                [1 - mass, mass], _two(dim, distance), [1.0, 1.0],
            )
            for mass, distance, dim in SMALL_MODES
        ),
        *(
            _round_modes(
                f"spike-mass{mass:g}-sd{sd:g}-d{dim}", "a spike inside a standard Gaussian",
                [1 - mass, mass], _two(dim, SPIKE_PLACE * math.sqrt(dim)), [1.0, sd],
            )
            for mass, sd, dim in SPIKES
        ),
        *(
            _round_modes(
                f"modes-narrow-d{dim}", "15% in sd .1, three away from a standard Gaussian",
                [0.85, 0.15], _two(dim, 3.0), [1.0, 0.1],
            )
            for dim in NARROW
        ),
        *(LabelSwitching(data=data, components=k).known() for k, data in DATA.items()),
        _round_modes("modes-grid4-d2", "2 × 2", [0.25] * 4, 6 * grid[[0, 1, 3, 4]], [0.5] * 4),
        _round_modes("modes-grid9-d2", "3 × 3", [1 / 9] * 9, 8 * grid, [0.7] * 9),
        _round_modes(
            "modes-five-d5", "unequal masses and widths",
            [0.4, 0.3, 0.15, 0.1, 0.05], _scattered(5, 5, 5.0), [1.0, 0.5, 1.5, 0.7, 1.0],
        ),
        _round_modes("modes-eight-d10", "equal", [1 / 8] * 8, _scattered(8, 10, 5.0), [1.0] * 8),
        *(
            _round_modes(
                f"modes-touching{distance:g}-d{dim}", "two equal modes that nearly touch",
                [0.5, 0.5], _two(dim, distance), [1.0, 1.0],
            )
            for distance, dim in TOUCHING
        ),
        _crossed(),
    ]  # fmt: skip
