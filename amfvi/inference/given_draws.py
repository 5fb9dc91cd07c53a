"""From given draws and the log density they are from to a mixture with a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.bridge import bridge_log_z
from amfvi.diagnostics.report import GIVEN_DRAWS
from amfvi.draws.draws import Draws
from amfvi.draws.mixing import assess_mixing
from amfvi.errors import FitError, InputError, UsageError
from amfvi.inference.attempt import Attempt
from amfvi.inference.infer import Inference, judge, require_no_noise
from amfvi.inference.limits import MAX_WEIGHTED_DRAWS
from amfvi.inference.messages import announce
from amfvi.inference.refinement import Samples, refine
from amfvi.inference.session import Session
from amfvi.mixture import Mixture
from amfvi.reporting import Reporter
from amfvi.sampler.resolution import evaluate_constrained
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate
from amfvi.two_stage.options import FitOptions

__all__ = ["HeldOutDraws", "infer_from_draws"]

MAX_HELD_OUT = 4_000
"""Held-out draws at which the density is evaluated at most."""


@dataclass(frozen=True, kw_only=True)
class HeldOutDraws:
    """Given draws that no mixture is fitted to, with the density there.

    Attributes:
        x: in the user's parameters, (n, d).
        log_p: log p̃ there, nats, (n,).
        n_effective: how many independent draws they are worth.

    Examples:
        >>> held_out = HeldOutDraws(x=torch.zeros(9, 1), log_p=torch.zeros(9), n_effective=4.0)
        >>> held_out.n_effective
        4.0
    """

    x: Tensor
    log_p: Tensor
    n_effective: float

    def log_z(self, attempt: Attempt) -> Estimate:
        """The evidence by bridge sampling with the draws of a mixture, nats."""
        log_ratio = self.log_p - attempt.mixture.log_prob(self.x)
        return bridge_log_z(log_ratio, attempt.weighted.log_weights, self.n_effective)

    def eubo(self, mixture: Mixture) -> Estimate:
        """E_p[log p̃ − log q], nats, which is log Z at least."""
        estimate = Estimate.from_terms(self.log_p - mixture.log_prob(self.x))
        return Estimate(estimate.mean, estimate.se * math.sqrt(len(self.x) / self.n_effective))


def infer_from_draws(
    draws: Draws, log_density: LogDensity, options: FitOptions, *, reporter: Reporter | None = None
) -> Inference:
    """Fit a mixture to given draws and judge it by the log density; nothing is sampled.

    The evidence comes from draws of the mixture, and beside it by bridge sampling from them
    and the draws held out. A mixture whose weights are right but whose plain draws are not is
    fitted again to its own weighted draws. Chains count for the independent draws that they
    are worth.

    Raises:
        UsageError: no draws are to be held out.
        InputError: a broken density, or one that is zero at a draw.
        FitError: an expert or the weights could not be fitted, or the limits end before there
            is anything to judge by.

    Examples:
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> inference = infer_from_draws(Draws.from_array(x), normal, FitOptions(experts="gmm"))
        >>> diagnostics = inference.diagnostics
        >>> str(diagnostics.verdict), abs(diagnostics.log_z_sampler - 0.919) < 0.01
        ('trust', True)
    """
    if options.test_share == 0:
        raise UsageError("test_fraction= must be above 0 where the log density of draws is given")
    session = Session(log_density, options, reporter or Reporter(), None)
    session.budget.release()
    announce(session.reporter, log_density)
    given = _Given(draws, session)
    try:
        attempt = session.fit(given.sample, 0)
        held_out = given.hold_out(attempt)
    except OutOfBudgetError as error:
        raise FitError(
            f"{error} is too little to compare a fit to draws with their log density, about "
            f"{MAX_WEIGHTED_DRAWS + MAX_HELD_OUT} evaluations are needed; or leave the density out"
        ) from None
    samples = Samples(given.with_evidence(held_out, attempt), may_sample=False)
    require_no_noise(session, attempt)
    report = session.search(attempt, samples.broad)
    attempt = attempt if report is None else replace(attempt, coverage=report)
    attempt = refine(session, samples, attempt)
    return judge(session, samples, attempt, held_out.eubo(attempt.mixture))


@dataclass(frozen=True)
class _Given:
    """Given draws in one inference."""

    draws: Draws
    session: Session

    @cached_property
    def sample(self) -> PosteriorSample:
        """The draws in the place of a sampler's, before anything else is known of them."""
        dim = self.session.density.dim
        return PosteriorSample(
            x=self.draws.values,
            sample_weight=self.draws.sample_weight,
            run=self.draws.chain,
            log_z=Estimate(math.nan, math.nan),
            log_z_of_runs=(),
            max_mean_discrepancy_in_sd=math.nan,
            reference=GIVEN_DRAWS,
            n_temperatures=0,
            history=torch.empty(0, dim, dtype=torch.float64),
            history_log_p=torch.empty(0, dtype=torch.float64),
            stopped_by=None,
            is_given=True,
        )

    def hold_out(self, attempt: Attempt) -> HeldOutDraws:
        """Evaluate the density at the draws that a first fit has not seen.

        Raises:
            InputError: it is zero at one of them.
        """
        x = attempt.summary.split.equally_weighted_reference
        x = x[:: math.ceil(len(x) / MAX_HELD_OUT)]
        log_p = evaluate_constrained(self.session.density, x)
        impossible = log_p == -math.inf
        if bool(impossible.any()):
            row = x[int(impossible.nonzero()[0])]
            raise InputError(
                f"the log density is -inf at {int(impossible.sum())} of {len(x)} given draws "
                f"({self.session.density.describe(row)}); is it of the same parameters, in the "
                "same order?"
            )
        return HeldOutDraws(x=x, log_p=log_p, n_effective=max(self._independent_share * len(x), 2))

    def with_evidence(self, held_out: HeldOutDraws, attempt: Attempt) -> PosteriorSample:
        """The sample with its evidence, and points from which modes are searched."""
        y, log_det = self.session.density.transform.to_unconstrained(held_out.x)
        return replace(
            self.sample,
            log_z=held_out.log_z(attempt),
            history=y,
            history_log_p=held_out.log_p - log_det,
        )

    @property
    def _independent_share(self) -> float:
        """Independent draws per given one, of the parameter that mixes worst."""
        mixing = assess_mixing(self.draws.values.numpy(), self.draws.chain.numpy())
        return 1.0 if mixing is None else min(1.0, float(mixing.ess.min()) / mixing.n)
