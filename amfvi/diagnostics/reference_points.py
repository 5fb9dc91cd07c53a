"""Distances to reference points that depend on the condition, for the coverage test TARP."""

from __future__ import annotations

import torch
from scipy.spatial import KDTree
from scipy.stats import rankdata
from torch import Tensor

__all__ = ["earlier_neighbors", "whitened_distances"]

JITTER = 1e-3
"""Noise that breaks ties of conditions at random, in units of one rank; it reorders no others."""


def earlier_neighbors(given: Tensor, generator: torch.Generator) -> Tensor:
    """For each pair, choose one of earlier pairs in random order, with nearly its condition.

    The y of the chosen pair is the reference point of TARP. One that depends on the condition
    reveals a density that ignores it (Lemos et al. 2023, arXiv:2302.03026, section 3). Pairs
    are taken in random order, in blocks that double, and each looks for its neighbor in the
    blocks before its own. So no y is compared with a reference point that depends on it, and
    the ranks of distances are independent and exactly uniform if the density is right: given
    all pairs of earlier blocks, those of a block are. Nearness is Euclidean among the ranks of
    each condition, which no monotone change of a condition's units alters.

    Args:
        given: conditions, (n, given_dim).

    Returns:
        Row numbers (n,); −1 for the one pair that has no earlier one.

    Examples:
        >>> given = torch.tensor([[0.0], [5.0], [5.1], [0.1]]).double()
        >>> chosen = earlier_neighbors(given, torch.Generator().manual_seed(0))
        >>> int((chosen == -1).sum()), bool((chosen != torch.arange(4)).all())
        (1, True)
    """
    n = len(given)
    order = torch.randperm(n, generator=generator).numpy()
    noise = torch.rand(given.shape, generator=generator, dtype=torch.float64)
    positions = rankdata(given.numpy(), axis=0) + JITTER * noise.numpy()
    chosen = torch.full((n,), -1)
    start = 1
    while start < n:
        block = order[start : 2 * start]
        nearest = KDTree(positions[order[:start]]).query(positions[block])[1]
        chosen[block] = torch.from_numpy(order[nearest])
        start *= 2
    return chosen


def whitened_distances(points: Tensor, reference: Tensor) -> Tensor:
    """Distances of observed values and draws to a reference point, whitened for each condition.

    Each condition's points are whitened by their own covariance, shrunk to its diagonal where
    draws are few. Observed value and draws enter it alike, so that they stay exchangeable;
    and a parameter that the condition determines well counts as much as any other.

    Args:
        points: an observed value and m draws for each of n conditions, (1 + m, n, dim).
        reference: a reference point for each condition, (n, dim).

    Returns:
        Distances (1 + m, n).

    Examples:
        >>> points = torch.randn(51, 3, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> distances = whitened_distances(points, points[0])
        >>> distances.shape, bool((distances[0] == 0).all())
        (torch.Size([51, 3]), True)
        >>> torch.allclose(whitened_distances(1e200 * points, 1e200 * points[0]), distances)
        True
    """
    count, _, dim = points.shape
    centered = points - points.mean(dim=0)
    # By the largest deviation first: squares of very large or small numbers are none.
    scale = _nonzero(centered.abs().amax(dim=0))
    scale = scale * _nonzero((centered / scale).square().mean(dim=0).sqrt())
    standard = (centered / scale).permute(1, 2, 0)
    correlation = standard @ standard.mT / count
    identity = torch.eye(dim, dtype=points.dtype)
    shrinkage = min(dim / count, 1.0) ** 2
    factor = torch.linalg.cholesky((1 - shrinkage) * correlation + shrinkage * identity)
    offsets = ((points - reference) / scale).permute(1, 2, 0)
    whitened = torch.linalg.solve_triangular(factor, offsets, upper=False)
    return torch.linalg.vector_norm(whitened, dim=1).T


def _nonzero(scale: Tensor) -> Tensor:
    """One in place of zero, the scale of a parameter that is constant."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))
