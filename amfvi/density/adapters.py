"""A user's function, however it is to be called, as one of a batch of tensors.

All are picklable if the function is, so that they can be computed in other processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from amfvi.density.calling import Convention, to_tensor

__all__ = ["Batches", "Mapped", "OneByOne", "PointByPoint", "PointError", "Values"]

Values = Callable[[Tensor], Tensor]
"""A function of float64 points (n, d)."""


class PointError(Exception):
    """Signal that a user's function raised, as text that any process can pass on.

    Args:
        row: of the point in its batch; None if it may be any.
        text: the exception's type and what it says.

    Examples:
        >>> str(PointError.from_exception(ValueError("too\\nlarge"), 3))
        'ValueError: too large'
    """

    def __init__(self, row: int | None, text: str) -> None:
        super().__init__(row, text)
        self.row = row
        self.text = text

    @classmethod
    def from_exception(cls, error: Exception, row: int | None) -> PointError:
        """What is passed on of an exception; one that came before stays as it is."""
        if isinstance(error, cls):
            return error
        return cls(row, f"{type(error).__name__}: {' '.join(str(error).split())}")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Batches:
    """A function of a batch.

    One that drops the dimension of a batch of one point, as the ``logpdf`` of scipy's
    multivariate distributions does, is given it back.

    Examples:
        >>> from amfvi.density.calling import find_convention
        >>> points = torch.ones(3, 2).double()
        >>> call = Batches(find_convention(lambda x: x.sum(dim=1).squeeze(), points))
        >>> call(points), call(points[:1])
        (tensor([2., 2., 2.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """

    convention: Convention
    n_dims: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_dims", len(np.shape(self.convention.out)))
        object.__setattr__(self, "convention", replace(self.convention, out=None))

    def __call__(self, x: Tensor) -> Tensor:
        out = to_tensor(self.convention.call(x), x)
        return out[None] if len(x) == 1 and out.ndim == self.n_dims - 1 else out


@dataclass(frozen=True)
class Mapped:
    """A function of one point of torch, mapped over a batch by ``vmap``.

    Examples:
        >>> from amfvi.density.calling import find_convention
        >>> points = torch.ones(3, 2).double()
        >>> Mapped(find_convention(lambda x: x @ x, points))(points)
        tensor([2., 2., 2.], dtype=torch.float64)
    """

    convention: Convention

    def __post_init__(self) -> None:
        object.__setattr__(self, "convention", replace(self.convention, out=None))

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.func.vmap(lambda point: self.convention.function(point).double())(x)
        return out


@dataclass(frozen=True)
class PointByPoint:
    """A function of one point, called for each.

    Raises:
        PointError: the function raised, and at which point.

    Examples:
        >>> from amfvi.density.calling import find_convention
        >>> points = torch.ones(3, 2).double()
        >>> PointByPoint(find_convention(lambda x: float(x[0]), points))(points)
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    convention: Convention
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        out = self.convention.out
        object.__setattr__(self, "shape", tuple(np.shape(out)))
        object.__setattr__(self, "convention", replace(self.convention, out=None))

    def __call__(self, x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for row, point in enumerate(x.detach() if self.convention.numpy else x):
            try:
                rows.append(to_tensor(self.convention.call(point), x))
            except Exception as error:
                raise PointError.from_exception(error, row) from error
        return torch.stack(rows) if rows else x.new_zeros(0, *self.shape)


@dataclass(frozen=True)
class OneByOne:
    """A function of a batch, called with batches of one point.

    Examples:
        >>> OneByOne(lambda x: x.sum(dim=1))(torch.ones(2, 3))
        tensor([3., 3.])
    """

    function: Values

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self.function(point) for point in x.split(1)])
