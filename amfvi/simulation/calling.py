"""Find how a user's simulator is to be called: one point or many, tensors or numpy arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import current_thread, main_thread
from typing import Any

import numpy as np
from torch import Tensor

from amfvi.density.calling import to_numpy
from amfvi.errors import InputError
from amfvi.simulation.independence import Independence, independence_of_rows
from amfvi.simulation.seeding import (
    find_random_argument,
    global_states,
    kept_global_states,
    make_random_argument,
    seed_global_states,
)
from amfvi.simulation.values import Array, alike, contained, to_array

__all__ = ["TRIAL_POINTS", "Calling", "find_calling"]

TRIAL_POINTS = 20
"""Points of the prior that are enough to find how a simulator is to be called."""

NUMPY_ON_TENSORS = "__array_wrap__"
"""What numpy warns of when it is handed tensors."""

Evaluate = Callable[[Tensor, int], Array]


@dataclass(frozen=True, kw_only=True)
class Calling:
    """A simulator with the way to call it.

    Attributes:
        function: the user's.
        many: whether it takes a batch (n, d); else one point (d,).
        numpy: whether it is handed numpy arrays; else tensors.
        random_argument: through which it takes random numbers; None: there is none.
        uses_global_states: whether it was seen to take random numbers from global states.
        shape: of what it returns for one point.
        reproducible: whether the same seed gives the same data.

    Examples:
        >>> import torch
        >>> calling = find_calling(lambda y: y**2, torch.rand(TRIAL_POINTS, 2).double())
        >>> str(calling), calling.shape
        ('torch, in batches', (2,))
    """

    function: Callable[..., Any]
    many: bool
    numpy: bool
    random_argument: str | None = None
    uses_global_states: bool = False
    shape: tuple[int, ...] = ()
    reproducible: bool = True

    def __str__(self) -> str:
        batching = "in batches" if self.many else "point by point"
        taken = f", with {self.random_argument}" if self.random_argument else ""
        return f"{'numpy' if self.numpy else 'torch'}, {batching}{taken}"

    @property
    def size(self) -> int:
        """Numbers that it returns for one point."""
        return int(np.prod(self.shape, dtype=np.int64))

    @contextmanager
    def ready(self) -> Iterator[Evaluate]:
        """Yield a function of (points, key) that calls the simulator with this seed.

        Points are (n, d) or (d,), as the simulator takes them. Global random states are
        the same after the block as before.
        """
        # Threads share global states, and would wait for each other for nothing where a
        # simulator does not use them; elsewhere seeding costs nothing and may be needed.
        seeding = self.uses_global_states or (
            self.random_argument is None and current_thread() is main_thread()
        )
        with kept_global_states() if seeding else nullcontext():
            yield partial(self._call, seeding)

    def _call(self, seeding: bool, y: Tensor, key: int) -> Array:
        if seeding:
            seed_global_states(key)
        name = self.random_argument
        named = {} if name is None else {name: make_random_argument(name, key)}
        argument = to_numpy(y) if self.numpy else y.clone()
        return to_array(contained(self.function, argument, **named))


def find_calling(function: Callable[..., Any], points: Tensor) -> Calling:
    """Find how a simulator is to be called, by calling it.

    Batches (n, d) come before single points (d,), since they are much faster, and are used
    where two sizes of batch give as many rows each, and where data of a row do not change
    with the other rows under the same random numbers. Where that cannot be told, since how
    many random numbers are used depends on the points or since no seed reaches them, single
    points are used if they work.

    Args:
        points: (TRIAL_POINTS, d) draws of the prior.

    Raises:
        InputError: it raises at all points tried, returns something else than real numbers
            of one shape, or takes batches alone and mixes their rows.

    Examples:
        >>> import torch
        >>> points = torch.rand(TRIAL_POINTS, 2).double()
        >>> str(find_calling(lambda y, rng: rng.normal(y[0], y[1], size=3), points))
        'numpy, point by point, with rng'
        >>> find_calling(lambda y: y / y[:, :1].sum(), points)
        Traceback (most recent call last):
        amfvi.errors.InputError: the data simulated for one point depend on the other points ...
    """
    name = find_random_argument(function)
    numpy_first = name == "rng"
    failures: list[str] = []
    in_doubt: Calling | None = None
    mixes = False
    first_error: Exception | None = None
    for many, numpy in ((m, n) for m in (True, False) for n in (numpy_first, not numpy_first)):
        tried = Calling(function=function, many=many, numpy=numpy, random_argument=name)
        try:
            with kept_global_states(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=NUMPY_ON_TENSORS)
                found = _try_batches(tried, points) if many else _try_points(tried, points)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
            first_error = first_error or error
            continue
        calling, independence = found
        if independence is Independence.CERTAIN:
            return calling
        mixes = mixes or independence is Independence.REFUTED
        if independence is Independence.UNKNOWN and in_doubt is None:
            in_doubt = calling
    if in_doubt is not None:
        return in_doubt
    if mixes:
        raise InputError(
            "the data simulated for one point depend on the other points in its batch; treat "
            "each row of (n, d) by itself, or take one point (d,)"
        )
    d = points.shape[1]
    raise InputError(
        f"the simulator cannot be called: {_clearest(failures)} (expected n rows for points of "
        f"shape (n, {d}), or numbers of one shape for ({d},))"
    ) from first_error


def _clearest(failures: list[str]) -> str:
    """The message in which more than one way to call it ends, the last one's; else the first."""
    last = failures[-1]
    return last if failures.count(last) > 1 else failures[0]


