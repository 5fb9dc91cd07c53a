"""An unnormalized log density with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi import LogDensity
from amfvi.constraints.constraints import Constraints, default_names
from amfvi.randomness import generator_for

__all__ = ["Box", "Formula", "KnownDensity", "jax_function", "random_rotation", "torch_function"]

Box = tuple[tuple[float, float], ...]
"""The lowest and the highest value of every parameter."""

Formula = Callable[[Any, ModuleType], Any]
"""A log density written once: from points (…, d) and their module, torch or jax.numpy."""

LOG_TWO_PI = math.log(2 * math.pi)
"""log 2π."""

BOX_DRAWS = 100_000
"""Exact draws whose range gives the natural box."""

QUANTILE_DRAWS = 100_000
"""Exact draws that a distribution function is compared with."""

MOMENT_DRAWS = 400_000
"""Exact draws whose means and standard deviations are taken for the right ones."""

BOX_MARGIN = 0.5
"""Share of that range which is added on each side."""


@dataclass(frozen=True, kw_only=True)
class KnownDensity:
    """A log density whose integral, and mostly whose draws, are known.

    Attributes:
        name: unique among all families.
        family: what kind it is.
        dim: number of parameters d.
        log_density: from float64 tensors (n, d) to (n,), nats, not normalized.
        log_z: log ∫ exp ``log_density``, nats; None: there is no such number, or no call of
            the function tells it, so that a fit is to be refused or not to be trusted.
        sample: ``sample(n, generator)`` gives exact draws (n, d); None where there are none.
        source: where the definition comes from, or what is hard about it.
        constraints: as ``constraints=`` of :class:`amfvi.LogDensity`.
        box: as ``box=`` of :class:`amfvi.LogDensity`: what the fit is told.
        gradients: whether torch can differentiate what :meth:`make` hands over.
        moments: whether every parameter has a mean and a standard deviation that some thousands
            of draws tell: fourth moments are finite and not huge.
        light_tails: whether a box can hold all but about 1e-6 of the mass without being
            many orders of magnitude wider than most of it.
        exact_moments: means and standard deviations; None: they are those of many draws.
        jax_log_density: the same density of one point (d,) of jax; None where there is none.
        fresh: makes the function anew, for one that changes as it is called.
    """

    name: str
    family: str
    dim: int
    log_density: Callable[[Tensor], Tensor]
    log_z: float | None
    sample: Callable[[int, torch.Generator], Tensor] | None
    source: str = ""
    constraints: Any = None
    box: Box | None = None
    gradients: bool = True
    moments: bool = True
    light_tails: bool = True
    exact_moments: tuple[Tensor, Tensor] | None = None
    jax_log_density: Callable[[Any], Any] | None = None
    fresh: Callable[[], Callable[[Tensor], Tensor]] | None = None

    def make(self) -> LogDensity:
        """Make what is handed to :func:`amfvi.fit`, with no evaluation counted yet."""
        function: Callable[[Any], Any] = self.fresh() if self.fresh else self.log_density
        if not self.gradients:
            function = _numpy_function(function)
        return LogDensity(function, self.dim, constraints=self.constraints, box=self.box)

    def without_gradients(self) -> KnownDensity:
        """Make the same density of numpy arrays, which has no gradient."""
        return replace(self, name=f"{self.name}-numpy", gradients=False)

    @property
    def limits(self) -> Constraints:
        """The constraints, parsed."""
        return Constraints.parse(default_names(self.dim), self.constraints)

    @cached_property
    def natural_box(self) -> Box | None:
        """A box for samplers that need one, with all but about 1e-6 of the mass; or None.

        From the range of exact draws, half as wide again on each side, within the bounds.
        """
        limits = self.limits
        if self.sample is None or not self.light_tails or limits.vectors:
            return None
        draws = self.sample(BOX_DRAWS, generator_for(0, "natural box", self.name))
        low, high = draws.amin(dim=0), draws.amax(dim=0)
        margin = BOX_MARGIN * (high - low)
        low = torch.maximum(low - margin, torch.tensor(limits.lower, dtype=torch.float64))
        high = torch.minimum(high + margin, torch.tensor(limits.upper, dtype=torch.float64))
        return tuple(zip(low.tolist(), high.tolist(), strict=True))

    @cached_property
    def mean_and_sd(self) -> tuple[Tensor, Tensor] | None:
        """Means and standard deviations (d,) of the parameters; None if unknown or infinite."""
        if not self.moments or self.sample is None:
            return None
        if self.exact_moments is not None:
            return self.exact_moments
        generator = generator_for(0, "moments", self.name)
        chunks = [self.sample(MOMENT_DRAWS // 10, generator) for _ in range(10)]
        center = chunks[0].mean(dim=0)
        first = torch.stack([(chunk - center).mean(dim=0) for chunk in chunks]).mean(dim=0)
        second = torch.stack([(chunk - center).square().mean(dim=0) for chunk in chunks])
        return center + first, (second.mean(dim=0) - first.square()).sqrt()

    @cached_property
    def _sorted_draws(self) -> Tensor:
        """Many exact draws, sorted in each parameter; none where there are none."""
        if self.sample is None:
            return torch.empty(0, self.dim, dtype=torch.float64)
        draws = self.sample(QUANTILE_DRAWS, generator_for(0, "quantiles", self.name))
        return draws.sort(dim=0).values

    def quantile_error(self, draws: Tensor) -> float | None:
        """Find the largest difference of a parameter's distribution function from the right one.

        Of draws (n, d), by Kolmogorov and Smirnov: with as many exact ones about .9 / √n. It is
        meaningful whatever the tails are. None if there are no exact draws.
        """
        if not len(self._sorted_draws):
            return None
        n, worst = len(draws), 0.0
        for right, column in zip(self._sorted_draws.T, draws.sort(dim=0).values.T, strict=True):
            at_most = torch.searchsorted(column.contiguous(), right.contiguous(), right=True) / n
            steps = torch.arange(1, len(right) + 1) / len(right)
            worst = max(worst, float((at_most - steps).abs().max()))
        return worst

    def moment_errors(self, draws: Tensor) -> tuple[float, float] | None:
        """Compare means and standard deviations of draws (n, d) with the right ones.

        Returns:
            Largest error of a mean in standard deviations, and largest relative error of a
            standard deviation; None if the right ones are unknown or infinite.
        """
        if self.mean_and_sd is None:
            return None
        mean, sd = self.mean_and_sd
        off_mean = (draws.mean(dim=0) - mean).abs() / sd
        off_sd = (draws.std(dim=0) / sd - 1).abs()
        return float(off_mean.max()), float(off_sd.max())


def _numpy_function(
    log_density: Callable[[Tensor], Tensor],
) -> Callable[[Any], NDArray[np.float64]]:
    """The density of arrays (n, d), through which torch cannot differentiate."""

    def of_arrays(x: Any) -> NDArray[np.float64]:
        with torch.no_grad():
            return log_density(torch.as_tensor(x, dtype=torch.float64)).numpy()

    return of_arrays


def torch_function(formula: Formula) -> Callable[[Tensor], Tensor]:
    """Turn a formula into a function of tensors (n, d)."""
    return lambda x: formula(x, torch)


def jax_function(formula: Formula) -> Callable[[Any], Any]:
    """Turn a formula into a function of one point (d,); jax is imported when it is called."""

    def of_point(point: Any) -> Any:
        import jax.numpy as jnp

        return formula(point, jnp)

    return of_point


def random_rotation(dim: int, seed: int) -> Tensor:
    """Draw an orthogonal matrix (d, d), uniformly."""
    normals = torch.randn(
        dim, dim, generator=generator_for(seed, "rotation", dim), dtype=torch.float64
    )
    q, r = torch.linalg.qr(normals)
    return q * r.diagonal().sign()
