"""Adaptive tempered sequential Monte Carlo: from a reference distribution to a posterior.

Particles follow the path π_β ∝ reference^(1−β) · posterior^β from β = 0 to 1 (Neal 2001;
Del Moral, Doucet & Jasra 2006). Each β is the largest that keeps half of the effective
sample size. All states of the chains that follow a resampling are kept as particles
("waste-free", Dau & Chopin 2022), so that every evaluation of the density counts twice: as
a state and in the estimate of log Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import (
    SamplerCheckpoint,
    arrays_from_state,
    restore_position,
    state_from_arrays,
)
from amfvi.sampler.integrability import require_decay
from amfvi.sampler.particles import Particles
from amfvi.sampler.reference import ReferenceDistribution, zero_density_error
from amfvi.sampler.schedule import HIGH_DIM, build_kernels, choose_kernel
from amfvi.sampler.state import SamplerState
from amfvi.sampler.tempered_path import TemperedPath
from amfvi.statistics import effective_sample_size, resample

__all__ = ["TemperedSample", "temper"]

ESS_TARGET = 0.5
"""Share of the particles, by effective sample size, that a step of β must leave."""

MIN_BETA_STEP = 1e-12
"""Smallest step of β, as a share of what is left to 1."""

MAX_TEMPERATURES = 1_000
"""Values of β after which a run stops; hard posteriors need some tens."""

FIRST_DECAY_CHECK = 10
"""Values of β after which a run that has not ended is suspected of having no end."""

SAME_DENSITY_TOLERANCE = 1e-4
"""Relative difference of log densities up to which those of a saved run are the same."""

N_REEVALUATED = 16
"""Saved particles at which the posterior is evaluated again, to see whether it is the same."""


@dataclass(frozen=True, kw_only=True)
class TemperedSample:
    """What one run of the sampler returns.

    Attributes:
        y: draws in unconstrained space, chain after chain, (n, d).
        sample_weight: importance weights, 1 on average, (n,); None where all are equal.
        log_z, log_z_se: estimate of the log normalizing constant and its error, nats.
        betas: every β, from 0 to 1.
        history: some particles of every β before the last, (k, d). What was seen there and
            is not among the draws has been lost on the way.
        history_log_p: their log densities, (k,), nats.
        stopped_by: the limit that ended the run before β = 1, and where; else None.

    Examples:
        >>> sample = TemperedSample(
        ...     y=torch.zeros(1, 2),
        ...     sample_weight=None,
        ...     log_z=0.0,
        ...     log_z_se=0.1,
        ...     betas=(0.0, 1.0),
        ...     history=torch.zeros(1, 2),
        ...     history_log_p=torch.zeros(1),
        ... )
        >>> sample.stopped_by is None
        True
    """

    y: Tensor
    sample_weight: Tensor | None
    log_z: float
    log_z_se: float
    betas: tuple[float, ...]
    history: Tensor
    history_log_p: Tensor
    stopped_by: str | None = None


def temper(
    reference: ReferenceDistribution,
    density: UnconstrainedDensity,
    *,
    n_particles: int,
    n_draws: int,
    generator: torch.Generator,
    reporter: Reporter | None = None,
    checkpoint: SamplerCheckpoint | None = None,
    run_name: str = "run",
) -> TemperedSample:
    """Draw from a posterior and estimate its normalizing constant.

    A limit of the density's budget ends the run early, with what there is by then.

    Args:
        n_particles: at each β.
        n_draws: at β = 1.
        reporter: told β, log Z and the evaluations after each step.
        checkpoint: from which a run is continued, and to which it is saved after each
            step, as ``run_name``.

    Raises:
        NotIntegrableError: the density does not fall off.
        InputError: the density is −∞ at every draw of the reference, or broken.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.sampler.reference import find_reference
        >>> generator = torch.Generator().manual_seed(0)
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> reference = find_reference(density, generator)
        >>> run = temper(reference, density, n_particles=500, n_draws=500, generator=generator)
        >>> abs(run.log_z - 0.919) < 0.3  # ½ log 2π
        True
    """
    path = TemperedPath(reference=reference, density=density, use_gradients=density.differentiable)
    state = _load_state(path, checkpoint, run_name, generator)
    if state is None:
        state = SamplerState.at_reference(path.evaluate(reference.sample(n_particles, generator)))
    if bool((state.particles.log_p == -math.inf).all()):
        raise zero_density_error(density.log_density, n_particles)
    stopped_by = None
    try:
        while state.beta < 1:
            if len(state.betas) > MAX_TEMPERATURES:
                stopped_by = f"{MAX_TEMPERATURES} steps of tempering at β = {state.beta:.3g}"
                break
            _advance(path, state, n_particles, n_draws, generator)
            if _is_time_to_check_decay(state):
                require_decay(density, state.particles.y, state.particles.log_p)
            if checkpoint is not None:
                checkpoint.save(run_name, **arrays_from_state(state, density.budget, generator))
            if reporter is not None:
                reporter.sampler_progress(state.beta, state.log_z, density.budget.spent)
    except OutOfBudgetError as error:
        if state.beta < 1:  # else only the last check was not affordable
            stopped_by = f"{error} at β = {state.beta:.3g}"
    return _collect(state, stopped_by)


def _chain_length(dim: int) -> int:
    """States of a chain at each β, its start included."""
    return 5 if dim <= HIGH_DIM else 10


def _load_state(
    path: TemperedPath,
    checkpoint: SamplerCheckpoint | None,
    run_name: str,
    generator: torch.Generator,
) -> SamplerState | None:
    """The saved state of a run, unless there is none or its reference was another one."""
    arrays = checkpoint.load(run_name) if checkpoint is not None else None
    if checkpoint is None or arrays is None:
        return None
    state = state_from_arrays(arrays)
    particles, tolerance = state.particles, SAME_DENSITY_TOLERANCE
    log_q = path.reevaluate_reference(particles).log_q
    if not torch.allclose(log_q, particles.log_q, rtol=tolerance, atol=tolerance):
        # Its particles and its log Z belong to another path.
        checkpoint.warn(run_name, "of another reference distribution")
        return None
    rows = slice(None, None, max(1, len(particles.y) // N_REEVALUATED))
    log_p = path.density.log_prob(particles.y[rows])
    if not torch.allclose(log_p, particles.log_p[rows], rtol=tolerance, atol=tolerance):
        # A file that the density reads has changed where no test point shows it.
        checkpoint.warn(run_name, "of another density")
        return None
    restore_position(arrays, path.density.budget, generator)
    return state


def _advance(
    path: TemperedPath,
    state: SamplerState,
    n_particles: int,
    n_draws: int,
    generator: torch.Generator,
) -> None:
    """Reweight to the next β, resample, and move; an exception leaves ``state`` as it was."""
    particles = state.particles
    beta = _next_beta(particles, state.beta)
    log_w = _log_weights(particles, state.beta, beta)
    weights = (log_w - log_w.max()).exp()
    final = beta == 1.0
    n_wanted = n_draws if final else n_particles
    n_chains = max(2, n_particles // _chain_length(particles.y.shape[1]))
    length = math.ceil(n_wanted / n_chains)
    rows = resample(weights, n_chains, generator)
    kernels = build_kernels(
        path, particles, weights, beta, state.steps, state.acceptance, generator
    )
    visited, steps = [particles.at(rows)], {}
    for number in range(length - 1):
        name, kernel = choose_kernel(kernels, number, final=final)
        visited.append(kernel(path, visited[-1], beta, generator))
        steps[name] = kernel.step
    moved = Particles.concatenate(visited)
    chain_major = torch.arange(len(moved)).view(length, n_chains).T.reshape(-1)
    state.remember()
    state.log_z += float(log_w.logsumexp(dim=0)) - math.log(len(particles))
    state.log_z_variance += _relative_variance(weights, state.n_chains)
    state.particles, state.n_chains, state.beta = moved.at(chain_major), n_chains, beta
    state.betas.append(beta)
    state.steps |= steps
    state.acceptance |= {name: kernel.acceptance for name, kernel in kernels.items()}


def _is_time_to_check_decay(state: SamplerState) -> bool:
    """Whether tempering has ended, or goes on and on."""
    if state.beta == 1:
        return True
    n_checks, remainder = divmod(len(state.betas) - 1, FIRST_DECAY_CHECK)
    return remainder == 0 and n_checks.bit_count() == 1  # after 10, 20, 40, 80, …


def _log_weights(particles: Particles, beta: float, next_beta: float) -> Tensor:
    """log π_next_beta / π_beta at the particles, (n,)."""
    log_w = (next_beta - beta) * (particles.log_p - particles.log_q)
    return torch.nan_to_num(log_w, nan=-math.inf)


def _next_beta(particles: Particles, beta: float) -> float:
    """The largest β up to 1 that leaves the effective sample size of ``ESS_TARGET``."""

    def leaves_enough(next_beta: float) -> bool:
        log_w = _log_weights(particles, beta, next_beta)
        weights = (log_w - log_w.max()).exp()
        n_positive = int((particles.log_p > -math.inf).sum())  # the rest dies at any β
        return effective_sample_size(weights) >= ESS_TARGET * n_positive

    if leaves_enough(1.0):
        return 1.0
    low, high = beta, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if leaves_enough(middle) else (low, middle)
        if high - low < 1e-3 * (high - beta):
            break
    return max(low, beta + MIN_BETA_STEP * (1 - beta)) if low > beta else high


def _relative_variance(weights: Tensor, n_chains: int) -> float:
    """Variance of the mean weight over its square, from the nearly independent chains."""
    means = weights.view(n_chains, -1).mean(dim=1)
    if n_chains < 2:
        return math.nan
    return float(means.var() / means.mean().square() / n_chains)


def _collect(state: SamplerState, stopped_by: str | None) -> TemperedSample:
    """The draws of a run; if it did not reach β = 1, weighted as far as their ESS allows."""
    particles, weights = state.particles, None
    log_z, variance = state.log_z, state.log_z_variance
    if state.beta < 1:
        state.remember()
        log_w = _log_weights(particles, state.beta, 1.0)
        log_z += float(log_w.logsumexp(dim=0)) - math.log(len(particles))
        variance += _relative_variance((log_w - log_w.max()).exp(), state.n_chains)
        log_w = _log_weights(particles, state.beta, _next_beta(particles, state.beta))
        weights = (log_w - log_w.max()).exp()
        weights = weights / weights.mean()
    history, history_log_p = state.joined_history()
    return TemperedSample(
        y=particles.y,
        sample_weight=weights,
        log_z=log_z,
        log_z_se=math.sqrt(variance),
        betas=tuple(state.betas),
        history=history,
        history_log_p=history_log_p,
        stopped_by=stopped_by,
    )
