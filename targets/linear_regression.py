"""Linear regression with a conjugate prior: coefficients, a variance, and an exact evidence."""

from __future__ import annotations

import math

import numpy as np
import torch
from amfvi.targets.base import ExactTarget, normal
from torch import Tensor
from torch.distributions import constraints

__all__ = ["LinearRegression"]

N = 40
COEFFICIENTS = 4
SHAPE, SCALE = 3.0, 2.0  # of the inverse gamma prior of the variance
WIDTH = 2.0  # prior sd of a coefficient, in units of the noise


def _data() -> tuple[Tensor, Tensor]:
    """A fixed design (40, 4) with correlated columns, and a response."""
    generator = torch.Generator().manual_seed(4)
    x = normal(N, COEFFICIENTS, generator)
    x[:, 0] = 1.0
    x[:, 2] = 0.8 * x[:, 1] + 0.6 * x[:, 2]
    truth = torch.tensor([1.0, -0.5, 2.0, 0.0], dtype=torch.float64)
    return x, x @ truth + 0.7 * normal(N, 1, generator)[:, 0]


class LinearRegression(ExactTarget):
    """y | b, s ~ N(Xb, s I), b | s ~ N(0, 4 s I), s ~ inverse gamma(3, 2)."""

    name = "linear_regression"
    dim = COEFFICIENTS + 1
    names = (*(f"b[{i}]" for i in range(1, COEFFICIENTS + 1)), "s")
    constraints = {"s": constraints.positive}  # noqa: RUF012
    source = "normal inverse gamma conjugacy; Gelman et al. 2013, chapter 14"

    def __init__(self) -> None:
        x, y = _data()
        self._precision = x.T @ x + torch.eye(COEFFICIENTS).double() / WIDTH**2
        self._factor = torch.linalg.cholesky(self._precision)
        self._mean = torch.cholesky_solve((x.T @ y)[:, None], self._factor)[:, 0]
        self._shape = SHAPE + N / 2
        self._scale = SCALE + 0.5 * float(y @ y - self._mean @ self._precision @ self._mean)
        self._x, self._y = x, y
        half_log_det = float(self._factor.diagonal().log().sum())
        self.log_z = (
            -0.5 * N * math.log(2 * math.pi)
            - COEFFICIENTS * math.log(WIDTH)
            - half_log_det
            + SHAPE * math.log(SCALE)
            - self._shape * math.log(self._scale)
            + math.lgamma(self._shape)
            - math.lgamma(SHAPE)
        )
        self._half_log_det = half_log_det

    def log_density(self, x: Tensor) -> Tensor:
        """Log of likelihood times prior, written out from the model."""
        b, s = x[:, :-1].double(), x[:, -1].double()
        residual = (self._y.to(b) - b @ self._x.to(b).T).square().sum(dim=1)
        prior = b.square().sum(dim=1) / WIDTH**2
        gaussians = (
            -0.5 * (residual + prior) / s - 0.5 * (N + COEFFICIENTS) * (2 * math.pi * s).log()
        )
        level = SHAPE * math.log(SCALE) - math.lgamma(SHAPE) - COEFFICIENTS * math.log(WIDTH)
        return gaussians + level - (SHAPE + 1) * s.log() - SCALE / s

    def _log_prob(self, x: Tensor) -> Tensor:
        b, s = x[:, :-1], x[:, -1]
        away = (b - self._mean.to(b)) @ self._factor.to(b)
        gaussian = self._half_log_det - 0.5 * (
            away.square().sum(dim=1) / s + COEFFICIENTS * (2 * math.pi * s).log()
        )
        gamma = self._shape * math.log(self._scale) - math.lgamma(self._shape)
        return gaussian + gamma - (self._shape + 1) * s.log() - self._scale / s

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        s = torch.from_numpy(self._scale / random.gamma(self._shape, size=n))
        noise = normal(n, COEFFICIENTS, generator)
        away = torch.linalg.solve_triangular(self._factor.T, noise.T, upper=True).T
        return torch.cat([self._mean + s.sqrt()[:, None] * away, s[:, None]], dim=1)
