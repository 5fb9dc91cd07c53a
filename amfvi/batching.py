"""Any function that gives a log density, made one that takes many points at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import AmfviWarning, InputError

__all__ = ["Batched", "batched"]

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Batched:
    """A log density of many points.

    Attributes:
        call: float64 points (n, d) to a float64 tensor (n,).
        differentiable: whether autograd goes through ``call``.
        vectorised: whether many points take little longer than one.
        form: what the user's function turned out to be, in words.
    """

    call: Callable[[Tensor], Tensor]
    differentiable: bool
    vectorised: bool
    form: str


def batched(function: Function, points: Tensor) -> Batched:
    """Find out how ``function`` wants to be called, by calling it.

    Tried in turn: a batch (n, d) of tensors, a single point (d,), then both as numpy
    arrays. A function of single points is vectorised by ``torch.func.vmap`` where that
    is possible.

    Args:
        points: (n, d) where the function can be expected to work; n is not d and not 1.

    Raises:
        InputError: it raises, or returns no number a point, whichever way it is called.

    Warns:
        AmfviWarning: it has to be called point by point.
    """
    n, d = points.shape
    failures: list[str] = []
    for many, numpy in ((True, False), (False, False), (True, True), (False, True)):
        given = points if many else points[0]
        try:
            out = function(given.numpy() if numpy else given.clone())
            if out is None:
                raise TypeError("it returned None")
            plain = out.detach().cpu() if isinstance(out, Tensor) else out
            shape = tuple(np.asarray(plain, dtype=np.float64).shape)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            continue
        if shape != ((n,) if many else ()):
            failures.append(f"for points of shape {tuple(given.shape)} it returned shape {shape}")
            continue
        if many:
            return _of_batches(function, points, out, numpy=numpy)
        return _of_single_points(function, points, out, numpy=numpy)
    # What it said to a batch is what its author expected to be asked, unless it was numpy.
    raise InputError(
        f"the log density cannot be called: {' '.join(failures[0].split())} "
        f"(expected shape ({n},) for points of shape ({n}, {d}), or one number for ({d},))"
    )


def _of_batches(function: Function, points: Tensor, out: Any, *, numpy: bool) -> Batched:
    if isinstance(out, Tensor):
        found = Batched(lambda x: function(x).double(), False, True, "torch, in batches")
    else:
        found = Batched(
            lambda x: _to_tensor(function(x.detach().cpu().numpy().copy()), x), False, True,
            "numpy, in batches",
        )  # fmt: skip
    alone = found.call(points[1:3]).detach()
    together = torch.as_tensor(out).detach().cpu().double()[1:3]
    if alone.shape != (2,) or not torch.allclose(
        alone.cpu(), together, rtol=1e-3, atol=1e-3, equal_nan=True
    ):
        raise InputError(
            "the log density of a point depends on the other points in its batch "
            f"({together.tolist()} among {len(points)}, {alone.tolist()} among 2)"
        )
    differentiable = isinstance(out, Tensor) and not numpy and _has_gradient(found.call, points)
    return Batched(found.call, differentiable, True, found.form)


def _of_single_points(function: Function, points: Tensor, out: Any, *, numpy: bool) -> Batched:
    if isinstance(out, Tensor) and not numpy:
        vectorised = torch.func.vmap(lambda x: function(x).double())
        try:
            same = torch.allclose(
                vectorised(points[:2]).detach().cpu(),
                torch.stack([function(x.clone()).detach().cpu().double() for x in points[:2]]),
                rtol=1e-6, atol=1e-6, equal_nan=True,
            )  # fmt: skip
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        else:
            if same:
                differentiable = _has_gradient(vectorised, points)
                return Batched(vectorised, differentiable, True, "torch, point by point, by vmap")
            reason = "vmap gives other numbers"
        looped = Batched(
            lambda x: torch.stack([function(one).double() for one in x]), False, False,
            "torch, point by point",
        )  # fmt: skip
        differentiable = _has_gradient(looped.call, points)
        found = Batched(looped.call, differentiable, False, looped.form)
    else:
        reason = "it returns numpy numbers"
        found = Batched(
            lambda x: _to_tensor(
                np.array([float(function(one)) for one in x.detach().cpu().numpy().copy()]), x
            ),
            False, False, "numpy, point by point",
        )  # fmt: skip
    warnings.warn(
        f"the log density takes one point at a time and cannot be vectorised ({reason}); "
        "a function of a batch (n, d) would be many times faster",
        AmfviWarning,
        stacklevel=2,
    )
    return found


def _has_gradient(call: Callable[[Tensor], Tensor], points: Tensor) -> bool:
    """Whether autograd reaches the points and finds something finite somewhere."""
    x = points.clone().requires_grad_()
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(call(x).sum(), x, allow_unused=True)
    except Exception:  # whatever it is, such a function is used without gradients
        return False
    return gradient is not None and bool(gradient.isfinite().any())


def _to_tensor(out: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(out, dtype=np.float64), device=like.device)
