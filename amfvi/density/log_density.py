"""An unnormalized log density as users give it: vectorized, checked and counted."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from amfvi.constraints.constraints import Constraints, ConstraintsLike, default_names
from amfvi.constraints.from_torch import constraints_of_distribution
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.adapters import PointError
from amfvi.density.pooled import PooledDensity
from amfvi.density.starts import over_vectors, parse_box
from amfvi.density.user_gradient import vectorize_with_gradient
from amfvi.density.vectorize import VectorizedDensity, require_reproducible, vectorize
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.pools import check_pool, pool_size
from amfvi.variables import Variables, parse_names

__all__ = ["LogDensity"]

TIMED_CALLS = 5
"""Most calls made to find how long a density takes and whether its values are reproducible."""

TIMED_SECONDS = 0.1
"""Seconds that a call may take for more than two of them to be made."""


class LogDensity:
    """The logarithm of a density of ``dim`` parameters that need not be normalized.

    Args:
        function: from points (n, d) to log densities (n,) in nats, or from one point
            (d,) to one number; torch or numpy. The way to call it is found by calling it.
            −∞ is allowed. A function of torch or of JAX is differentiated, and one of JAX
            compiled.
        dim: number of parameters d.
        prior: a torch distribution over the parameters from which the sampler starts.
            It is not part of the density.
        box: (lower, upper) for each parameter, or one pair for all; the sampler starts
            uniformly in it. The density is not cut off there.
        names: parameter names; ``x1, x2, …`` if not given.
        constraints: positive, interval, simplex, …; see
            :meth:`amfvi.Constraints.parse`. If not given, those of ``prior``.
        variables: the arrays that the parameters are entries of, in place of ``names``; draws
            are handed to ArviZ as such arrays. If not given, what the names show.
        value_and_grad: True if ``function`` returns a pair of the log density and its gradient
            (n, d) or (d,), or a function of its own that does. It is compared with finite
            differences once.
        transformed: from draws (n, d) to arrays (n, …) by name: quantities that the model
            computes from its parameters. ArviZ gets them on request.
        pool: of workers that share the points, for a density that takes its time: a number of
            processes, which start at the first use and end with a fit; or anything with
            ``map``, such as an executor of ``concurrent.futures``. A function of one point gets
            one after the other, and the same numbers come out; one of a batch gets parts of it.

    Attributes:
        n_evaluations: points evaluated so far.
        caveat: what is to be known of the density itself, which every verdict on it repeats.
        seconds_per_call: time that one point takes, measured at the first use; 0 before.
        test_values: log densities at a few fixed points, to tell densities apart; empty
            before the first use.

    Raises:
        UsageError: arguments that do not fit together.

    Examples:
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=2)
        >>> normal.log_prob(torch.ones(1, 2).double())
        tensor([-1.], dtype=torch.float64)

        With a gradient that numpy computes:

        >>> density = LogDensity(
        ...     lambda x: (-0.5 * (x**2).sum(axis=1), -x), dim=2, value_and_grad=True)
        >>> density.vectorized.differentiable
        True
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        dim: int,
        *,
        prior: Distribution | None = None,
        box: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        constraints: ConstraintsLike = None,
        variables: Variables | None = None,
        value_and_grad: bool | Callable[[Any], Any] = False,
        transformed: Callable[[Any], Mapping[str, Any]] | None = None,
        pool: Any = None,
    ) -> None:
        if not callable(function):
            raise UsageError(f"a log density is a function, found {type(function).__name__}")
        if not isinstance(value_and_grad, bool) and not callable(value_and_grad):
            raise UsageError(
                "value_and_grad must be True, if the function returns a pair, or a function; "
                f"found {type(value_and_grad).__name__}"
            )
        if isinstance(dim, bool) or not isinstance(dim, int | Integral) or dim < 1:
            raise UsageError(f"dim must be a positive whole number, found {dim!r}")
        self.function = function
        self.value_and_grad = value_and_grad
        self._transformed = transformed
        self.dim = dim = int(dim)
        if variables is not None:
            if not isinstance(variables, Variables):
                raise UsageError(
                    f"variables must be amfvi's Variables, found {type(variables).__name__}"
                )
            if names is not None and tuple(names) != variables.names:
                raise UsageError("give names= or variables=, not both")
            names = variables.names
        self.names = parse_names(names) if names is not None else default_names(dim)
        if len(self.names) != dim or len(set(self.names)) != dim:
            raise UsageError(f"names must be {dim} different ones, found {', '.join(self.names)}")
        self.variables = variables or Variables.from_names(self.names)
        if prior is not None and box is not None:
            raise UsageError("give prior= or box=, not both")
        self.prior = None if prior is None else over_vectors(prior, dim)
        if constraints is None and self.prior is not None:
            constraints = constraints_of_distribution(self.prior, self.names)
        self.constraints = Constraints.parse(self.names, constraints)
        self.transform = UnconstrainingTransform(self.constraints)
        self.box = None if box is None else parse_box(box, self.constraints)
        self.n_evaluations = 0
        self.caveat: str | None = None
        self.seconds_per_call = 0.0
        self.test_values: tuple[float, ...] = ()
        self._pooled: PooledDensity | None = None
        self._has_warned = False
        self.pool = pool

    @property
    def pool(self) -> Any:
        """The workers that share the points; it may be set anew at any time."""
        return self._pool

    @pool.setter
    def pool(self, pool: Any) -> None:
        check_pool(pool)
        self.close()
        self._pool, self._pooled = pool, None
        self.n_workers = pool_size(pool)

    @property
    def vectorized(self) -> VectorizedDensity:
        """The function as one of many points; the way to call it is found at the first use.

        Raises:
            InputError: it cannot be called, or gives two values at one point.
            UsageError: a pool for a function of JAX, which uses all cores by itself.

        Warns:
            AmfviWarning: it has to be called point by point, without a pool.
        """
        if self._pool is None or self._pool == 1:
            self._warn_of_single_points()
            return self._found
        self._pooled = self._pooled or PooledDensity(self._found, self._pool)
        return self._pooled.vectorized

    def close(self, *, now: bool = False) -> None:
        """End processes of ours, with ``now`` whatever they do; further use starts others."""
        if self._pooled is not None:
            self._pooled.close(now=now)

    @contextmanager
    def closing(self) -> Iterator[LogDensity]:
        """Close after the block, at once if it raises or is interrupted."""
        try:
            yield self
        except BaseException:
            self.close(now=True)
            raise
        self.close()

    @cached_property
    def _found(self) -> VectorizedDensity:
        """The function as one of many points, in this process."""
        points = self.test_points()
        density = self._vectorize(points)
        self.n_evaluations += len(points)
        seconds: list[float] = []
        values: list[Tensor] = []
        while len(values) < 2 or (len(values) < TIMED_CALLS and max(seconds) < TIMED_SECONDS):
            argument = points.clone()  # the function may modify it
            started = time.monotonic()
            values.append(density.call(argument).detach().cpu())
            seconds.append(time.monotonic() - started)
            self.n_evaluations += len(points)
        for repeated in values[1:]:
            require_reproducible(values[0], repeated, density.resolution)
        self.seconds_per_call = min(seconds) / len(points)
        self.test_values = tuple(values[0].tolist())
        return density

    def _warn_of_single_points(self) -> None:
        reason, self._has_warned = "" if self._has_warned else self._found.why_singly, True
        if reason:
            warnings.warn(
                f"the log density takes one point at a time and cannot be vectorized ({reason}); a "
                "function of a batch (n, d) would be many times faster, and pool= shares the "
                "points of a slow one among processes",
                AmfviWarning,
                stacklevel=4,
            )

    def _vectorize(self, points: Tensor) -> VectorizedDensity:
        if self.value_and_grad is False:
            return vectorize(self.function, points)
        if self.value_and_grad is True:
            return vectorize_with_gradient(self.function, points, self.names)
        return vectorize_with_gradient(
            self.value_and_grad, points, self.names, function=self.function
        )

    def test_points(self) -> Tensor:
        """A few points inside the constraints, and inside the box if there is one."""
        # Not as many points as parameters, so that shapes tell what was returned.
        n = 4 if self.dim == 3 else 3
        generator = torch.Generator().manual_seed(0)
        size = (n, self.constraints.unconstrained_dim)
        y = 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)
        if self.box is None:
            return self.transform.from_unconstrained(y)
        lower, upper = self.box
        share = torch.rand(n, self.dim, generator=generator, dtype=torch.float64)
        return lower + share * (upper - lower)

    def log_prob(self, x: Tensor, *, singly: bool = False) -> Tensor:
        """Log density in nats at points (n, d) inside the constraints; float64, shape (n,).

        Args:
            singly: with a call of the function for every point, and no gradient.

        Raises:
            InputError: NaN or +∞, a wrong shape, or an exception of the function; the
                message gives the point.
        """
        call = self.vectorized.call_singly if singly else self.vectorized.call
        try:
            out = call(x.clone())  # the function may modify its argument
        except InputError:  # of the pool
            raise
        except Exception as error:
            raise self._failed(error, x) from error
        self.n_evaluations += len(x)
        if out.shape != (len(x),):
            raise InputError(
                f"the log density returned shape {tuple(out.shape)} for {len(x)} points, "
                f"expected ({len(x)},)"
            )
        bad = (out.isnan() | (out == math.inf)).detach()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise InputError(
                f"the log density is {float(out.detach()[row])} at {self.describe(x[row])}; "
                "return a finite number, or -inf where the density is zero"
            )
        return out

    def transformed(self, draws: Any) -> Mapping[str, Any]:
        """Compute what the model has besides its parameters: arrays (n, …) of draws (n, d).

        Raises:
            UsageError: nothing is known of that.
        """
        if self._transformed is None:
            raise UsageError(
                "nothing is known that this log density's model computes from its parameters; "
                "from_stan and from_pymc make densities that know it, or give transformed="
            )
        return self._transformed(draws)

    def describe(self, point: Tensor) -> str:
        """Write out a point (d,) with the names of its parameters."""
        values = point.detach().tolist()
        return ", ".join(f"{n} = {v:.6g}" for n, v in zip(self.names, values, strict=True))

    def _failed(self, error: Exception, x: Tensor) -> InputError:
        failure = PointError.from_exception(error, 0 if len(x) == 1 else None)
        row = failure.row
        at = f"one of {len(x)} points" if row is None else self.describe(x[row])
        return InputError(f"the log density raised {failure.text} at {at}")

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"LogDensity({name}, dim={self.dim})"
