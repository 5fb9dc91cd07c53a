"""Axes of whitened draws along which they are bent or skewed, whatever their own axes are.

Third-order cumulants tell them. Where one coordinate is bent by another's square, or another's
spread grows with it, the slices of the cumulants have large entries, and along the right axes
they lie on the diagonals. The rotation that brings the slices nearest to diagonal, all at once,
is found by Jacobi's plane rotations (Cardoso & Souloumiac 1996, "Jacobi angles for simultaneous
diagonalization", SIAM J. Matrix Anal. Appl. 17). In the plane of a bend the axes may come out
45° off, since its cumulants are about those of two skewed coordinates there: what is found is
which coordinates belong together. Second-order information, the covariance, is
used up by the whitening and leaves any rotation open.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["find_bent_axes"]

MAX_SLICES = 100
"""Most slices of the cumulants that are kept, the combinations of largest norm."""

MAX_RADIUS = 1.5
"""Distance from the center, in multiples of √d, to which draws farther out are brought, so that
a few of them do not decide."""

MIN_GAIN = 12.0
"""Multiple of √(2d)/n that a rotation must add to the squares on the diagonals; three times what
the cumulants of normal draws give by chance. What is along the axes stays there otherwise."""

MAX_SWEEPS = 15
"""Most rounds over all pairs of axes."""


def find_bent_axes(z: Tensor, start: Tensor | None = None) -> Tensor:
    """A rotation (d, d) whose rows are axes along which the slices of cumulants are diagonal.

    The identity where the draws show no reason to turn them.

    Takes of the order of 100·d⁴ operations a sweep: seconds in 100 dimensions.

    Args:
        z: whitened draws, (d, n); all count alike.
        start: the rotation to go on from, (d, d); the identity by default.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4, 5000, generator=generator)
        >>> x[1] = (x[1] + x[0] ** 2 - 1) / 3**0.5  # bent by x[0]
        >>> turn = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
        >>> axes = find_bent_axes(turn @ x)
        >>> in_plane = (axes @ turn)[:, :2].square().sum(dim=1).sort().values
        >>> [round(float(share), 1) for share in in_plane]
        [0.0, 0.0, 1.0, 1.0]
    """
    z = z.float()
    d, n = z.shape
    axes = torch.eye(d) if start is None else start.float()
    z = axes @ z
    z = z * (MAX_RADIUS * math.sqrt(d) / z.norm(dim=0)).clamp(max=1.0)
    z = z - z.mean(dim=1, keepdim=True)
    slices = _leading(torch.stack([(z * row) @ z.T / n for row in z]))
    least = MIN_GAIN * math.sqrt(2 * d) / n
    rounds = _rounds_of_pairs(d)
    for _ in range(MAX_SWEEPS):
        turned = False
        for first, second in rounds:
            rotation = _rotation(slices, first, second, least)
            if rotation is not None:
                slices = rotation @ slices @ rotation.T
                axes, turned = rotation @ axes, True
        if not turned:
            break
    return axes


def _leading(slices: Tensor) -> Tensor:
    """At most ``MAX_SLICES`` combinations of the slices, orthogonal to each other, the largest.

    Which combinations of all slices are diagonalized makes no difference.
    """
    if len(slices) <= MAX_SLICES:
        return slices
    flat = slices.flatten(1)
    combinations = torch.linalg.eigh(flat @ flat.T).eigenvectors[:, -MAX_SLICES:]
    return (combinations.T @ flat).view(MAX_SLICES, *slices.shape[1:])


def _rounds_of_pairs(d: int) -> list[tuple[Tensor, Tensor]]:
    """All pairs of axes, in rounds of a tournament in which each axis has one pair at most."""
    players = list(range(d + d % 2))
    rounds = []
    for _ in range(len(players) - 1):
        pairs = [
            sorted((players[k], players[-1 - k]))
            for k in range(len(players) // 2)
            if max(players[k], players[-1 - k]) < d
        ]
        first, second = torch.tensor(pairs).T if pairs else torch.zeros(2, 0, dtype=torch.long)
        rounds.append((first, second))
        players = [players[0], players[-1], *players[1:-1]]
    return rounds


def _rotation(slices: Tensor, first: Tensor, second: Tensor, least: float) -> Tensor | None:
    """The best rotation (d, d) in the planes of the pairs; None where none gains enough."""
    difference = slices[:, first, first] - slices[:, second, second]
    crossed = 2 * slices[:, first, second]
    on, off = difference.square().sum(dim=0), crossed.square().sum(dim=0)
    both = 2 * (difference * crossed).sum(dim=0)
    gain = 0.25 * (off - on + torch.hypot(on - off, both))
    angle = torch.where(gain > least, 0.25 * torch.atan2(both, on - off), 0.0)
    if not angle.any():
        return None
    rotation = torch.eye(slices.shape[1])
    rotation[first, first] = rotation[second, second] = angle.cos()
    rotation[first, second], rotation[second, first] = angle.sin(), -angle.sin()
    return rotation
