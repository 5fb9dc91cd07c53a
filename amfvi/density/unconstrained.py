"""A log density over unconstrained coordinates, evaluated in chunks within a budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.placement import place
from amfvi.errors import InputError

__all__ = ["UnconstrainedDensity"]

SLOW = 2e-3
"""Seconds per point from which a density is called in chunks of ``CHUNK_SECONDS``."""

CHUNK_SECONDS = 0.5
"""Length of a chunk of a slow density, so that limits of time are kept."""

MAX_CHUNK = 2**12
"""Points in a chunk of a fast density."""


class UnconstrainedDensity:
    """A log density over R^m with its Jacobian, on a device and within a budget.

    Args:
        log_density: the user's.
        budget: limits that every evaluation counts against; none by default.
        device: where points are handed to the user's function, if it can be computed there.

    Raises:
        InputError: the function cannot be called.

    Examples:
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(1), dim=2)
        >>> UnconstrainedDensity(normal).log_prob(torch.zeros(1, 2).double())
        tensor([0.], dtype=torch.float64)
    """

    def __init__(
        self,
        log_density: LogDensity,
        *,
        budget: Budget | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.log_density = log_density
        self.transform = log_density.transform
        self.dim = log_density.constraints.unconstrained_dim
        self.differentiable = log_density.vectorized.differentiable
        self.device = place(log_density, device)
        self.budget = budget if budget is not None else Budget()
        self.seconds_per_point = log_density.seconds_per_call
        self._singly = False

    @property
    def constraints(self) -> Constraints:
        """The user's constraints."""
        return self.log_density.constraints

    def with_transform(self, transform: UnconstrainingTransform) -> UnconstrainedDensity:
        """The same density over another unconstrained space, within the same budget."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def calling_singly(self) -> UnconstrainedDensity:
        """The same density with a call of the user's function for every point."""
        other = copy.copy(self)
        other._singly = True
        return other

    @property
    def n_workers(self) -> int:
        """How many points may be evaluated at the same time."""
        return self.log_density.n_workers

    def describe(self, point: Tensor) -> str:
        """Write out a point (d,) of the user's parameters, with names."""
        return self.log_density.describe(point)

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density in nats at points (n, m) on any device; shape (n,), same device.

        Raises:
            OutOfBudgetError: a limit was reached.
            InputError: the density is broken.
        """
        return self._map_chunked(self._values, y)[0]

    def log_prob_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`log_prob`, with the gradient (n, m); zero where it does not exist."""
        value, gradient = self._map_chunked(self._values_and_gradients, y)
        return value, gradient

    def log_prob_constrained(self, x: Tensor) -> Tensor:
        """Log density in nats at points (n, d) of the user's parameters; (n,).

        −∞ outside the constraints, where the function is not called.

        Raises:
            OutOfBudgetError: a limit was reached.
            InputError: the density is broken.
        """
        inside = self.constraints.contains(x)
        log_p = torch.full((len(x),), -math.inf, dtype=torch.float64)
        y, log_det = self.transform.to_unconstrained(x[inside])
        log_p[inside] = self.log_prob(y) + log_det
        return log_p

    def _values(self, y: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            x, log_det = self.transform.from_unconstrained_with_log_det(y)
            return (self._at(x, singly=self._singly) + log_det,)

    def _values_and_gradients(self, y: Tensor) -> tuple[Tensor, ...]:
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            x, log_det = self.transform.from_unconstrained_with_log_det(y)
            value = self._at(x) + log_det
            # The sum may be −∞; the gradient of a row depends on that row alone.
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)

    def _at(self, x: Tensor, *, singly: bool = False) -> Tensor:
        """Values at points (n, d) of the user's parameters; (n,).

        −∞ where rounding has moved a vector out of its constraint: far out, entries of an
        increasing one may be equal.
        """
        if self.constraints.vectors:
            inside = self.constraints.contains(x.detach())
            if not bool(inside.all()):
                nowhere = x.new_full((len(x),), -math.inf)
                rows = inside.nonzero().squeeze(1)
                if not len(rows):
                    return nowhere
                values = self.log_density.log_prob(x[rows], singly=singly)
                return nowhere.index_put((rows,), values)
        return self.log_density.log_prob(x, singly=singly)

    def _map_chunked(
        self, evaluate: Callable[[Tensor], tuple[Tensor, ...]], y: Tensor
    ) -> tuple[Tensor, ...]:
        results: list[tuple[Tensor, ...]] = []
        done = 0
        self.budget.require(len(y))  # parts of a batch would be of no use
        while done < len(y) or not results:
            chunk = y[done : done + self._chunk_size()]
            self.budget.spend(len(chunk))
            started = time.monotonic()
            results.append(self._evaluate_on_device(evaluate, chunk))
            if len(chunk):
                self.seconds_per_point = (time.monotonic() - started) / len(chunk)
            done += len(chunk)
        return tuple(torch.cat(column).to(y.device) for column in zip(*results, strict=True))

    def _evaluate_on_device(
        self, evaluate: Callable[[Tensor], tuple[Tensor, ...]], chunk: Tensor
    ) -> tuple[Tensor, ...]:
        try:
            return evaluate(chunk.to(self.device))
        except InputError:
            if self.device.type == "cpu":
                raise
        values = evaluate(chunk.cpu())  # raises again if it is the function that is broken
        self.device = torch.device("cpu")  # a branch needs data that lie there
        return values

    def _chunk_size(self) -> int:
        # How rows are grouped can change their last bit, so only slow densities are
        # grouped by the clock.
        is_timed = self.n_workers == 1 or self.budget.timeout is not None
        if self.log_density.seconds_per_call < SLOW or not is_timed:
            return MAX_CHUNK
        in_time = int(CHUNK_SECONDS / max(self.seconds_per_point, 1e-9))
        return max(2 * self.n_workers if self.n_workers > 1 else 1, min(MAX_CHUNK, in_time))
