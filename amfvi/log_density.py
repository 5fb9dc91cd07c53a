"""An unnormalised log density: checked, counted, and carried to unconstrained space."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from amfvi.batching import Batched, batched
from amfvi.draws import default_names
from amfvi.errors import InputError, UsageError
from amfvi.support import Support

__all__ = ["Budget", "LogDensity", "OutOfBudgetError", "UnconstrainedDensity"]

SLOW = 2e-3  # seconds a point, from which a function is called
PIECE_SECONDS = 0.5  # in pieces of about this length
MOST_POINTS = 2**12


class LogDensity:
    """The logarithm of a density that need not be normalised, of ``dim`` parameters.

    Args:
        function: from points (n, d) to log densities (n,) in nats, or from one point
            (d,) to one number; torch or numpy. Which it is, is found out by calling it.
            −∞ is allowed. With torch operations throughout, its gradient is used.
        dim: number of parameters d.
        prior: a torch distribution over the parameters from which the sampler starts.
            It is no part of the density.
        box: (lower, upper) for each parameter, or one pair for all; the sampler starts
            uniformly in it. The density is not cut off there.
        names: of the parameters.
        constraints: as ``support=`` of :meth:`amfvi.Draws.of`: positive, interval, …, and
            simplex, ordered or corr_cholesky for several parameters together. Not given,
            they are those of ``prior`` where it has one for every parameter.

    Raises:
        UsageError: arguments that do not fit together.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        dim: int,
        *,
        prior: Distribution | None = None,
        box: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        constraints: Mapping[Any, Any] | Sequence[Any] | Support | None = None,
    ) -> None:
        if not callable(function):
            raise UsageError(f"a log density is a function, found {type(function).__name__}")
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise UsageError(f"dim must be a positive whole number, found {dim!r}")
        self.function = function
        self.dim = dim
        self.names = tuple(names) if names is not None else default_names(dim)
        if len(self.names) != dim or len(set(self.names)) != dim:
            raise UsageError(f"names must be {dim} different ones, found {', '.join(self.names)}")
        if prior is not None and box is not None:
            raise UsageError("give prior= or box=, not both")
        self.prior = None if prior is None else _over_vectors(prior, dim)
        if constraints is None and self.prior is not None:
            constraints = _constraint_of(self.prior, dim)
        self.support = Support.of(self.names, constraints)
        self.box = None if box is None else _box_of(box, self.support)
        self.calls = 0
        self.seconds_a_call = 0.0

    @cached_property
    def batched(self) -> Batched:
        """The function as one of many points; found out at the first use.

        Raises:
            InputError: it cannot be called.
        """
        # Not as many points as parameters, so that shapes tell what was returned.
        n = 4 if self.dim == 3 else 3
        generator = torch.Generator().manual_seed(0)
        y = 0.5 * torch.randn(n, self.support.free, generator=generator, dtype=torch.float64)
        if self.box is not None:
            lower, upper = self.box
            share = torch.rand(n, self.dim, generator=generator, dtype=torch.float64)
            points = lower + share * (upper - lower)
        else:
            points = self.support.from_unconstrained(y)
        found = batched(self.function, points)
        self.calls += n
        paces: list[float] = []
        while not paces or (len(paces) < 5 and max(paces) * n < 0.1):
            started = time.monotonic()
            found.call(points)
            paces.append((time.monotonic() - started) / n)
            self.calls += n
        self.seconds_a_call = min(paces)
        return found

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats at points (n, d) inside the support; float64, shape (n,).

        Raises:
            InputError: NaN or +∞, a wrong shape, or whatever the function raised; with
                the point.
        """
        call = self.batched.call
        try:
            out = call(x.clone())  # what a function does to its argument is its own affair
        except Exception as error:
            raise self._failed(error, x) from error
        self.calls += len(x)
        if out.shape != (len(x),):
            raise InputError(
                f"the log density returned shape {tuple(out.shape)} for {len(x)} points, "
                f"expected ({len(x)},)"
            )
        bad = (out.isnan() | (out == math.inf)).detach()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise InputError(
                f"the log density is {float(out.detach()[row])} at {self.described(x[row])}; "
                "return a finite number, or -inf where the density is zero"
            )
        return out

    def described(self, point: Tensor) -> str:
        """A point of the user's space, with names."""
        values = point.detach().tolist()
        return ", ".join(f"{n} = {v:.6g}" for n, v in zip(self.names, values, strict=True))

    def _failed(self, error: Exception, x: Tensor) -> InputError:
        at = f" at {self.described(x[0])}" if len(x) == 1 else f" at one of {len(x)} points"
        said = " ".join(str(error).split())
        return InputError(f"the log density raised {type(error).__name__}: {said}{at}")

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"LogDensity({name}, dim={self.dim})"


class OutOfBudgetError(Exception):
    """No more calls, or no more time; what there is by then is what there is."""


