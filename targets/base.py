"""What a canonical posterior offers: an exact density, exact draws, its entropy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["Target"]


class Target(ABC):
    """A normalised density with an exact sampler.

    Attributes:
        name: as the command line knows it.
        dim: number of parameters d.
        entropy: H(p) = −E_p[log p], nats.
        entropy_source: how the entropy is known.
        source: where the definition comes from.
        view: (low, high) per axis, a window that holds almost all mass, for figures.
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    entropy: ClassVar[float]
    entropy_source: ClassVar[str]
    source: ClassVar[str]
    view: ClassVar[tuple[tuple[float, float], ...]]

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density in nats at ``x`` of shape (n, d); float64, shape (n,).

        Raises:
            InputError: ``x`` is not (n, d).
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(
                f"{self.name}: points must have shape (n, {self.dim}), found {tuple(x.shape)}"
            )
        return self._log_prob(x.double())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` independent exact draws, float64, shape (n, d), from a CPU ``generator``."""
        if n < 1:
            raise InputError(f"{self.name}: the number of draws must be positive, found {n}")
        return self._sample(n, generator)

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> Tensor: ...

    def __repr__(self) -> str:
        return f"<target {self.name}: d = {self.dim}, entropy {self.entropy:.5f} nats>"


def normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Standard normal draws, float64, (n, d)."""
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """Uniform draws on [0, 1), float64, (n,)."""
    return torch.rand(n, generator=generator, dtype=torch.float64)
