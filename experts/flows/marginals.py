"""Rotations and marginal maps that make draws more normal, the parts of an RBIG layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "choose_rotation",
    "equally_weighted_quantiles",
    "marginal_knots",
    "normal_scores",
    "random_rotation",
    "sort_rows",
]

SCORING_DRAWS = 2000
"""Draws by which candidate rotations are ranked."""

MIN_KNOT_GAP = 1e-4
"""Smallest distance between knots, in whitened units; tied draws would make knots coincide."""

TAIL_RATIO = 3
"""How many times as many draws a block has as the next one towards the end of a tail."""

MIN_TAIL_DRAWS = 60
"""Draws that half a block must have, on average, to be divided further towards the end."""

MAX_LOG_SECANT = 4.0
"""Largest |log secant| between knots; a steeper or flatter one is noise or a tie."""


def normal_scores(n: int, like: Tensor) -> Tensor:
    """Φ⁻¹((i + ½)/n) for i = 0 … n−1, with the dtype and device of ``like``.

    Examples:
        >>> normal_scores(3, torch.zeros(()))
        tensor([-0.9674,  0.0000,  0.9674])
    """
    ranks = torch.arange(n, dtype=like.dtype, device=like.device)
    return torch.special.ndtri((ranks + 0.5) / n)


def random_rotation(d: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal (d, d) matrix, float64.

    Examples:
        >>> q = random_rotation(3, torch.Generator().manual_seed(0))
        >>> torch.allclose(q @ q.T, torch.eye(3, dtype=torch.float64))
        True
    """
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q


def sort_rows(values: Tensor) -> Tensor:
    """Each row (d, n) in ascending order; by numpy on a CPU, several times as fast there.

    Examples:
        >>> sort_rows(torch.tensor([[2.0, 1.0, 3.0]]))
        tensor([[1., 2., 3.]])
    """
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def choose_rotation(draws: Tensor, candidates: int, generator: torch.Generator) -> Tensor:
    """The random rotation along whose axes ``draws`` (d, n) are least normal, (d, d), float64.

    Of ``candidates`` rotations the one with the largest sliced Wasserstein-2 distance
    (Dai & Seljak 2021).

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(2, 50, generator=generator, dtype=torch.float64)
        >>> choose_rotation(draws, 4, generator).shape
        torch.Size([2, 2])
    """
    rotations = [random_rotation(len(draws), generator).to(draws.device) for _ in range(candidates)]
    if candidates == 1:
        return rotations[0]
    subset = draws[:, :SCORING_DRAWS]
    scores = normal_scores(subset.shape[1], subset)
    distances = [(sort_rows(r.to(subset) @ subset) - scores).square().mean() for r in rotations]
    return rotations[int(torch.stack(distances).argmax())]


def marginal_knots(
    marginals: Tensor,
    blocks: int,
    step_size: float,
    generator: torch.Generator,
    n_draws: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Knots of maps from sorted coordinates (d, n) part of the way to normal scores.

    A knot is the mean of a block of neighboring order statistics against the mean of
    their normal scores: quantiles smoothed by averaging. Where blocks are large, the first and
    the last are divided towards the ends, so that few blocks do not cut tails short.

    Args:
        marginals: each row sorted.
        blocks: about how many blocks; their edges have a random phase.
        step_size: share of the way from the identity to the normal scores.
        n_draws: by which the number of knots is chosen; n by default.

    Returns:
        Positions and values of the knots, (d, blocks + 1) each or two more for each division of
        the tails, strictly increasing.

    Examples:
        >>> marginals = 2 * normal_scores(100, torch.zeros(())).double()[None]
        >>> x, y = marginal_knots(marginals, 10, 1.0, torch.Generator().manual_seed(0))
        >>> x.shape, torch.allclose(y, x / 2)
        (torch.Size([1, 11]), True)
    """
    n = marginals.shape[1]
    scores = normal_scores(n, marginals)
    phase = 0.1 + 0.8 * float(torch.rand(1, generator=generator, dtype=torch.float64))
    middles = (torch.arange(blocks, dtype=torch.float64) + phase) / blocks
    inner = (middles * n).round().long().clamp(1, n - 1)
    inner = _with_tails(inner, n, (n_draws or n) / blocks)
    edges = torch.cat([torch.tensor([0]), inner, torch.tensor([n])]).to(marginals.device)
    x, y = _block_means(marginals, edges), _block_means(scores[None], edges)
    x_gap = x.diff(dim=1).clamp(min=MIN_KNOT_GAP)
    secant = (y.diff(dim=1) / x_gap).clamp(math.exp(-MAX_LOG_SECANT), math.exp(MAX_LOG_SECANT))
    y_gap = x_gap * (1 + step_size * (secant - 1))
    first_x = x[:, :1]
    first_y = first_x + step_size * (y[:, :1] - first_x)
    return _accumulate(first_x, x_gap), _accumulate(first_y, y_gap)


def _with_tails(inner: Tensor, n: int, block: float) -> Tensor:
    """Edges inside 0 and n, with more towards either end where a block has many draws."""
    n_divisions = int(math.log(max(block / (2 * MIN_TAIL_DRAWS), 1)) / math.log(TAIL_RATIO))
    shares = float(TAIL_RATIO) ** -torch.arange(1, n_divisions + 1, dtype=torch.float64)
    low = (shares * inner[0]).round().long().clamp(min=1)
    high = n - (shares * (n - inner[-1])).round().long().clamp(min=1)
    return torch.cat([low.flip(0), inner, high])


def equally_weighted_quantiles(ordered: Tensor, weights: Tensor) -> Tensor:
    """Quantiles of equal weight of sorted values with weights, (d, n) each; shape (d, n).

    Examples:
        >>> ordered = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
        >>> equally_weighted_quantiles(ordered, torch.tensor([[1.0, 1.0, 3.0, 3.0]]))
        tensor([[0.5000, 1.7500, 2.5000, 3.0000]])
    """
    middles = (weights.cumsum(dim=1) - weights / 2) / weights.sum(dim=1, keepdim=True)
    n = ordered.shape[1]
    levels = (torch.arange(n, device=ordered.device, dtype=torch.float64) + 0.5).to(middles) / n
    levels = levels.expand_as(middles).contiguous()
    right = torch.searchsorted(middles, levels).clamp(1, n - 1)
    from_left, from_right = middles.gather(1, right - 1), middles.gather(1, right)
    share = ((levels - from_left) / (from_right - from_left).clamp(min=1e-300)).clamp(0, 1)
    return torch.lerp(ordered.gather(1, right - 1), ordered.gather(1, right), share)


def _block_means(values: Tensor, edges: Tensor) -> Tensor:
    """Means of values (d, n) over the column blocks between consecutive edges."""
    sums = torch.cat([values.new_zeros(len(values), 1), values.cumsum(dim=1)], dim=1)
    return sums[:, edges].diff(dim=1) / edges.diff()


def _accumulate(first: Tensor, gaps: Tensor) -> Tensor:
    """(d, 1) and (d, K−1) gaps to (d, K) positions."""
    return torch.cat([first, first + gaps.cumsum(dim=1)], dim=1)