def _try_batches(tried: Calling, points: Tensor) -> tuple[Calling, Independence]:
    """What a simulator of batches returns, and whether it treats each row by itself.

    Raises:
        ValueError: it does not return as many rows as it is given.
    """
    sizes = [n for n in (5, 6, 7, 8) if n != points.shape[1]][:2]
    with replace(tried, uses_global_states=True).ready() as evaluate:
        first, second = (evaluate(points[:n], 0) for n in sizes)
        for n, out in zip(sizes, (first, second), strict=True):
            if out.shape != (n, *first.shape[1:]):
                raise ValueError(f"for points of shape {(n, points.shape[1])} it returned shape "
                                 f"{out.shape}")  # fmt: skip
        independence = independence_of_rows(evaluate, points, sizes)
        calling = _complete(tried, evaluate, points[: sizes[0]], first, first.shape[1:])
    return calling, independence


def _try_points(tried: Calling, points: Tensor) -> tuple[Calling, Independence]:
    """What a simulator of single points returns, at the first of a few where it works.

    Raises:
        ValueError: it returns other shapes at other points.
        Exception: it raises at all of them.
    """
    failure: Exception | None = None
    with replace(tried, uses_global_states=True).ready() as evaluate:
        worked: list[tuple[Tensor, Array]] = []
        for point in points[:5]:
            try:
                worked.append((point, evaluate(point, 0)))
            except Exception as error:  # one point may be where the simulator fails
                failure = failure or error
            if len(worked) == 2:
                break
        if not worked:
            raise failure or ValueError("no points")
        shapes = [out.shape for _, out in worked]
        if shapes[0] != shapes[-1]:
            raise ValueError(f"it returned shapes {shapes[0]} and {shapes[-1]} for two points")
        calling = _complete(tried, evaluate, *worked[0], shapes[0])
    return calling, Independence.CERTAIN


def _complete(
    tried: Calling, evaluate: Evaluate, y: Tensor, out: Array, shape: tuple[int, ...]
) -> Calling:
    """What is known of a simulator once it has been called with points and key 0.

    Raises:
        ValueError: it returns no numbers.
    """
    if 0 in shape:
        raise ValueError(f"it returned no numbers, shape {shape}")
    seed_global_states(0)
    before = global_states()
    again = evaluate(y, 0)
    uses = not all(map(np.array_equal, before, global_states()))
    reproducible = alike(out, again)
    numpy = tried.numpy or _prefers_numpy(tried, y, again, reproducible)
    return replace(
        tried,
        numpy=numpy,
        uses_global_states=uses,
        shape=tuple(shape),
        reproducible=reproducible,
    )


def _prefers_numpy(tried: Calling, y: Tensor, values: Array, reproducible: bool) -> bool:
    """Whether a function that was handed tensors computes with numpy, and faster so."""
    name = tried.random_argument
    named = {} if name is None else {name: make_random_argument(name, 0)}
    seed_global_states(0)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        out = contained(tried.function, y.clone(), **named)
    if isinstance(out, Tensor) and not any(NUMPY_ON_TENSORS in str(w.message) for w in raised):
        return False
    try:
        with replace(tried, numpy=True, uses_global_states=True).ready() as evaluate:
            out = evaluate(y, 0)
            return alike(out, values) if reproducible else out.shape == values.shape
    except Exception:  # then it is handed tensors, as in the call that worked
        return False
