"""Orthogonalized momentum for hidden weights (Jordan et al. 2024, "Muon"; arXiv:2502.16982).

torch has an optimizer of that name from 2.9 on, for single matrices; here one call
serves the hidden layers of all flows of an ensemble.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x³ and x⁵ in the polynomial whose iterates drive singular values into
about [0.7, 1.2]."""

ITERATIONS = 3
"""Number of times that the polynomial is applied."""


class Muon:
    """Updates of one stack of square matrices (…, H, H) along orthogonalized momentum.

    Args:
        matrices: changed in place.
        mask: 1 where they may change.
        momentum: share of the average gradient that a step keeps.
        every: steps from one update to the next, which goes as far as all of them together.

    Examples:
        >>> matrices = torch.zeros(1, 1, 2, 2)
        >>> muon = Muon(matrices, mask=torch.ones(1, 1, 2, 2))
        >>> muon.step(torch.eye(2).expand(1, 1, 2, 2), rate=torch.tensor(0.1))
        >>> bool((matrices.diagonal(dim1=-2, dim2=-1) < -0.05).all())
        True
    """

    def __init__(
        self, matrices: Tensor, mask: Tensor, momentum: float = 0.95, every: int = 1
    ) -> None:
        self._matrices = matrices
        self._mask = mask
        self._momentum = momentum
        self._every = every
        self._steps = 0
        self._average = torch.zeros_like(matrices)

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: Tensor) -> None:
        """Move by ``rate``, a tensor of no dimensions, against ``gradient``."""
        self._average.lerp_(gradient, 1 - self._momentum)
        self._steps += 1
        if self._steps % self._every:
            return
        nesterov = torch.lerp(gradient, self._average, self._momentum)
        self._matrices.sub_(orthogonalize(nesterov) * self._mask * (self._every * rate))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices (…, H, H) with singular values near one and the same singular vectors.

    Examples:
        >>> x = orthogonalize(torch.diag(torch.tensor([2.0, -1.0])).expand(1, 1, 2, 2))
        >>> singular_values = torch.linalg.svdvals(x)
        >>> bool((singular_values > 0.5).all() and (singular_values < 1.3).all())
        True
    """
    a, b, c = QUINTIC
    x = matrices.flatten(0, -3)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.view_as(matrices)
