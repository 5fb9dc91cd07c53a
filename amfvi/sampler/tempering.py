"""Adaptive tempered sequential Monte Carlo: from a broad start to a posterior.

Particles go from the start to the posterior through π_β ∝ start^(1−β) posterior^β
(Neal 2001; Del Moral, Doucet & Jasra 2006). Each β is the largest that keeps half the
effective sample size. All states along the chains that follow a resampling are kept as
particles ("waste-free", Dau & Chopin 2022), so that every call of the density counts
twice: as a state and in the estimate of log Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.log_density import OutOfBudgetError, UnconstrainedDensity
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.kernels import HIGH_DIM, moves_for, whose_turn
from amfvi.sampler.population import Bridge, Particles
from amfvi.sampler.start import Start, nowhere
from amfvi.weighting import effective_sample_size

__all__ = ["Sample", "SamplerProgress", "chain_length", "temper"]

SURVIVORS = 0.5  # effective share of the particles that a step of β must leave
REMEMBERED = 2_000  # particles of each temperature

SamplerProgress = Callable[[float, float, int], None]
"""Told β, the estimate of log Z so far, and the calls spent."""


@dataclass(frozen=True)
class Sample:
    """What a run of the sampler returns.

    Attributes:
        y: draws in unconstrained space, chain after chain, (n, d).
        log_p: their log densities there, (n,).
        weight: importance weights, 1 on average, (n,); None where all are equal.
        log_z, log_z_se: estimate of the normalising constant's logarithm, nats.
        betas: the temperatures, from 0 to 1.
        acceptance: of each kind of move at the last temperature.
        trail: some particles of every temperature before the last, (k, d). What was seen
            there and is not among the draws has been lost on the way.
        trail_log_p: their log densities, (k,).
        stopped_by: what ended it before β = 1, None if nothing did.
    """

    y: Tensor
    log_p: Tensor
    weight: Tensor | None
    log_z: float
    log_z_se: float
    betas: tuple[float, ...]
    acceptance: dict[str, float]
    trail: Tensor
    trail_log_p: Tensor
    stopped_by: str | None = None


@dataclass
class _State:
    """All that changes from one temperature to the next."""

    particles: Particles
    chains: int
    beta: float = 0.0
    log_z: float = 0.0
    variance: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.0])
    steps: dict[str, float] = field(default_factory=dict)
    acceptance: dict[str, float] = field(default_factory=dict)
    trail: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def remember(self) -> None:
        """Keep some of the particles, evenly over them."""
        now = self.particles
        rows = torch.arange(0, len(now), math.ceil(len(now) / REMEMBERED))
        self.trail.append((now.y[rows], now.log_p[rows]))

    def remembered(self) -> tuple[Tensor, Tensor]:
        y, log_p = zip(*self.trail, strict=True)
        return torch.cat(y), torch.cat(log_p)


def temper(
    start: Start,
    density: UnconstrainedDensity,
    *,
    particles: int,
    draws: int,
    generator: torch.Generator,
    progress: SamplerProgress | None = None,
    checkpoint: SamplerCheckpoint | None = None,
    name: str = "run",
) -> Sample:
    """Draws of the posterior and its normalising constant.

    Args:
        particles: at each temperature.
        draws: at the last.
        checkpoint: where to go on from, and to save to after each temperature, as ``name``.

    Raises:
        InputError: the density is −∞ at every draw of the start, or broken.
    """
    bridge = Bridge(start, density, density.differentiable)
    saved = checkpoint.load(name) if checkpoint is not None else None
    if saved is not None:
        state = _restored(saved, density, generator)
    else:
        state = _State(bridge.evaluated(start.sample(particles, generator)), particles)
    if bool((state.particles.log_p == -math.inf).all()):
        raise nowhere(density.density, particles)
    stopped_by = None
    try:
        while state.beta < 1:
            _next_temperature(bridge, state, particles, draws, generator)
            if checkpoint is not None:
                checkpoint.save(name, **_to_save(state, density, generator))
            if progress is not None:
                progress(state.beta, state.log_z, density.budget.spent)
    except OutOfBudgetError as error:
        stopped_by = f"{error} at temperature {state.beta:.3g}"
    return _sample(state, stopped_by)


def chain_length(dim: int) -> int:
    """States of a chain at each temperature, its start included."""
    return 5 if dim <= HIGH_DIM else 10


def _next_temperature(
    bridge: Bridge, state: _State, particles: int, draws: int, generator: torch.Generator
) -> None:
    """Reweight to the next β, resample, and move; ``state`` changes only if all went well."""
    now = state.particles
    beta = _next_beta(now, state.beta)
    log_w = _log_ratio(now, state.beta, beta)
    weight = (log_w - log_w.max()).exp()
    final = beta == 1.0
    wanted = draws if final else particles
    chains = max(2, particles // chain_length(now.y.shape[1]))
    length = math.ceil(wanted / chains)
    rows = _systematic(weight, chains, generator)
    moves = moves_for(bridge, now, weight, beta, state.steps, state.acceptance, generator)
    visited = [now.at(rows)]
    for number in range(length - 1):
        name, move = whose_turn(moves, number, final=final)
        visited.append(move(bridge, visited[-1], beta, generator))
        state.steps[name] = move.step
    moved = Particles.joined(visited)
    chain_major = torch.arange(len(moved)).view(length, chains).T.reshape(-1)
    state.remember()
    state.log_z += float(log_w.logsumexp(dim=0)) - math.log(len(now))
    state.variance += _relative_variance(weight, state.chains)
    state.particles, state.chains, state.beta = moved.at(chain_major), chains, beta
    state.betas.append(beta)
    state.acceptance |= {name: move.acceptance for name, move in moves.items()}


def _log_ratio(now: Particles, beta: float, following: float) -> Tensor:
    """log π_following / π_beta, (n,)."""
    log_w = (following - beta) * (now.log_p - now.log_q)
    return torch.nan_to_num(log_w, nan=-math.inf)


def _next_beta(now: Particles, beta: float) -> float:
    """The largest β up to 1 that leaves the wanted share of effective particles."""

    def survives(following: float) -> bool:
        log_w = _log_ratio(now, beta, following)
        weight = (log_w - log_w.max()).exp()
        alive = int((now.log_p > -math.inf).sum())  # the rest dies at any β
        return effective_sample_size(weight) >= SURVIVORS * alive

    if survives(1.0):
        return 1.0
    low, high = beta, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if survives(middle) else (low, middle)
        if high - low < 1e-3 * (high - beta):
            break
    return max(low, beta + 1e-12 * (1 - beta)) if low > beta else high


def _systematic(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """``n`` rows by systematic resampling, in order."""
    places = (
        torch.arange(n, dtype=torch.float64) + torch.rand(1, generator=generator).double()
    ) / n
    cumulative = weight.cumsum(dim=0) / weight.sum()
    return torch.searchsorted(cumulative, places).clamp(max=len(weight) - 1)


def _relative_variance(weight: Tensor, chains: int) -> float:
    """Of the mean weight, from the means of chains, which are nearly independent."""
    means = weight.view(chains, -1).mean(dim=1)
    if chains < 2:
        return math.nan
    return float(means.var() / means.mean().square() / chains)


def _to_save(
    state: _State, density: UnconstrainedDensity, generator: torch.Generator
) -> dict[str, Any]:
    """A state as arrays, with the calls spent and the generator as they are now."""
    arrays: dict[str, Any] = {
        f"particles.{key}": value.numpy() for key, value in vars(state.particles).items()
    }
    for table in ("steps", "acceptance"):
        held = getattr(state, table)
        arrays[f"{table}.names"] = np.array(list(held), dtype=np.str_)
        arrays[f"{table}.values"] = np.array(list(held.values()), dtype=np.float64)
    arrays["trail.y"], arrays["trail.log_p"] = (part.numpy() for part in state.remembered())
    scalars = {key: getattr(state, key) for key in ("chains", "beta", "log_z", "variance")}
    return {
        **arrays,
        **scalars,
        "betas": np.array(state.betas),
        "calls": density.budget.spent,
        "generator": generator.get_state().numpy(),
    }


def _restored(
    saved: dict[str, Any], density: UnconstrainedDensity, generator: torch.Generator
) -> _State:
    """The state that was saved; calls and generator go on from where they were."""
    generator.set_state(torch.from_numpy(saved["generator"]))
    density.budget.spent = int(saved["calls"])
    parts = [torch.from_numpy(saved[f"particles.{field.name}"]) for field in fields(Particles)]
    tables = {
        table: {
            str(name): float(value)
            for name, value in zip(saved[f"{table}.names"], saved[f"{table}.values"], strict=True)
        }
        for table in ("steps", "acceptance")
    }
    return _State(
        Particles(*parts),
        chains=int(saved["chains"]),
        beta=float(saved["beta"]),
        log_z=float(saved["log_z"]),
        variance=float(saved["variance"]),
        betas=saved["betas"].tolist(),
        trail=[(torch.from_numpy(saved["trail.y"]), torch.from_numpy(saved["trail.log_p"]))],
        **tables,
    )


def _sample(state: _State, stopped_by: str | None) -> Sample:
    now, weight = state.particles, None
    if state.beta < 1:
        state.remember()
    trail, trail_log_p = state.remembered()
    log_z, variance = state.log_z, state.variance
    if state.beta < 1:  # what there is, weighted as far as it bears
        log_w = _log_ratio(now, state.beta, 1.0)
        log_z += float(log_w.logsumexp(dim=0)) - math.log(len(now))
        variance += _relative_variance((log_w - log_w.max()).exp(), state.chains)
        log_w = _log_ratio(now, state.beta, _next_beta(now, state.beta))
        weight = (log_w - log_w.max()).exp()
        weight = weight / weight.mean()
    return Sample(
        y=now.y,
        log_p=now.log_p,
        weight=weight,
        log_z=log_z,
        log_z_se=math.sqrt(variance),
        betas=tuple(state.betas),
        acceptance=state.acceptance,
        trail=trail,
        trail_log_p=trail_log_p,
        stopped_by=stopped_by,
    )