class Budget:
    """How many calls and seconds there are."""

    def __init__(self, max_calls: int | None = None, seconds: float | None = None) -> None:
        self.max_calls = max_calls
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.spent = 0

    def spend(self, calls: int) -> None:
        """Take ``calls`` from what is left.

        Raises:
            OutOfBudgetError: there are not as many, or the time is up; says which.
        """
        if self.max_calls is not None and self.spent + calls > self.max_calls:
            raise OutOfBudgetError(f"--max-calls {self.max_calls}")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfBudgetError("--timeout")
        self.spent += calls


class UnconstrainedDensity:
    """A log density over R^free with its Jacobian, on a device and within a budget."""

    def __init__(
        self,
        density: LogDensity,
        *,
        budget: Budget | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.density = density
        self.dim = density.support.free
        self.differentiable = density.batched.differentiable
        self.device = torch.device(device)
        self.budget = budget if budget is not None else Budget()
        self.seconds_a_point = density.seconds_a_call

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density in nats at points (n, free) on the CPU or wherever; shape (n,), there."""
        return self._in_pieces(y, self._values)[0]

    def log_prob_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Also its gradient (n, free); zero where there is none to be had."""
        value, gradient = self._in_pieces(y, self._values_and_gradients)
        return value, gradient

    def _values(self, y: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            x, log_det = self.density.support.from_unconstrained_with_log_det(y)
            return (self.density.log_prob(x) + log_det,)

    def _values_and_gradients(self, y: Tensor) -> tuple[Tensor, ...]:
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            x, log_det = self.density.support.from_unconstrained_with_log_det(y)
            value = self.density.log_prob(x) + log_det
            # The sum may hold −∞; its rows do not touch those of the others.
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)

    def _in_pieces(
        self, y: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        parts: list[tuple[Tensor, ...]] = []
        done = 0
        while done < len(y) or not parts:
            piece = y[done : done + self._piece_size()]
            self.budget.spend(len(piece))
            started = time.monotonic()
            parts.append(evaluate(piece.to(self.device)))
            if len(piece):
                self.seconds_a_point = (time.monotonic() - started) / len(piece)
            done += len(piece)
        return tuple(torch.cat(column).to(y.device) for column in zip(*parts, strict=True))

    def _piece_size(self) -> int:
        # How rows are grouped can change their last bit, so only what is slow is grouped by
        # the clock.
        if self.density.seconds_a_call < SLOW:
            return MOST_POINTS
        return max(1, min(MOST_POINTS, int(PIECE_SECONDS / max(self.seconds_a_point, 1e-9))))


def _over_vectors(prior: Distribution, dim: int) -> Distribution:
    """A distribution over vectors of ``dim`` numbers.

    Raises:
        UsageError: it is over something else.
    """
    if not isinstance(prior, Distribution):
        raise UsageError(f"prior must be a torch distribution, found {type(prior).__name__}")
    if prior.event_shape == (dim,) and prior.batch_shape == ():
        return prior
    if prior.event_shape == () and prior.batch_shape == (dim,):
        return Independent(prior, 1)
    raise UsageError(
        f"prior must be over {dim} parameters, found batch shape {tuple(prior.batch_shape)} and "
        f"event shape {tuple(prior.event_shape)}"
    )


def _constraint_of(prior: Distribution, dim: int) -> list[Any] | None:
    """One scalar constraint for every parameter, if that is what the prior has."""
    support: Any = prior.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if getattr(support, "event_dim", 1) != 0:
        return None
    if any(getattr(getattr(support, b, None), "ndim", 0) for b in ("lower_bound", "upper_bound")):
        pairs = zip(support.lower_bound.tolist(), support.upper_bound.tolist(), strict=True)
        return [constraints.interval(*pair) for pair in pairs]
    return [support] * dim


def _box_of(box: Sequence[Any], support: Support) -> tuple[Tensor, Tensor]:
    """Lower and upper corner (d,) of a box inside the support's bounds.

    Raises:
        UsageError: no finite pairs, in the wrong order, or with parameters bounded together.
    """
    pairs = torch.as_tensor(box, dtype=torch.float64)
    if pairs.shape == (2,):
        pairs = pairs.expand(support.dim, 2)
    if pairs.shape != (support.dim, 2):
        raise UsageError(
            f"box must be {support.dim} pairs (lower, upper), found shape {tuple(pairs.shape)}"
        )
    if support.blocks:
        raise UsageError("a box cannot start parameters that are bounded together; give prior=")
    lower = torch.maximum(pairs[:, 0], pairs.new_tensor(support.lower))
    upper = torch.minimum(pairs[:, 1], pairs.new_tensor(support.upper))
    if not bool((lower < upper).all() and pairs.isfinite().all()):
        raise UsageError(f"a box needs finite lower below upper bounds, found {pairs.tolist()}")
    return lower, upper
