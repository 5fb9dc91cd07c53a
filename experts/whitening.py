"""The affine map under every expert: full-covariance whitening.

An expert that starts at the identity behind this map starts as the best Gaussian,
and it never sees the scale or the correlation of the user's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from amfvi.experts.folds import Folds
from torch import Tensor

from amfvi.errors import FitError, InputError

__all__ = ["Whitening"]


@dataclass(frozen=True)
class Whitening:
    """x = mean + L z for each member of an ensemble, L lower triangular, in float64.

    Whitened points are feature-major, (members, d, n), which is how experts compute.

    Attributes:
        mean: shape (members, d).
        factor: L, shape (members, d, d), positive diagonal.
        inverse_factor: L⁻¹.
        log_det: log |det dz/dx| = −Σ log Lᵢᵢ, nats, shape (members,).
    """

    mean: Tensor
    factor: Tensor
    inverse_factor: Tensor
    log_det: Tensor

    @classmethod
    def of(cls, mean: Tensor, factor: Tensor) -> Whitening:
        """From means (members, d) and factors L (members, d, d).

        Raises:
            InputError: an L is not lower triangular with a positive diagonal.
        """
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        if bool(factor.triu(1).any()) or not bool((diagonal > 0).all()):
            raise InputError("the whitening factor is not lower triangular and positive")
        mean, factor = mean.double(), factor.double()
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        return cls(mean, factor, inverse, -diagonal.double().log().sum(dim=-1))

    @classmethod
    def fit(cls, folds: Folds) -> Whitening:
        """By mean and covariance of the draws that each member trains on.

        Raises:
            FitError: a constant column.
        """
        parts = [_moments(folds.draws[rows].double()) for rows in folds.train_rows]
        mean, factor = (torch.stack(part) for part in zip(*parts, strict=True))
        return cls.of(mean, factor)

    @classmethod
    def pooled(cls, draws: Tensor) -> Whitening:
        """One for all members, by mean and covariance of ``draws`` (n, d).

        Raises:
            FitError: a constant column.
        """
        mean, factor = _moments(draws.double())
        return cls.of(mean[None], factor[None])

    @property
    def members(self) -> int:
        return len(self.mean)

    @property
    def dim(self) -> int:
        return self.mean.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """z = L⁻¹ (x − mean), (members, n, d) to (members, d, n) in float64."""
        return self.inverse_factor @ (x.double() - self.mean[:, None, :]).mT

    def inverse(self, z: Tensor) -> Tensor:
        """x = mean + L z, (members, d, n) to (members, n, d) in float64."""
        return self.mean[:, None, :] + (self.factor @ z.double()).mT

    def to(self, device: torch.device | str) -> Whitening:
        return Whitening(
            self.mean.to(device),
            self.factor.to(device),
            self.inverse_factor.to(device),
            self.log_det.to(device),
        )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of the covariance of ``x`` (n, d).

    The covariance is factored as D C Dᵀ with D the standard deviations and C the
    correlations, so that scales of 1e-6 beside 1e6 lose no digits. Only where C is
    numerically singular is its diagonal raised, by the least power of ten that makes
    the factorisation succeed.
    """
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
            return mean, scale[:, None] * factor
    raise FitError("the covariance of the training draws cannot be factored")
