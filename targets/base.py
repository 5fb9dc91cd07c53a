"""Targets: a density to sample from, and for most of them exact draws and an entropy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from amfvi.errors import InputError, UsageError

__all__ = ["ExactTarget", "Target", "normal", "require_parameters", "uniform"]


class Target(ABC):
    """A density that a sampler is handed, normalized or not.

    Subclasses give ``name``, ``dim``, ``source`` and :meth:`log_density`; what they leave out
    is unknown, or absent.

    Attributes:
        name: as the command line knows it.
        dim: number of parameters d.
        constraints: as ``constraints=`` of :class:`~amfvi.LogDensity`; None if unbounded.
        box: where a sampler may start, (low, high) for all parameters; None for anywhere.
        source: where the definition comes from.

    Examples:
        >>> class Normal(Target):
        ...     name, dim, source = "normal", 2, "an example"
        ...
        ...     def log_density(self, x):
        ...         return -0.5 * x.square().sum(dim=1)
        >>> Normal()
        <target normal: d = 2>
    """

    name: ClassVar[str]
    dim: int
    constraints: ClassVar[Any] = None
    box: ClassVar[tuple[float, float] | None] = None
    source: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the parameters; ``x1, x2, …`` if None."""
        return None

    @property
    def log_z(self) -> float | None:
        """Log ∫ exp ``log_density`` in nats; None if unknown."""
        return None

    @property
    def entropy(self) -> float | None:
        """H(p) = −E_p[log p] in nats; None if unknown."""
        return None

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Log density in nats up to a constant, at ``x`` of shape (n, d); shape (n,)."""

    def __repr__(self) -> str:
        settings: list[str] = []
        if is_dataclass(self):
            others = [field.name for field in fields(self) if field.name != "dim"]
            settings = [f"{name} = {getattr(self, name)}" for name in others]
        known = [] if self.entropy is None else [f"entropy {self.entropy:.5f} nats"]
        return f"<target {self.name}: {', '.join([f'd = {self.dim}', *settings, *known])}>"


class ExactTarget(Target):
    """A target with an exactly normalized density and an exact sampler.

    Subclasses give ``_log_prob`` and ``_sample``.

    Attributes:
        entropy_source: how the entropy is known.

    Examples:
        >>> class Normal(ExactTarget):
        ...     name, dim, source = "normal", 1, "an example"
        ...
        ...     def _log_prob(self, x):
        ...         return -0.5 * (x[:, 0].square() + math.log(2 * math.pi))
        ...
        ...     def _sample(self, n, generator):
        ...         return normal(n, 1, generator)
        >>> import math
        >>> Normal().sample(5, torch.Generator()).shape
        torch.Size([5, 1])
    """

    entropy_source: ClassVar[str] = "unknown"

    @property
    def log_z(self) -> float | None:
        """Log ∫ exp ``log_density`` in nats; 0 where that is the normalized density."""
        return 0.0

    @property
    def view(self) -> tuple[tuple[float, float], ...]:
        """(low, high) per axis, a window that holds almost all mass; empty if d is not 2."""
        return ()

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
        """``n`` independent exact draws, float64, shape (n, d), from a CPU ``generator``.

        Raises:
            InputError: ``n`` is not positive.
        """
        if n < 1:
            raise InputError(f"{self.name}: the number of draws must be positive, found {n}")
        return self._sample(n, generator)

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> Tensor: ...


def require_parameters(name: str, fits: bool, expected: str) -> None:
    """Reject parameters of a target that it cannot have.

    Raises:
        UsageError: they do not fit.

    Examples:
        >>> require_parameters("funnel", False, "dim ≥ 2 and sd > 0")
        Traceback (most recent call last):
        amfvi.errors.UsageError: the target funnel needs dim ≥ 2 and sd > 0
    """
    if not fits:
        raise UsageError(f"the target {name} needs {expected}")


def normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Draw from a standard normal distribution: float64, (n, d).

    Examples:
        >>> normal(3, 2, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """Draw uniformly from [0, 1): float64, (n,).

    Examples:
        >>> bool((uniform(100, torch.Generator().manual_seed(0)) < 1).all())
        True
    """
    return torch.rand(n, generator=generator, dtype=torch.float64)
