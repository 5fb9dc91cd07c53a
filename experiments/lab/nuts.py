"""The No-U-Turn sampler of NumPyro on a known density, within a number of gradients.

Hoffman & Gelman (2014), JMLR 15, 1593–1623. Float64, vectorized chains, started uniformly in
[−2, 2] of the unconstrained parameters. Every leapfrog step counts as one gradient, those of
the warm-up included; the one gradient at which a chain starts is not counted.

The number of iterations that a budget pays for is not known before the step size is. So:
a short first warm-up; a second one, begun again, as long as the average trajectory of the first
lets it be within a share of the budget; then samples in pieces, each as long as the average
trajectory before it lets it be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.constraints.constraints import Constraints
from experiments.lab.densities.known import KnownDensity

__all__ = ["NutsResult", "constraining_transform", "run_nuts"]

FIRST_WARMUP = 100
"""Iterations per chain of the first warm-up."""

LONGEST_WARMUP = 1000
"""Most iterations per chain of the second warm-up."""

SHORTEST_WARMUP = 50
"""Fewest iterations per chain for which a second warm-up is made."""

WARMUP_SHARE = 0.4
"""Share of the budget that both warm-ups may spend."""

FIRST_SHARE = 0.7
"""Share of what the warm-up left that the first piece of samples may spend."""

START_RADIUS = 2.0
"""Chains start uniformly within this distance of the origin, in each unconstrained parameter."""

START_TRIES = 100
"""Points per chain that are tried until the density is positive at one, as NumPyro does."""


@dataclass(frozen=True, kw_only=True)
class NutsResult:
    """What the sampler found.

    Attributes:
        draws: of all chains after the warm-up, (n, d).
        n_gradients: leapfrog steps of all chains, warm-up included.
        warmup: iterations per chain.
        mean_error: largest error of a mean, in standard deviations; None if there are none.
        sd_error: largest relative error of a standard deviation; None if there are none.
        quantile_error: largest error of a distribution function; None if it is unknown.
    """

    draws: Tensor
    n_gradients: int
    warmup: int
    mean_error: float | None
    sd_error: float | None
    quantile_error: float | None


def run_nuts(
    density: KnownDensity, *, budget: int, seed: int, chains: int = 4, target_accept: float = 0.9
) -> NutsResult:
    """Sample with about ``budget`` gradients.

    A budget below what the first warm-up and one sample per chain cost is exceeded.

    Raises:
        ValueError: the density has no version for jax, a constraint on a vector, or is zero
            all around the origin.
    """
    if density.jax_log_density is None:
        raise ValueError(f"{density.name}: expected a density with a version for jax, found none")
    limits = density.limits
    if limits.vectors:
        raise ValueError(f"{density.name}: expected bounds of single parameters, found a vector's")
    import jax

    with jax.enable_x64(True):
        unconstrained, count, warmup = _sample(
            density.jax_log_density, limits, budget, seed, chains, target_accept
        )
    draws = torch.from_numpy(np.array(unconstrained, dtype=np.float64))
    errors = density.moment_errors(draws)
    return NutsResult(
        draws=draws,
        n_gradients=count,
        warmup=warmup,
        mean_error=errors[0] if errors else None,
        sd_error=errors[1] if errors else None,
        quantile_error=density.quantile_error(draws),
    )


def _sample(
    log_density: Callable[[Any], Any],
    limits: Constraints,
    budget: int,
    seed: int,
    chains: int,
    target_accept: float,
) -> tuple[Any, int, int]:
    """Constrained draws (n, d), gradients spent and warm-up iterations per chain."""
    import jax
    from numpyro.infer import MCMC, NUTS

    to_constrained = constraining_transform(limits)

    def potential(y: Any) -> Any:
        x, log_jacobian = to_constrained(y)
        return -log_density(x) - log_jacobian

    def sampler(warmup: int) -> Any:
        kernel = NUTS(potential_fn=potential, target_accept_prob=target_accept)
        return MCMC(
            kernel, num_warmup=warmup, num_samples=1, num_chains=chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip

    first, second, last, start_key = jax.random.split(jax.random.key(seed), 4)
    start = _starts(potential, start_key, chains, len(limits.lower))
    mcmc, warmup = sampler(FIRST_WARMUP), FIRST_WARMUP
    steps = _warm_up(mcmc, first, start)
    count = int(steps.sum())
    longer = min(int((WARMUP_SHARE * budget - count) / _cost(steps)), LONGEST_WARMUP)
    if longer >= SHORTEST_WARMUP:
        mcmc, warmup = sampler(longer), warmup + longer
        steps = _warm_up(mcmc, second, start)
        count += int(steps.sum())
    pieces: list[Any] = []
    for share in (FIRST_SHARE, 1.0):
        mcmc.num_samples = int(share * (budget - count) / _cost(steps))
        if pieces and mcmc.num_samples < 1:
            break
        mcmc.num_samples = max(mcmc.num_samples, 1)
        mcmc.run(mcmc.post_warmup_state.rng_key if pieces else last, extra_fields=("num_steps",))
        steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
        count += int(steps.sum())
        pieces.append(mcmc.get_samples())
        mcmc.post_warmup_state = mcmc.last_state
    y = np.concatenate([np.asarray(piece) for piece in pieces])
    return jax.vmap(lambda point: to_constrained(point)[0])(y), count, warmup


def _starts(potential: Callable[[Any], Any], key: Any, chains: int, dim: int) -> Any:
    """Points (chains, d) at which the density is positive.

    Raises:
        ValueError: too few of those tried.
    """
    import jax

    size = (START_TRIES * chains, dim)
    tried = jax.random.uniform(key, size, minval=-START_RADIUS, maxval=START_RADIUS)
    valid = tried[np.isfinite(np.asarray(jax.vmap(potential)(tried)))]
    if len(valid) < chains:
        raise ValueError(
            f"expected {chains} starts of positive density, found {len(valid)} within "
            f"{START_RADIUS:g} of the origin"
        )
    return valid[:chains]


def _warm_up(mcmc: Any, key: Any, start: Any) -> Any:
    """Run the warm-up from points (chains, d); leapfrog steps (chains, iterations)."""
    mcmc.warmup(key, init_params=start, collect_warmup=True, extra_fields=("num_steps",))
    return np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])


def _cost(steps: Any) -> float:
    """Leapfrog steps per iteration of all chains, on average over the second half of some."""
    return float(steps[:, steps.shape[1] // 2 :].mean(axis=1).sum())


def constraining_transform(limits: Constraints) -> Callable[[Any], tuple[Any, Any]]:
    """From unconstrained points (d,) of jax to constrained ones and the log Jacobian."""
    import jax
    import jax.numpy as jnp

    lower, upper = np.array(limits.lower), np.array(limits.upper)
    below, above = np.isfinite(lower), np.isfinite(upper)
    low, high = np.where(below, lower, 0.0), np.where(above, upper, 0.0)

    def to_constrained(y: Any) -> tuple[Any, Any]:
        share = jax.nn.sigmoid(y)
        within = low + (high - low) * share
        one_sided = jnp.where(below, low + jnp.exp(y), high - jnp.exp(y))
        x = jnp.where(below & above, within, jnp.where(below | above, one_sided, y))
        width = np.where(below & above, high - low, 1.0)
        log_slope = jnp.log(width) - jax.nn.softplus(y) - jax.nn.softplus(-y)
        one_sided_slope = jnp.where(below | above, y, 0.0)
        return x, jnp.where(below & above, log_slope, one_sided_slope).sum()

    return to_constrained
