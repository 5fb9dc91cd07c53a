"""Conditional targets: draws of pairs (c, y), and the exact density of y given c."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["ConditionalTarget", "distinct_rows"]


class ConditionalTarget(ABC):
    """A joint distribution of a condition c and a vector y whose p(y | c) is known.

    Subclasses give ``_sample`` and ``_log_prob``.

    Attributes:
        name: by which it is looked up.
        dim: length d of y.
        given_dim: length of c.
        constraints: of y, as ``constraints=`` of :class:`~amfvi.LogDensity`; None if unbounded.
        entropy_source: how the entropy is known.
        source: where the definition comes from.

    Examples:
        >>> class Shift(ConditionalTarget):
        ...     name, dim, given_dim, source = "shift", 1, 1, "an example"
        ...
        ...     def _sample(self, n, generator):
        ...         c = torch.rand(n, 1, generator=generator).double()
        ...         return c, c + torch.randn(n, 1, generator=generator).double()
        ...
        ...     def _log_prob(self, y, given):
        ...         return torch.distributions.Normal(given, 1.0).log_prob(y)[:, 0]
        >>> Shift()
        <conditional target shift: 1 given 1>
        >>> c, y = Shift().sample(5, torch.Generator())
        >>> Shift().log_prob(y, c).shape
        torch.Size([5])
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    given_dim: ClassVar[int]
    constraints: ClassVar[Any] = None
    entropy_source: ClassVar[str] = "unknown"
    source: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries of y: ``y``, or ``y1, y2, …``."""
        return _numbered("y", self.dim)

    @property
    def given_names(self) -> tuple[str, ...]:
        """Names of the entries of c: ``c``, or ``c1, c2, …``."""
        return _numbered("c", self.given_dim)

    @property
    def entropy(self) -> float | None:
        """H(y | c) = −E[log p(y | c)] over pairs, in nats; None if unknown."""
        return None

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``n`` independent pairs, from a CPU ``generator``.

        Returns:
            c (n, given_dim) and y (n, d), float64.

        Raises:
            InputError: ``n`` is not positive.
        """
        if n < 1:
            raise InputError(f"{self.name}: the number of pairs must be positive, found {n}")
        return self._sample(n, generator)

    def log_prob(self, y: Tensor, given: Tensor) -> Tensor:
        """Exact log p(y | c) in nats, row by row: float64, (n,), −inf outside the support.

        Args:
            y: points (n, d).
            given: a condition for each of them, (n, given_dim).

        Raises:
            InputError: wrong shapes, or a condition that has no density.
        """
        for what, found, width in (("y", y, self.dim), ("given=", given, self.given_dim)):
            if found.ndim != 2 or found.shape[1] != width:
                raise InputError(
                    f"{self.name}: {what} must have shape (n, {width}), found {tuple(found.shape)}"
                )
        if len(y) != len(given):
            raise InputError(
                f"{self.name}: y has {len(y)} rows, given= {len(given)}; give one condition a row"
            )
        if not len(y):
            return y.new_zeros(0, dtype=torch.float64)
        return self._log_prob(y.double(), given.double())

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _log_prob(self, y: Tensor, given: Tensor) -> Tensor: ...

    def __repr__(self) -> str:
        known = "" if self.entropy is None else f", entropy {self.entropy:.4f} nats"
        return f"<conditional target {self.name}: {self.dim} given {self.given_dim}{known}>"


def distinct_rows(given: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows (m, k) of (n, k), and which of them each row is, (n,).

    What depends on the condition alone is then computed once a condition.

    Examples:
        >>> distinct_rows(torch.tensor([[2.0], [1.0], [2.0]]))
        (tensor([[1.],
                [2.]]), tensor([1, 0, 1]))
    """
    rows, which = torch.unique(given, dim=0, return_inverse=True)
    return rows, which


def _numbered(letter: str, n: int) -> tuple[str, ...]:
    return (letter,) if n == 1 else tuple(f"{letter}{i}" for i in range(1, n + 1))
