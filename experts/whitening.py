"""The affine map under every expert: full-covariance whitening.

An expert that starts at the identity behind this map starts as the best Gaussian,
and it never sees the scale or the correlation of the user's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.errors import FitError, InputError

__all__ = ["Whitening"]


@dataclass(frozen=True)
class Whitening:
    """x = mean + L z with L lower triangular, in float64.

    Attributes:
        mean: shape (d,).
        factor: L, shape (d, d), positive diagonal.
        inverse_factor: L⁻¹.
        log_det: log |det dz/dx| = −Σ log Lᵢᵢ, nats.
    """

    mean: Tensor
    factor: Tensor
    inverse_factor: Tensor
    log_det: float

    @classmethod
    def of(cls, mean: Tensor, factor: Tensor) -> Whitening:
        """From a mean (d,) and a factor L (d, d).

        Raises:
            InputError: L is not lower triangular with a positive diagonal.
        """
        if bool(factor.triu(1).any()) or not bool((factor.diagonal() > 0).all()):
            raise InputError("the whitening factor is not lower triangular and positive")
        mean, factor = mean.double(), factor.double()
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        return cls(mean, factor, inverse, -float(factor.diagonal().log().sum()))

    @classmethod
    def fit(cls, x: Tensor) -> Whitening:
        """The whitening of draws ``x`` (n, d) by their mean and covariance.

        The covariance is factored as D C Dᵀ with D the standard deviations and C
        the correlations, so that scales of 1e-6 beside 1e6 lose no digits. Only
        where C is numerically singular is its diagonal raised, by the least power
        of ten that makes the factorisation succeed.

        Raises:
            FitError: a constant column.
        """
        x = x.double()
        mean = x.mean(dim=0)
        centred = x - mean
        scale = centred.square().mean(dim=0).sqrt()
        if not bool((scale > 0).all()):
            column = int((scale <= 0).nonzero()[0])
            raise FitError(f"column {column} of the training draws is constant")
        standard = centred / scale
        correlation = standard.T @ standard / len(x)
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        for jitter in (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4):
            factor, info = torch.linalg.cholesky_ex(correlation + jitter * identity)
            if int(info) == 0 and bool((factor.diagonal() > 1e-7).all()):
                return cls.of(mean, scale[:, None] * factor)
        raise FitError("the covariance of the training draws cannot be factored")

    def forward(self, x: Tensor) -> Tensor:
        """z = L⁻¹ (x − mean), in float64, whatever the dtype of ``x`` (n, d)."""
        return (x.double() - self.mean) @ self.inverse_factor.T

    def inverse(self, z: Tensor) -> Tensor:
        """x = mean + L z, in float64."""
        return self.mean + z.double() @ self.factor.T

    def to(self, device: torch.device | str) -> Whitening:
        return Whitening(
            self.mean.to(device),
            self.factor.to(device),
            self.inverse_factor.to(device),
            self.log_det,
        )
