"""Cholesky factors that exist for every matrix that rounding or overflow leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from amfvi.statistics import effective_sample_size

__all__ = ["factorize", "factorize_covariance", "robust_shape", "shrunk_factor"]

JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
"""Relative increases of the diagonal that are tried, one after the other."""

MAX_STANDARDIZED = 5.0
"""Median absolute deviations at which points are clipped when a shape is estimated."""


def factorize(matrix: Tensor) -> Tensor:
    """Cholesky factor of a symmetric matrix (…, d, d), lower triangular.

    The diagonal is increased by the smallest jitter that makes the matrix positive definite,
    which is none if it is so already. Where entries have overflowed, the factor is the
    square root of the diagonal, with 1 for entries of the diagonal that are useless.

    Examples:
        >>> factorize(torch.tensor([[4.0, 2.0], [2.0, 5.0]]))
        tensor([[2., 0.],
                [1., 2.]])
        >>> factorize(torch.tensor([[4.0, torch.nan], [torch.nan, torch.inf]]))
        tensor([[2., 0.],
                [0., 1.]])
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    for jitter in JITTERS:
        jittered = matrix + torch.diag_embed(jitter * diagonal) if jitter else matrix
        factor, failed = torch.linalg.cholesky_ex(jittered)
        if not bool(failed.any()) and bool(factor.isfinite().all()):
            return factor
    if matrix.ndim > 2:
        return torch.stack([factorize(single) for single in matrix])
    usable = diagonal.isfinite() & (diagonal > 0)
    return torch.diag(torch.where(usable, diagonal, 1.0).sqrt())


def factorize_covariance(covariances: Tensor) -> Tensor:
    """Cholesky factors of covariances (k, d, d), by their correlations to keep all digits.

    Examples:
        >>> factorize_covariance(torch.tensor([[[1e-8, 0.0], [0.0, 4.0]]]).double())
        tensor([[[1.0000e-04, 0.0000e+00],
                 [0.0000e+00, 2.0000e+00]]], dtype=torch.float64)
    """
    scale = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    correlations = covariances / (scale[:, :, None] * scale[:, None, :])
    jitter = 1e-12 * torch.eye(scale.shape[1], dtype=torch.float64)
    return scale[:, :, None] * factorize(correlations + jitter)


def shrunk_factor(y: Tensor, weights: Tensor) -> Tensor:
    """Cholesky factor (d, d) of the covariance of points (n, d) with weights (n,), finite always.

    Correlations are shrunk where points are few.

    Examples:
        >>> y = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> torch.allclose(shrunk_factor(y, torch.ones(4000)), torch.eye(2).double(), atol=0.05)
        True
    """
    share = (weights / weights.sum())[:, None]
    centered = y - (share * y).sum(dim=0)
    scale = (share * centered.square()).sum(dim=0).sqrt().clamp(min=1e-300)
    if not bool(scale.isfinite().all()):  # overflow, by draws of a very heavy tail
        centered = y - y.median(dim=0).values
        scale = centered.abs().median(dim=0).values.clamp(1e-300, 1e300)
    standardized = centered / scale
    correlation = standardized.T @ (share * standardized)
    shrink = min(1.0, len(correlation) / (effective_sample_size(weights) + 1))
    identity = torch.eye(len(correlation), dtype=torch.float64)
    correlation = (1 - shrink) * correlation + (shrink + 1e-9) * identity
    return scale[:, None] * factorize(correlation)


def robust_shape(y: Tensor) -> tuple[Tensor, Tensor]:
    """Location (d,) and lower triangular factor (d, d) of points (n, d), robust to tails.

    Points are standardized by median and median absolute deviation and clipped at
    ``MAX_STANDARDIZED``, so that one extreme point does not determine the shape.

    Examples:
        >>> y = torch.tensor([[-1.0], [0.0], [1.0], [1e9], [-1.0]]).double()
        >>> center, factor = robust_shape(y)
        >>> float(center), float(factor) < 5
        (0.0, True)
    """
    center = y.median(dim=0).values
    spread = (y - center).abs().median(dim=0).values.clamp(min=1e-300)
    standard = ((y - center) / spread).clamp(-MAX_STANDARDIZED, MAX_STANDARDIZED)
    shape = standard.T @ standard / len(standard)
    jitter = 1e-9 * torch.eye(len(center), dtype=torch.float64)
    return center, spread[:, None] * factorize(shape + jitter)
