"""A log density of many points whose points are shared among workers."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.density.adapters import PointError
from amfvi.density.vectorize import VectorizedDensity
from amfvi.errors import InputError, UsageError
from amfvi.pools import Workers, pool_size

__all__ = ["Piece", "PooledDensity", "evaluate_piece"]

PIECES_PER_WORKER = 4
"""Pieces that a batch is cut into for each worker where points are called one by one: with more
than one, a worker whose points take longer gets fewer of them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Points of a batch that one worker evaluates.

    Attributes:
        points: (k, d).
        gradient: whether gradients are wanted beside the values.
        singly: whether the function is called for every point alone.
        numpy_errors: how numpy treats division by zero and the like where they come from.

    Examples:
        >>> piece = Piece(points=np.zeros((2, 3)), gradient=False, singly=False, numpy_errors={})
        >>> piece.points.shape
        (2, 3)
    """

    points: NDArray[np.float64]
    gradient: bool
    singly: bool
    numpy_errors: Mapping[str, Any]


def evaluate_piece(density: VectorizedDensity, piece: Piece) -> NDArray[np.float64] | PointError:
    """Values (k,), or values and gradients side by side (k, 1 + d); or what went wrong.

    Examples:
        >>> from amfvi.density.vectorize import vectorize
        >>> density = vectorize(lambda x: -x.square().sum(dim=1), torch.ones(3, 2).double())
        >>> points = np.ones((1, 2))
        >>> evaluate_piece(
        ...     density, Piece(points=points, gradient=True, singly=False, numpy_errors={})
        ... )
        array([[-2., -2., -2.]])
    """
    x = torch.from_numpy(np.array(piece.points))  # the function may modify it
    try:
        with np.errstate(**piece.numpy_errors):
            out = _evaluate(density, x, piece)
    except Exception as error:
        failure = PointError.from_exception(error, 0 if len(x) == 1 else None)
        failure.add_note(traceback.format_exc())
        return failure
    return out.detach().cpu().numpy()


def _evaluate(density: VectorizedDensity, x: Tensor, piece: Piece) -> Tensor:
    if not piece.gradient:
        with torch.no_grad():
            return density.call_singly(x) if piece.singly else density.values(x)
    if density.joint is not None:
        with torch.no_grad():
            return density.joint(x)
    x.requires_grad_()
    with torch.enable_grad():
        values = density.values(x)
        if not values.requires_grad:  # constant at these points
            return torch.cat([values[:, None], torch.zeros_like(x)], dim=1)
        (gradients,) = torch.autograd.grad(values.sum(), x)
    return torch.cat([values.detach()[:, None], gradients], dim=1)


class PooledDensity:
    """A density and the workers that evaluate it.

    Args:
        density: as this process calls it.
        pool: as of :class:`amfvi.pools.Workers`.

    Attributes:
        vectorized: the same density, evaluated by the workers.

    Raises:
        UsageError: a density of JAX.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from amfvi.density.vectorize import vectorize
        >>> density = vectorize(lambda x: -x.square().sum(dim=1), torch.ones(3, 2).double())
        >>> with ThreadPoolExecutor(2) as threads:
        ...     PooledDensity(density, threads).vectorized.call(torch.ones(3, 2).double())
        tensor([-2., -2., -2.], dtype=torch.float64)
    """

    def __init__(self, density: VectorizedDensity, pool: Any) -> None:
        if density.is_jax:
            raise UsageError(
                "pool= is not for a log density of JAX, which is compiled and uses all cores by "
                "itself; leave it out"
            )
        # Fields are copied without what was cached in the original, which pickles badly.
        self._density = replace(density)
        self._workers = Workers(
            _PieceFunction(self._density),
            pool,
            "log density",
            differentiates=density.joint is None and density.differentiable,
        )
        self._size = pool_size(pool)
        self.vectorized = replace(
            density,
            values=self._map,
            joint=partial(self._map, gradient=True) if density.differentiable else None,
            singly=partial(self._map, singly=True),
            takes_tensors=False,
        )

    def close(self, *, now: bool = False) -> None:
        """End processes of ours, if there are any.

        Args:
            now: whatever they are doing.
        """
        self._workers.close(now=now)

    def _map(self, x: Tensor, *, gradient: bool = False, singly: bool = False) -> Tensor:
        """Evaluate points (n, d), and put what the workers return together.

        Raises:
            InputError: the pool fails, or a shape is wrong.
            PointError: the function raised.
        """
        if not len(x):
            return x.new_zeros(0, *[1 + x.shape[1]] * gradient)
        points = x.detach().cpu().numpy()
        one_by_one = singly or bool(self._density.why_singly)
        count = self._size * (PIECES_PER_WORKER if one_by_one else 1)
        parts = np.array_split(points, min(count, len(points)))
        errors = np.geterr()
        pieces = [
            Piece(points=part, gradient=gradient, singly=singly, numpy_errors=errors)
            for part in parts
        ]
        outs: list[NDArray[np.float64]] = []
        start = 0
        for part, out in zip(parts, self._workers.map(pieces), strict=True):
            if isinstance(out, PointError):
                row = None if out.row is None else start + out.row
                raise PointError(row, out.text) from out
            expected = (len(part), *[1 + x.shape[1]] * gradient)
            if out.shape != expected:
                raise InputError(
                    f"the log density returned shape {out.shape} for {len(part)} points, "
                    f"expected {expected}"
                )
            outs.append(out)
            start += len(part)
        return torch.from_numpy(np.concatenate(outs)).to(x.device)


@dataclass(frozen=True)
class _PieceFunction:
    """:func:`evaluate_piece` of one density, which can be pickled if the user's function can."""

    density: VectorizedDensity

    def __call__(self, piece: Piece) -> NDArray[np.float64] | PointError:
        return evaluate_piece(self.density, piece)
