"""What a named posterior offers: a density, and most of them exact draws and an entropy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["Posterior", "Target", "normal", "uniform"]


class Target(ABC):
    """A density that a sampler is handed, normalised or not.

    Attributes:
        name: as the command line knows it.
        dim: number of parameters d.
        names: of the parameters; ``x1, x2, …`` if None.
        constraints: as ``support=`` of ``amfvi.Draws.from_array``; None if unbounded.
        box: where a sampler may start, (low, high) for all parameters; None for anywhere.
        log_z: log ∫ exp ``log_density``, nats; None if unknown.
        entropy: H(p) = −E_p[log p], nats; None if unknown.
        source: where the definition comes from.
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    names: ClassVar[tuple[str, ...] | None] = None
    constraints: ClassVar[Any] = None
    box: ClassVar[tuple[float, float] | None] = None
    log_z: float | None = None
    entropy: float | None = None
    source: ClassVar[str]

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Log density in nats up to a constant, at ``x`` of shape (n, d); shape (n,)."""

    def __repr__(self) -> str:
        known = "" if self.entropy is None else f", entropy {self.entropy:.5f} nats"
        return f"<target {self.name}: d = {self.dim}{known}>"


class ExactTarget(Target):
    """A posterior with an exactly normalised density and an exact sampler.

    Attributes:
        entropy_source: how the entropy is known.
        view: (low, high) per axis, a window that holds almost all mass, for figures;
            in two dimensions only.
    """

    entropy_source: ClassVar[str] = "unknown"
    view: ClassVar[tuple[tuple[float, float], ...]] = ()
    log_z: float | None = 0.0

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

    def log_density(self, x: Tensor) -> Tensor:
        return self.log_prob(x) + (self.log_z or 0.0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` independent exact draws, float64, shape (n, d), from a CPU ``generator``."""
        if n < 1:
            raise InputError(f"{self.name}: the number of draws must be positive, found {n}")
        return self._sample(n, generator)

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> Tensor: ...


def normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Standard normal draws, float64, (n, d)."""
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """Uniform draws on [0, 1), float64, (n,)."""
    return torch.rand(n, generator=generator, dtype=torch.float64)
