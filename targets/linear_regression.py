"""Linear regression with a conjugate prior: coefficients, a variance, and an exact evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from amfvi.targets.base import ExactTarget, normal

__all__ = ["LinearRegression"]

N = 40
"""Number of observations."""

COEFFICIENTS = 4
"""Number of coefficients, the intercept included."""

SHAPE = 3.0
"""Shape of the inverse gamma prior of the variance."""

SCALE = 2.0
"""Scale of the inverse gamma prior of the variance."""

WIDTH = 2.0
"""Prior standard deviation of a coefficient, in units of the noise."""


def _data() -> tuple[Tensor, Tensor]:
    """A fixed design (40, 4) with correlated columns, and a response."""
    generator = torch.Generator().manual_seed(4)
    x = normal(N, COEFFICIENTS, generator)
    x[:, 0] = 1.0
    x[:, 2] = 0.8 * x[:, 1] + 0.6 * x[:, 2]
    truth = torch.tensor([1.0, -0.5, 2.0, 0.0], dtype=torch.float64)
    return x, x @ truth + 0.7 * normal(N, 1, generator)[:, 0]


class _Conjugate:
    """The normal inverse gamma posterior in closed form.

    Attributes:
        x, y: the data.
        factor: lower Cholesky factor of the precision of the coefficients, in units of
            the noise.
        mean: of the coefficients.
        shape, scale: of the inverse gamma distribution of the variance.
    """

    def __init__(self) -> None:
        x, y = _data()
        precision = x.T @ x + torch.eye(COEFFICIENTS).double() / WIDTH**2
        self.x, self.y = x, y
        self.factor = torch.linalg.cholesky(precision)
        self.mean = torch.cholesky_solve((x.T @ y)[:, None], self.factor)[:, 0]
        self.shape = SHAPE + N / 2
        self.scale = SCALE + 0.5 * float(y @ y - self.mean @ precision @ self.mean)
        self.half_log_det = float(self.factor.diagonal().log().sum())
        self.log_evidence = (
            -0.5 * N * math.log(2 * math.pi)
            - COEFFICIENTS * math.log(WIDTH)
            - self.half_log_det
            + SHAPE * math.log(SCALE)
            - self.shape * math.log(self.scale)
            + math.lgamma(self.shape)
            - math.lgamma(SHAPE)
        )


@dataclass(frozen=True, repr=False)
class LinearRegression(ExactTarget):
    """y | b, s ~ N(Xb, s I), b | s ~ N(0, 4 s I), s ~ inverse gamma(3, 2).

    Examples:
        >>> LinearRegression().names
        ('b[1]', 'b[2]', 'b[3]', 'b[4]', 's')
    """

    name = "linear_regression"
    dim = COEFFICIENTS + 1
    names = (*(f"b[{i}]" for i in range(1, COEFFICIENTS + 1)), "s")
    constraints = {"s": constraints.positive}  # noqa: RUF012
    source = "normal inverse gamma conjugacy; Gelman et al. 2013, chapter 14"

    @cached_property
    def _posterior(self) -> _Conjugate:
        return _Conjugate()

    @property
    def log_z(self) -> float:
        return self._posterior.log_evidence

    def log_density(self, x: Tensor) -> Tensor:
        """Log of likelihood times prior, written out from the model."""
        b, s = x[:, :-1].double(), x[:, -1].double()
        fitted = b @ self._posterior.x.to(b).T
        residual = (self._posterior.y.to(b) - fitted).square().sum(dim=1)
        prior = b.square().sum(dim=1) / WIDTH**2
        gaussians = (
            -0.5 * (residual + prior) / s - 0.5 * (N + COEFFICIENTS) * (2 * math.pi * s).log()
        )
        level = SHAPE * math.log(SCALE) - math.lgamma(SHAPE) - COEFFICIENTS * math.log(WIDTH)
        return gaussians + level - (SHAPE + 1) * s.log() - SCALE / s

    def _log_prob(self, x: Tensor) -> Tensor:
        posterior = self._posterior
        b, s = x[:, :-1], x[:, -1]
        scores = (b - posterior.mean.to(b)) @ posterior.factor.to(b)
        gaussian = posterior.half_log_det - 0.5 * (
            scores.square().sum(dim=1) / s + COEFFICIENTS * (2 * math.pi * s).log()
        )
        gamma = posterior.shape * math.log(posterior.scale) - math.lgamma(posterior.shape)
        return gaussian + gamma - (posterior.shape + 1) * s.log() - posterior.scale / s

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        posterior = self._posterior
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        s = torch.from_numpy(posterior.scale / random.gamma(posterior.shape, size=n))
        noise = normal(n, COEFFICIENTS, generator)
        scaled = torch.linalg.solve_triangular(posterior.factor.T, noise.T, upper=True).T
        return torch.cat([posterior.mean + s.sqrt()[:, None] * scaled, s[:, None]], dim=1)
