"""What the parameters of a simulator are drawn from: a distribution, or a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from amfvi.constraints.constraints import Constraints, ConstraintsLike
from amfvi.constraints.from_torch import constraints_of_distribution
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.draws.checks import require_inside, require_varying
from amfvi.errors import InputError, UsageError
from amfvi.simulation.seeding import (
    find_random_argument,
    kept_global_states,
    key_for,
    make_random_argument,
    required_arguments,
    seed_global_states,
)
from amfvi.simulation.values import Array, alike, contained, to_array

__all__ = ["Prior", "parse_names"]

TRIAL_SIZES = (5, 4)
"""Numbers of draws asked for when it is found out what a prior gives."""

ROUNDING = 1e-5
"""Relative distance from the constraints that single precision explains."""


class Prior:
    """Draws of d parameters, of the user's distribution or function.

    Args:
        prior: a distribution of torch or Pyro over an array of d numbers, such as one with
            batch shape or event shape (d,), an ``amfvi.Posterior`` among them; or an object
            with such a ``sample((n,))``; or a function of n that returns n draws, (n, d), or
            (n,) for one parameter; or a function of no number that returns one draw. A
            function may take a further argument called ``rng`` (a numpy Generator),
            ``generator`` (a torch Generator) or ``seed`` (an int). Otherwise global
            random states are seeded while it is called, and restored.
        names: of the parameters; those of the prior, or ``y1, y2, …``.
        constraints: see :meth:`amfvi.Constraints.parse`. If not given, those of the
            distribution.

    Attributes:
        dim: number of parameters d.
        reproducible: whether the same seed gives the same draws.
        log_prob: from points (n, d) to log densities (n,) in nats, float64; None where the
            prior has none.

    Raises:
        UsageError: nothing that draws can be taken from, or arguments that do not fit.
        InputError: the prior raises, or returns other shapes.

    Examples:
        >>> from torch.distributions import Gamma
        >>> prior = Prior(Gamma(2.0, torch.ones(3)))
        >>> prior.names, prior.constraints.lower, prior.sample(10, seed=0).shape
        (('y1', 'y2', 'y3'), (0.0, 0.0, 0.0), torch.Size([10, 3]))
        >>> Prior(lambda n, rng: rng.normal(size=(n, 2))).dim
        2
    """

    def __init__(
        self,
        prior: Any,
        *,
        names: Sequence[str] | None = None,
        constraints: ConstraintsLike = None,
    ) -> None:
        if isinstance(prior, type):
            raise UsageError(f"prior must be a distribution, not the class {prior.__name__}")
        self.prior = prior
        self._draw = _find_draw(prior)
        first, other, again = (self._trial(n) for n in (*TRIAL_SIZES, TRIAL_SIZES[0]))
        if first.shape[1:] != other.shape[1:]:
            raise InputError(
                f"prior: draws have shape {first.shape[1:]}, then {other.shape[1:]}; "
                "expected the same number of parameters every time"
            )
        self.reproducible = alike(first, again)
        self.dim = int(np.prod(first.shape[1:], dtype=np.int64))
        if self.dim == 0:
            raise InputError("prior: draws have no parameters")
        self.names = parse_names(names or _own_names(prior), self.dim, "y", "names")
        if constraints is None and isinstance(prior, Distribution):
            constraints = constraints_of_distribution(prior, self.names)
        self.constraints = Constraints.parse(self.names, constraints)
        self.log_prob = _find_log_prob(prior, first)

    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n times from the prior, (n, d), float64, inside the constraints.

        Raises:
            InputError: the prior raises, returns another shape, NaN, infinity or a point
                outside the constraints, or one parameter is constant.
        """
        raw = self._trial(n, key_for(seed, "prior"))
        if n and raw[0].size != self.dim:
            raise InputError(
                f"prior: draws have shape {raw.shape[1:]}, expected {self.dim} numbers"
            )
        y = torch.from_numpy(raw.reshape(n, self.dim))
        bad = ~y.isfinite().all(dim=1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise InputError(
                f"prior: {int(bad.sum())} of {n} draws hold NaN or infinity, the first is "
                f"{y[row].tolist()}"
            )
        y = _without_rounding(y, self.constraints)
        require_inside(y, self.names, self.constraints, range(n))
        if n > 1:
            require_varying(y.numpy(), self.names, self.constraints)
        return y

    def _trial(self, n: int, key: int = 0) -> Array:
        """Draws as the prior gives them: an array (n, …).

        Raises:
            InputError: the prior raises, or returns something else.
        """
        try:
            draws = contained(self._draw, n, key)
        except Exception as error:
            said = " ".join(str(error).split())
            raise InputError(f"prior: cannot be sampled: {type(error).__name__}: {said}") from error
        if draws.ndim == 0 or len(draws) != n:
            raise InputError(
                f"prior: {n} draws have shape {draws.shape}, expected ({n}, d), or ({n},) for "
                "one parameter"
            )
        return draws


def parse_names(names: Sequence[str] | None, d: int, letter: str, argument: str) -> tuple[str, ...]:
    """Names of d columns: those given, or ``y1, y2, …`` of a letter.

    Raises:
        UsageError: another number of names, or two that are the same.

    Examples:
        >>> parse_names(None, 2, "c", "given_names")
        ('c1', 'c2')
    """
    if names is None:
        return tuple(f"{letter}{i}" for i in range(1, d + 1))
    parsed = (names,) if isinstance(names, str) else tuple(names)
    if len(parsed) != d or len(set(parsed)) != d:
        raise UsageError(f"{argument} must be {d} different ones, found {', '.join(parsed)}")
    return parsed


def _own_names(prior: Any) -> Sequence[str] | None:
    """Names that a prior has of its own, as a fitted posterior does."""
    names = getattr(prior, "names", None)
    return names if isinstance(names, tuple | list) else None


def _find_draw(prior: Any) -> Callable[[int, int], Array]:
    """A function from a number of draws and a key to the draws, (n, …)."""
    if isinstance(prior, Distribution) or hasattr(prior, "sample"):

        def draw_distribution(n: int, key: int) -> Array:
            with kept_global_states():
                seed_global_states(key)
                return to_array(prior.sample(torch.Size([n])))

        return draw_distribution
    if not callable(prior):
        raise UsageError(
            "prior must be a torch distribution or a function that returns n draws, found "
            f"{type(prior).__name__}"
        )
    name = find_random_argument(prior)

    def call(key: int, *arguments: int) -> Array:
        named = {} if name is None else {name: make_random_argument(name, key)}
        seed_global_states(key)
        return to_array(prior(*arguments, **named))

    def draw_all(n: int, key: int) -> Array:
        with kept_global_states():
            return call(key, n)

    def draw_each(n: int, key: int) -> Array:
        with kept_global_states():
            rows = [call(key_for(key, "draw", i)) for i in range(n)]
        return np.stack(rows) if rows else np.empty((0, 0))

    return draw_each if required_arguments(prior) == 0 else draw_all


def _find_log_prob(prior: Any, trial: Array) -> Callable[[Tensor], Tensor] | None:
    """The prior's log density over vectors, if it has one."""
    function = getattr(prior, "log_prob", None)
    if not callable(function):
        return None

    def log_prob(y: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        each = function(y.to(dtype).reshape(-1, *trial.shape[1:]))
        return torch.as_tensor(each).double().reshape(len(y), -1).sum(dim=1)

    def in_single_precision(y: Tensor) -> Tensor:
        return log_prob(y, torch.float32)

    y = torch.from_numpy(trial)
    candidates: tuple[Callable[[Tensor], Tensor], ...] = (log_prob, in_single_precision)
    for candidate in candidates:  # some distributions take numbers of their own precision alone
        try:
            if candidate(y).shape == (len(y),):
                return candidate
        except Exception:  # then it has none that can be used
            continue
    return None


def _without_rounding(y: Tensor, constraints: Constraints) -> Tensor:
    """Move points (n, d) inside that rounding alone has put on a bound or off a surface."""
    outside = ~constraints.contains(y)
    if not bool(outside.any()):
        return y
    transform = UnconstrainingTransform(constraints)
    inside = transform.from_unconstrained(transform.to_unconstrained(y[outside])[0])
    near = torch.isclose(inside, y[outside], rtol=ROUNDING, atol=ROUNDING).all(dim=1)
    y = y.clone()
    y[outside] = torch.where(near[:, None], inside, y[outside])
    return y
