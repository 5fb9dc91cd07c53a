"""One inference in progress: a density within limits, and the steps taken with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.device import resolve_device
from amfvi.diagnostics.comparison import WeightedDraws, importance_sample
from amfvi.diagnostics.coverage import CoverageReport
from amfvi.diagnostics.departure import N_EVALUATIONS, measure_departure
from amfvi.diagnostics.outskirts import measure_outside
from amfvi.diagnostics.thresholds import GOOD_EFFICIENCY
from amfvi.diagnostics.undetected import measure_tail_mass, search_undetected_modes
from amfvi.errors import FitError
from amfvi.inference.attempt import Assessment, Attempt
from amfvi.inference.clock import Clock
from amfvi.inference.limits import (
    ARRIVAL_RESERVE,
    DEPARTURE_SHARE,
    EVALUATIONS,
    MAX_WEIGHTED_DRAWS,
    MIN_WEIGHTED_DRAWS,
    RESERVED_EVALUATIONS,
    RESERVED_TIME,
)
from amfvi.inference.messages import describe_departure, describe_sample, describe_weights
from amfvi.inference.sample_split import split_sample
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.sampler.arrival import arrive
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.runs import PosteriorSample, sample_posterior
from amfvi.statistics import resample
from amfvi.two_stage.fit import FitSummary, fit_split
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.split import Split

__all__ = ["Session"]

A = TypeVar("A", bound=Assessment)


class Session:
    """The state that all steps of one inference share, and the steps.

    Attributes:
        log_density, options, reporter, checkpoint: as given to ``infer``.
        clock: the time spent.
        budget: the evaluations spent.
        density: the log density over unconstrained space, within the budget.
        compresses_tails: whether heavy tails are compressed before a fit.
        seconds: wall-clock time per phase, summed over all attempts.

    Examples:
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> session = Session(normal, FitOptions(experts="gmm", n_draws=200), Reporter(), None)
        >>> attempt = session.fit(session.sample("sampler", "sampled"), 0)
        >>> attempt.efficiency > 0.5, sorted(session.seconds)
        (True, ['diagnostics', 'sampling', 'stage_one', 'stage_two'])
    """

    def __init__(
        self,
        log_density: LogDensity,
        options: FitOptions,
        reporter: Reporter,
        checkpoint: SamplerCheckpoint | None,
    ) -> None:
        self.log_density = log_density
        self.options = options
        self.reporter = reporter
        self.checkpoint = checkpoint
        self.clock = Clock(options.timeout)
        self.seconds: dict[str, float] = {}
        constant, per_parameter = EVALUATIONS
        self.compresses_tails = False
        self.budget = Budget(
            options.max_evaluations or constant + per_parameter * log_density.dim,
            options.timeout,
            reserved_evaluations=RESERVED_EVALUATIONS,
            reserved_time=RESERVED_TIME,
        )
        self.density = UnconstrainedDensity(
            log_density, budget=self.budget, device=resolve_device(options.device)
        )

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._add_seconds(phase, time.monotonic() - started)

    def sample(
        self,
        stream_name: str,
        verb: str,
        *,
        density: UnconstrainedDensity | None = None,
        reference: ReferenceDistribution | None = None,
        particle_multiplier: int = 1,
    ) -> PosteriorSample:
        with self.timed("sampling"):
            sample = sample_posterior(
                density or self.density,
                self.n_draws,
                seed=self.options.seed,
                reference=reference,
                particle_multiplier=particle_multiplier,
                stream_name=stream_name,
                reporter=self.reporter,
                checkpoint=self.checkpoint,
            )
        self.reporter.log(describe_sample(verb, sample, self.budget.spent, self.clock.elapsed))
        return sample

    def move_on(
        self, sample: PosteriorSample, attempt: Attempt, stream_name: str
    ) -> PosteriorSample | None:
        """Move draws on until they no longer change, then sample from where they are.

        From the weighted draws of a mixture where these are many, else from those of the
        sampler; in the unconstrained space of the mixture, whose tails may be compressed. None
        if too few evaluations are left for a single round.
        """
        x, density = sample.x, self.density.with_transform(attempt.mixture.transform)
        if attempt.weighted.reliable and attempt.efficiency >= GOOD_EFFICIENCY:
            generator = generator_for(self.options.seed, stream_name, "resample")
            x = attempt.weighted.x[
                resample(attempt.weighted.weights, len(attempt.weighted.x), generator)
            ]
        y = density.transform.to_unconstrained(x)[0]
        with self.timed("sampling"):
            arrival = arrive(
                density,
                y[y.isfinite().all(dim=1)],
                seed=self.options.seed,
                stream_name=stream_name,
                reserve=ARRIVAL_RESERVE,
                reporter=self.reporter,
            )
        if arrival.reference is None:
            return None
        return self.sample(stream_name, "moved on:", density=density, reference=arrival.reference)

    def add_draws(self, attempt: A, n: int, name: str) -> A:
        """Compare a mixture with the density at ``n`` draws in all, if that is more than before.

        Raises:
            OutOfBudgetError: too few evaluations are left.
        """
        before = attempt.weighted
        if n <= len(before.x):
            return attempt
        generator = generator_for(self.options.seed, name, "weighted")
        mixture, n_more, bound = attempt.mixture, n - len(before.x), before.khat_bound
        with self.timed("diagnostics"):
            more = importance_sample(mixture, self.density, n_more, generator, khat_bound=bound)
            attempt = replace(attempt, weighted=before.joined(more))
        self.reporter.log(describe_weights(attempt.weighted))
        return attempt

    @property
    def n_draws(self) -> int:
        """Draws of the posterior for one fit, those for testing included."""
        return round(self.options.draws_wanted / (1 - self.options.test_share))

    def challenge(self, attempt: A) -> A:
        """Start chains from the draws of a mixture, to see whether they leave it."""
        mixture, weighted = attempt.mixture, attempt.weighted
        generator = generator_for(self.options.seed, "departure")
        n = max(N_EVALUATIONS, round(DEPARTURE_SHARE * self.budget.spent))
        with self.timed("diagnostics"):
            try:
                found = measure_departure(mixture, self.density, weighted, generator, n)
                outside = measure_outside(mixture, self.density, weighted, generator)
                own_spread = attempt.measure_spread(self.density)
            except OutOfBudgetError:
                return attempt
        departure = replace(found, outside=outside)
        self.reporter.log(describe_departure(departure))
        return replace(attempt, departure=departure, own_spread=own_spread)

    def fit(self, sample: PosteriorSample, number: int) -> Attempt:
        """Fit to draws of the sampler and compare with the density.

        Raises:
            FitError: an expert or the weights could not be fitted, heavy tails compressed
                or not.
        """
        split = self._split(sample)
        try:
            mixture, summary = self._fit_experts(split)
        except FitError as error:
            self.compresses_tails = True
            compressed = self._split(sample)
            if compressed.transform == split.transform:  # the tails are not to blame
                raise
            self.reporter.log(f"{error}; heavy tails are compressed, and fitted again")
            mixture, summary = self._fit_experts(compressed)
        weighted = self.compare(mixture, number)
        return Attempt(mixture=mixture, summary=summary, weighted=weighted)

    def compare(self, mixture: Mixture, number: int) -> WeightedDraws:
        """Compare a mixture with the density at draws of its own."""
        generator = generator_for(self.options.seed, "compare", number)
        with self.timed("diagnostics"):
            weighted = importance_sample(mixture, self.density, self._affordable(), generator)
        self.reporter.log(describe_weights(weighted))
        return weighted

    def _fit_experts(self, split: Split) -> tuple[Mixture, FitSummary]:
        """Both stages, in the time that is left."""
        # No pruning: tails that few draws tell of matter to importance weights.
        mixture, summary = fit_split(
            split, self.options, timeout=self.clock.left(), reporter=self.reporter, prunes=False
        )
        for phase, seconds in summary.seconds.items():
            self._add_seconds(phase, seconds)
        return mixture, summary

    def _split(self, sample: PosteriorSample) -> Split:
        compresses = self.compresses_tails
        return split_sample(sample, self.log_density, self.options, compress_tails=compresses)

    def search(
        self, attempt: Assessment, samples: Sequence[PosteriorSample]
    ) -> CoverageReport | None:
        """Search for what the mixture lacks, from all that these samples have seen.

        Modes known to be lacking are probed again. None if too few evaluations are left.
        """
        nothing = torch.empty(0, self.density.dim, dtype=torch.float64)
        history = (
            torch.cat([nothing, *(sample.history for sample in samples)]),
            torch.cat([nothing[:, 0], *(sample.history_log_p for sample in samples)]),
        )
        with self.timed("diagnostics"):
            try:
                return search_undetected_modes(
                    attempt.mixture,
                    self.density,
                    attempt.weighted,
                    history,
                    generator_for(self.options.seed, "search", "mass"),
                    attempt.undetected,
                )
            except OutOfBudgetError:
                return None

    def tail_mass(self, mixture: Mixture, weighted: WeightedDraws) -> float | None:
        generator = generator_for(self.options.seed, "search", "tails")
        log_z = weighted.importance.log_z.mean
        try:
            return measure_tail_mass(mixture, self.density, log_z, generator)
        except OutOfBudgetError:
            return None

    def _affordable(self) -> int:
        """Draws to compare a mixture at: half of what is left, a few hundred whatever the time."""
        n, left = MAX_WEIGHTED_DRAWS, self.clock.left()
        if left is not None:
            in_time = int(left / 2 / max(self.density.seconds_per_point, 1e-9))
            n = min(n, max(MIN_WEIGHTED_DRAWS, in_time))
        if self.budget.left is not None:
            n = min(n, self.budget.left // 2)
        return max(n, 1)

    def _add_seconds(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
