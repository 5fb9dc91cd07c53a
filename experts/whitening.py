"""The affine map under every expert: full-covariance whitening.

An expert that starts at the identity behind this map starts as the best Gaussian,
and it never sees the scale or the correlation of the user's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.errors import FitError, InputError
from amfvi.experts.folds import Folds

__all__ = ["Whitening"]

JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
"""Multiples of the identity that are added to a correlation matrix until it is factored."""

MIN_DIAGONAL = 1e-7
"""Smallest diagonal entry of a Cholesky factor of correlations that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """x = mean + L z for each member of an ensemble, L lower triangular, in float64.

    Where leading columns are a condition, the other rows of z are the whitened residuals of
    their linear regression on it, since L is lower triangular.

    Whitened points are feature-major, (members, d, n), which is how experts compute.

    Attributes:
        mean: shape (members, d).
        factor: L, shape (members, d, d), positive diagonal.
        inverse_factor: L⁻¹.
        log_det: log |det dz/dx| = −Σ log Lᵢᵢ, nats, shape (members,), over the columns that
            are no condition.
        given: number of leading columns that are a condition.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, -2.0]], dtype=torch.float64)
        >>> whitening = Whitening.fit_pooled(x)
        >>> z = whitening.forward(x[None])
        >>> z.shape, bool(z.mean().abs() < 1e-12)
        (torch.Size([1, 2, 3]), True)
        >>> torch.allclose(whitening.inverse(z)[0], x)
        True
    """

    mean: Tensor
    factor: Tensor
    inverse_factor: Tensor
    log_det: Tensor
    given: int = 0

    @classmethod
    def from_factor(cls, mean: Tensor, factor: Tensor, given: int = 0) -> Whitening:
        """The whitening with means (members, d) and factors L (members, d, d).

        Raises:
            InputError: an L is not lower triangular with a positive diagonal.
        """
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        if bool(factor.triu(1).any()) or not bool((diagonal > 0).all()):
            raise InputError("the whitening factor is not lower triangular and positive")
        mean, factor = mean.double(), factor.double()
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        return cls(
            mean=mean,
            factor=factor,
            inverse_factor=torch.linalg.solve_triangular(factor, identity, upper=False),
            log_det=-diagonal[..., given:].double().log().sum(dim=-1),
            given=given,
        )

    @classmethod
    def fit(cls, folds: Folds) -> Whitening:
        """Whiten by mean and covariance of the draws that each member trains on.

        Raises:
            FitError: a constant column.
        """
        weights = None if folds.sample_weight is None else folds.normalized_weights
        moments = [
            _moments(folds.draws[rows].double(), None if weights is None else weights[rows])
            for rows in folds.train_rows
        ]
        mean, factor = (torch.stack(parts) for parts in zip(*moments, strict=True))
        return cls.from_factor(mean, factor, folds.given)

    @classmethod
    def fit_pooled(cls, draws: Tensor, weights: Tensor | None = None, given: int = 0) -> Whitening:
        """Whiten all members by mean and covariance of ``draws`` (n, d), weights (n,).

        Raises:
            FitError: a constant column.
        """
        mean, factor = _moments(draws.double(), weights)
        return cls.from_factor(mean[None], factor[None], given)

    @property
    def n_members(self) -> int:
        """Number of members F."""
        return len(self.mean)

    @property
    def dim(self) -> int:
        """Number of columns d that are no condition."""
        return self.mean.shape[1] - self.given

    def forward(self, x: Tensor) -> Tensor:
        """z = L⁻¹ (x − mean), (members, n, d) to (members, d, n) in float64.

        Points of the condition alone, (members, n, given), are mapped as in a whole row.
        """
        columns = x.shape[-1]
        if columns < self.mean.shape[1]:
            inverse = self.inverse_factor[:, :columns, :columns]
            return inverse @ (x.double() - self.mean[:, None, :columns]).mT
        return self.inverse_factor @ (x.double() - self.mean[:, None, :]).mT

    def inverse(self, z: Tensor) -> Tensor:
        """x = mean + L z, (members, d, n) to (members, n, d) in float64."""
        return self.mean[:, None, :] + (self.factor @ z.double()).mT

    def of_first_member(self) -> Whitening:
        """That of the first member alone."""
        return Whitening(
            mean=self.mean[:1],
            factor=self.factor[:1],
            inverse_factor=self.inverse_factor[:1],
            log_det=self.log_det[:1],
            given=self.given,
        )

    def to(self, device: torch.device | str) -> Whitening:
        """The same whitening with its numbers on ``device``."""
        return Whitening(
            mean=self.mean.to(device),
            factor=self.factor.to(device),
            inverse_factor=self.inverse_factor.to(device),
            log_det=self.log_det.to(device),
            given=self.given,
        )


def _moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of the covariance of ``x`` (n, d) with weights (n,).

    The covariance is factored as D C Dᵀ with D the standard deviations and C the
    correlations, so that scales of 1e-6 beside 1e6 lose no digits. Only where C is
    numerically singular is its diagonal raised, by the smallest of ``JITTERS`` with
    which the factorization succeeds.
    """
    if weights is None:
        weights = x.new_ones(len(x))
    x, weights = x[weights > 0], weights[weights > 0].to(x)
    share = weights / weights.sum()
    mean = share @ x
    centered = x - mean
    scale = (share @ centered.square()).sqrt()
    constant = (x == x[:1]).all(dim=0)
    if bool(constant.any()):
        column = int(constant.nonzero()[0])
        raise FitError(f"column {column} of the training draws is constant")
    if not bool(scale.isfinite().all()):
        column = int((~scale.isfinite()).nonzero()[0])
        largest = float(x[:, column].abs().max())
        raise FitError(
            f"column {column} of the training draws is as large as {largest:.0e}, so that squares "
            "overflow: divide it by a constant"
        )
    standard = centered / scale
    correlation = standard.T @ (share[:, None] * standard)
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for jitter in JITTERS:
        factor, info = torch.linalg.cholesky_ex(correlation + jitter * identity)
        if int(info) == 0 and bool((factor.diagonal() > MIN_DIAGONAL).all()):
            return mean, scale[:, None] * factor
    raise FitError("the covariance of the training draws cannot be factored")
