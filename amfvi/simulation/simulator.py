"""A user's simulator and a prior: pairs of parameters and the data simulated from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.constraints.constraints import Constraints, ConstraintsLike
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.pools import check_pool
from amfvi.reporting import Reporter
from amfvi.simulation.calling import TRIAL_POINTS, Calling, find_calling
from amfvi.simulation.chunks import Simulated, make_chunks
from amfvi.simulation.pools import map_chunks
from amfvi.simulation.prior import Prior, parse_names
from amfvi.simulation.saved import SavedSimulations, saved_draws
from amfvi.simulation.simulations import Simulations
from amfvi.simulation.values import Array

__all__ = ["Simulator"]

MAX_FAILED_SHARE = 0.5
"""Share of failed simulations above which nothing is made of the others."""

MESSAGES_KEPT = 5
"""Most different messages of failed simulations that are kept."""

HOW_TO_SEED = (
    "take a further argument rng (a numpy Generator), generator (of torch) or seed (an int), "
    "and draw all random numbers from it"
)
"""What to do about a function whose random numbers no seed reaches."""


class Simulator:
    """Data c simulated from parameters y of a prior: y ~ prior, c = fn(y).

    Args:
        fn: from one point (d,) to an array of a fixed shape, or from a batch (n, d) to n of
            them; torch or numpy. The way to call it is found by calling it. An argument
            called ``rng``, ``generator`` or ``seed`` is handed a numpy Generator, a torch
            Generator or an int below 2³¹; without one, the global random states of torch,
            numpy and Python are seeded while it is called, and restored.
        prior: a torch or Pyro distribution, a fitted ``amfvi.Posterior``, or a function of n
            that returns n draws; see :class:`amfvi.simulation.prior.Prior`.
        names: of the parameters; those of the prior, or ``y1, y2, …``.
        given_names: of the data, flattened; ``c1, c2, …`` if not given.
        constraints: on the parameters, see :meth:`amfvi.Constraints.parse`; those of the
            prior if not given.
        pool: a number of processes, or anything with ``map``: a ``multiprocessing.Pool``
            or an executor of ``concurrent.futures``. The pairs do not depend on it.

    Attributes:
        prior: an :class:`amfvi.simulation.prior.Prior`, with its ``log_prob`` if it has one.

    Raises:
        UsageError: arguments that do not fit together.
        InputError: the prior cannot be sampled.

    Examples:
        >>> from torch.distributions import Normal
        >>> def simulate(y, rng):
        ...     return y + rng.normal(size=y.shape)
        >>> simulator = Simulator(simulate, prior=Normal(torch.zeros(2), 1.0))
        >>> simulator.simulate(1000, seed=0)
        <Simulations: 1000 of 2 data and 2 parameters>
        >>> simulator.calling_convention
        'numpy, in batches, with rng'
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        prior: Any,
        *,
        names: Sequence[str] | None = None,
        given_names: Sequence[str] | None = None,
        constraints: ConstraintsLike = None,
        pool: Any = None,
    ) -> None:
        if not callable(fn):
            raise UsageError(f"a simulator is a function, found {type(fn).__name__}")
        check_pool(pool)
        self.fn = fn
        self.pool = pool
        self.prior = Prior(prior, names=names, constraints=constraints)
        self._given_names = given_names

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.prior.dim

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.prior.names

    @property
    def constraints(self) -> Constraints:
        """What values the parameters may take."""
        return self.prior.constraints

    @cached_property
    def calling(self) -> Calling:
        """How the simulator is called, which is found at the first use.

        Raises:
            InputError: it cannot be called.
        """
        return find_calling(self.fn, self.prior.sample(TRIAL_POINTS, seed=0))

    @property
    def calling_convention(self) -> str:
        """How the simulator is called, in words."""
        return str(self.calling)

    @cached_property
    def given_names(self) -> tuple[str, ...]:
        """Names of the data.

        Raises:
            InputError: the simulator cannot be called.
            UsageError: another number of names was given, or one that a parameter has.
        """
        given = parse_names(self._given_names, self.calling.size, "c", "given_names")
        both = set(given) & set(self.names)
        if both:
            raise UsageError(f"both a parameter and data are called {min(both)!r}; names differ")
        return given

    def simulate(
        self,
        n: int,
        *,
        seed: int = 0,
        reporter: Reporter | None = None,
        checkpoint: str | Path | None = None,
    ) -> Simulations:
        """Draw n times from the prior, and simulate data from each draw.

        Simulations that raise, or give NaN or infinity, are left out and counted. The same
        n and seed give the same pairs.

        Args:
            checkpoint: a directory where simulations are saved as they are made. Those found
                there, of the same seed, n and prior, are not made again. They stay there.

        Raises:
            InputError: more than half of the simulations fail, one has another shape, all
                have the same data, or the pool fails.
            UsageError: n is no positive whole number, or names do not fit.

        Warns:
            AmfviWarning: some simulations fail; random numbers that no seed reaches.
        """
        if isinstance(n, bool) or not isinstance(n, int | Integral) or n < 1:
            raise UsageError(f"n must be a positive whole number of simulations, found {n!r}")
        n, reporter = int(n), reporter or Reporter()
        given_names = self.given_names
        self._warn_of_other_randomness()
        y = self.prior.sample(n, seed)
        if checkpoint is not None and not self.prior.reproducible:
            y = saved_draws(checkpoint, y, seed)
        reporter.log(f"{n} simulations: {self.calling_convention}")
        given = np.empty((n, self.calling.size))
        messages: list[str] = []
        done = 0
        with closing(self._simulate_chunks(y, seed, checkpoint, reporter)) as parts:
            for part in parts:
                given[done : done + len(part.given)] = part.given
                done += len(part.given)
                messages += [message for message in part.messages.tolist() if message]
                _require_success(len(messages), n, messages)
                reporter.simulation_progress(done, n)
        _warn_of_failures(messages, n)
        return self._pairs(y, given, given_names, messages)

    def _simulate_chunks(
        self, y: Tensor, seed: int, checkpoint: str | Path | None, reporter: Reporter
    ) -> Generator[Simulated, None, None]:
        """Yield what chunks give, in order, of which some may have been saved."""
        chunks = make_chunks(y, seed, many=self.calling.many)
        saved = None if checkpoint is None else SavedSimulations(checkpoint, y, seed, self.calling)
        found = {} if saved is None else saved.load(chunks)
        if found:
            rows = sum(len(part.given) for part in found.values())
            reporter.log(f"{rows} of {len(y)} simulations were found in {checkpoint}")
        missing = [chunk for i, chunk in enumerate(chunks) if i not in found]
        with closing(map_chunks(self.calling, missing, self.pool)) as results:
            for i, chunk in enumerate(chunks):
                if i in found:
                    yield found[i]
                    continue
                part = next(results)
                if saved is not None:
                    saved.save(chunk, part)
                yield part

    def _pairs(
        self, y: Tensor, given: Array, given_names: tuple[str, ...], messages: list[str]
    ) -> Simulations:
        """The pairs of the simulations that did not fail.

        Raises:
            InputError: all have the same data.
        """
        good = np.isfinite(given).all(axis=1)
        given = given[good]
        if len(given) > 1 and bool((given == given[0]).all()):
            raise InputError(
                f"all {len(given)} simulations give the same data, which tell nothing of the "
                "parameters"
            )
        return Simulations(
            given=torch.from_numpy(given),
            y=y[torch.from_numpy(good)],
            names=self.names,
            given_names=given_names,
            constraints=self.constraints,
            prior=self.prior,
            n_failed=len(messages),
            failures=tuple(dict.fromkeys(messages))[:MESSAGES_KEPT],
        )

    def _warn_of_other_randomness(self) -> None:
        """Warn where the same seed gives other numbers."""
        for what, reproducible in (
            ("the prior", self.prior.reproducible),
            ("the simulator", self.calling.reproducible),
        ):
            if not reproducible:
                shared = "; processes may even draw the same ones" if self.pool is not None else ""
                warnings.warn(
                    f"{what} draws random numbers that no seed reaches, so that these pairs "
                    f"cannot be made again{shared}; {HOW_TO_SEED}",
                    AmfviWarning,
                    stacklevel=3,
                )

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"Simulator({name}, dim={self.dim})"


def _require_success(failed: int, n: int, messages: list[str]) -> None:
    """Reject a simulator that fails too often, as soon as that is known.

    Raises:
        InputError: it does.
    """
    if failed > MAX_FAILED_SHARE * n:
        raise InputError(
            f"more than half of {n} simulations fail, the first with: {messages[0]}; mend the "
            "simulator, or give a prior of parameters for which it works"
        )


def _warn_of_failures(messages: list[str], n: int) -> None:
    """Warn of simulations that failed, and of what that means."""
    if messages:
        warnings.warn(
            f"{len(messages)} of {n} simulations failed ({len(messages) / n:.1%}; the first with: "
            f"{messages[0]}) and are left out; a fit is to p(y | c, the simulation succeeds)",
            AmfviWarning,
            stacklevel=3,
        )
