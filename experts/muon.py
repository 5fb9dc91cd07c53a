"""Orthogonalised momentum for hidden weights (Jordan et al. 2024, "Muon"; arXiv:2502.16982).

torch has an optimiser of that name from 2.9 on, for single matrices; here one call
serves the hidden layers of all flows of an ensemble.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Muon"]

# Odd quintic whose iterates drive singular values into about [0.7, 1.2].
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 3


class Muon:
    """Steps of one stack of square matrices (…, H, H) along orthogonalised momentum."""

    def __init__(self, matrices: Tensor, mask: Tensor, momentum: float = 0.95) -> None:
        self._matrices = matrices
        self._mask = mask
        self._momentum = momentum
        self._average = torch.zeros_like(matrices)

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: Tensor) -> None:
        """One step of length ``rate``, a tensor of no dimensions, against ``gradient``."""
        self._average.lerp_(gradient, 1 - self._momentum)
        ahead = torch.lerp(gradient, self._average, self._momentum)  # Nesterov's momentum
        self._matrices.sub_(orthogonalised(ahead) * self._mask * rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (…, H, H) with singular values near one and the same singular vectors."""
    x = matrices.flatten(0, -3)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.view_as(matrices)
