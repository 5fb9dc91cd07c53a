"""Variational peers by BlackJAX: multi-path Pathfinder, and ADVI with Gaussian families.

Both approximate a density over unconstrained space that numpy computes with its gradient, such as
that of a compiled Stan program, and both are given generous settings. Float64. Points are counted
as they are evaluated, those that JAX evaluates twice included; compilation is part of the time.

Pathfinder (Zhang, Carpenter, Gelman & Vehtari 2022, JMLR 23; arXiv:2108.03782, algorithm 2):
normals along several paths of L-BFGS, of each path the one of the largest ELBO, whose pooled
draws are resampled by Pareto-smoothed importance weights. ADVI (Kucukelbir, Tran, Ranganath,
Gelman & Blei 2017, JMLR 18): a normal with a diagonal or a full covariance, by stochastic
gradients of the ELBO. The full covariance starts from the diagonal one, in its scale: from the
origin and unit scale, as BlackJAX starts, it mostly diverges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lab.jax_density import CountedDensity, Density, float64

__all__ = ["ADVI_FAMILIES", "Approximation", "missing_module", "run_advi",
           "run_pathfinder"]  # fmt: skip

Array = NDArray[np.float64]

START_RADIUS = 2.0
"""Paths start uniformly within this distance of the origin in each coordinate, as in Stan."""

START_TRIES = 100
"""Points per path that are tried until the density is positive at one."""

PATHS = 20
"""Paths of Pathfinder, as in the paper."""

MAX_ITERATIONS = 200
"""Of L-BFGS on one path; BlackJAX's 30 are too few where scales differ much."""

TOLERANCE = 1e-9
"""Relative improvement below which L-BFGS stops."""

ELBO_DRAWS = 100
"""Draws by which the normals of a path are compared."""

POOL_PER_PATH = 1000
"""Draws of each path that are weighted."""

ADVI_FAMILIES = ("mean-field", "full-rank")
"""Covariances: diagonal, or any."""

ADVI_STEPS = 4000
"""Steps of Adam at each learning rate, which falls to zero by a cosine."""

ADVI_DRAWS = 10
"""Draws per step."""

ADVI_RATES = (0.3, 0.1, 0.03, 0.01)
"""Learning rates that are tried; the one of the largest ELBO at the end is kept."""

ADVI_LAST = 200
"""Steps at the end over which the ELBO is averaged."""


@dataclass(frozen=True, kw_only=True)
class Approximation:
    """What a method found.

    Attributes:
        draws: that it offers in place of the density's, (n, d).
        elbo: lower bound of the log evidence, nats; the largest of all paths.
        n_gradients: points at which the gradient was evaluated.
        n_values: points at which the density alone was.
        khat: Pareto shape of the importance weights; None without them.
        efficiency: effective share of the weighted draws; None without them.
    """

    draws: Array
    elbo: float
    n_gradients: int
    n_values: int
    khat: float | None = None
    efficiency: float | None = None


def missing_module() -> str | None:
    """Name the module that both methods need and that is not installed, or None."""
    return None if find_spec("blackjax") else "blackjax"


def run_pathfinder(density: Density, dim: int, *, n_draws: int, seed: int) -> Approximation:
    """Approximate a density over R^d by multi-path Pathfinder.

    Raises:
        ValueError: the density is zero around the origin, or no path leads to a normal.
    """
    with float64():
        return _pathfinder(CountedDensity(density, dim), n_draws, seed)


def _pathfinder(counted: CountedDensity, n_draws: int, seed: int) -> Approximation:
    import jax
    from blackjax.vi import pathfinder

    log_density = counted.for_jax()
    # One path after another: vectorized, every path would go on until the last has arrived.
    follow = jax.jit(
        lambda key, start: (
            pathfinder.approximate(
                key, log_density, start, 1, maxiter=MAX_ITERATIONS, ftol=TOLERANCE
            )[1].path
        )
    )
    describe = jax.jit(_describe, static_argnums=2)
    *keys, last = jax.random.split(jax.random.key(seed), PATHS + 1)
    found: list[tuple[float, Array, Array]] = []
    for start, key in zip(_starts(counted, seed), keys, strict=True):
        on_path, of_elbo, of_pool = jax.random.split(key, 3)
        path = jax.tree.map(np.asarray, follow(on_path, start))
        keep, draws, log_q = _normals(path, describe(of_elbo, path, ELBO_DRAWS), counted)
        elbos = np.nan_to_num((counted.value(draws) - log_q).mean(axis=1), nan=-np.inf)
        best = int(elbos.argmax())
        if np.isfinite(elbos[best]):
            chosen = jax.tree.map(lambda leaf, i=keep[best]: leaf[i : i + 1], path)
            described = describe(of_pool, chosen, POOL_PER_PATH)
            found.append((float(elbos[best]), *_normals(chosen, described, counted)[1:]))
    if not found:
        raise ValueError(f"expected a normal of finite ELBO, found none on {PATHS} paths")
    elbos, pool, log_q = (np.concatenate([np.atleast_1d(f[i]) for f in found]) for i in range(3))
    draws, weights, khat = _resample(last, pool, counted.value(pool), log_q, n_draws)
    return Approximation(
        draws=draws,
        elbo=float(elbos.max()),
        n_gradients=counted.n_gradients,
        n_values=counted.n_values,
        khat=khat,
        efficiency=float(weights.sum() ** 2 / (weights**2).sum() / weights.size),
    )


def _resample(
    key: Any, pool: Array, log_p: Array, log_q: Array, n: int
) -> tuple[Array, Array, float]:
    """Draws (n, d) of a pool (paths, m, d) by smoothed weights, the weights (paths·m,) and k̂."""
    import blackjax
    import jax
    from blackjax.vi import multipathfinder

    def resample(key: Any, pool: Any, log_p: Any, log_q: Any) -> Any:
        state = multipathfinder.MultipathfinderState(None, pool, log_p, log_q)
        log_weights, khat = multipathfinder.psis_weights(state)
        algorithm = blackjax.multipathfinder(lambda _: 0.0)  # which it does not call to resample
        return algorithm.sample(key, state, n), log_weights, khat

    draws, log_weights, khat = jax.jit(resample)(key, pool, log_p, log_q)
    return np.array(draws), np.exp(np.asarray(log_weights)), float(khat)


def _starts(counted: CountedDensity, seed: int) -> Array:
    """Points (paths, d) at which the density is positive."""
    random = np.random.default_rng(seed)
    tried = random.uniform(-START_RADIUS, START_RADIUS, (START_TRIES * PATHS, counted.dim))
    found: list[Array] = []
    for point in tried:
        if np.isfinite(counted.value(point)):
            found.append(point)
        if len(found) == PATHS:
            return np.array(found)
    raise ValueError(
        f"expected {PATHS} starts of positive density, found {len(found)} within "
        f"{START_RADIUS:g} of the origin"
    )


def _describe(key: Any, path: Any, n: int) -> tuple[Any, Any, Any]:
    """Normals of a path: draws (m, n, d) less means, log densities (m, n), covariances (m, d, d).

    Args:
        path: states of Pathfinder with a leading axis (m,).
    """
    import jax
    import jax.numpy as jnp
    from blackjax.optimizers.lbfgs import lbfgs_inverse_hessian_formula_1
    from blackjax.vi import pathfinder

    # Without a gradient BlackJAX draws around the position, whichever sign it gives the gradient.
    still = path._replace(
        position=jnp.zeros_like(path.position), grad_position=jnp.zeros_like(path.position)
    )
    keys = jax.random.split(key, len(path.position))
    draws, log_q = jax.vmap(lambda k, state: pathfinder.sample(k, state, n))(keys, still)
    return (
        draws,
        log_q,
        jax.vmap(lbfgs_inverse_hessian_formula_1)(path.alpha, path.beta, path.gamma),
    )


def _normals(
    path: Any, described: tuple[Any, Any, Any], counted: CountedDensity
) -> tuple[NDArray[np.intp], Array, Array]:
    """Which states of a path are points of their own, (m,), draws (m, n, d) and log q (m, n).

    A normal lies at θ + Σ∇log p. BlackJAX 1.7.1 puts it at θ − Σ∇log p, because it takes the
    gradient of −log p for that of log p, and leaves out the last point of a path.
    """
    points = np.asarray(path.position)
    moved = np.r_[True, (np.diff(points, axis=0) != 0).any(axis=1)]
    keep = np.flatnonzero(moved & np.isfinite(points).all(axis=1))
    draws, log_q, covariances = (np.asarray(part)[keep] for part in described)
    _, gradients = counted.value_and_gradient(points[keep])
    means = points[keep] + np.einsum("mij,mj->mi", covariances, gradients)
    return keep, draws + means[:, None], log_q


def run_advi(density: Density, dim: int, *, family: str, n_draws: int, seed: int) -> Approximation:
    """Approximate a density over R^d by a normal of one of :data:`ADVI_FAMILIES`.

    Raises:
        ValueError: no such family, or the ELBO is not finite at any learning rate.
    """
    if family not in ADVI_FAMILIES:
        raise ValueError(f"expected a family of {', '.join(ADVI_FAMILIES)}, found {family!r}")
    with float64():
        return _advi(CountedDensity(density, dim), family, n_draws, seed)


def _advi(counted: CountedDensity, family: str, n_draws: int, seed: int) -> Approximation:
    import blackjax
    import jax

    log_density = counted.for_jax()
    first, second, last = jax.random.split(jax.random.key(seed), 3)
    elbo, state = _maximize_elbo(blackjax.meanfield_vi, log_density, counted.dim, first)
    draws = blackjax.vi.meanfield_vi.sample(last, state, n_draws)
    if family == "full-rank":
        mean, sd = state.mu, np.exp(state.rho)
        elbo, state = _maximize_elbo(
            blackjax.fullrank_vi,
            lambda z: log_density(mean + sd * z) + state.rho.sum(),
            counted.dim,
            second,
        )
        draws = mean + sd * blackjax.vi.fullrank_vi.sample(last, state, n_draws)
    return Approximation(
        draws=np.array(draws),
        elbo=elbo,
        n_gradients=counted.n_gradients,
        n_values=counted.n_values,
    )


def _maximize_elbo(
    make: Callable[..., Any], log_density: Callable[[Any], Any], dim: int, key: Any
) -> tuple[float, Any]:
    """The ELBO, nats, and the state at the end of the learning rate at which it is largest."""
    import jax
    import optax

    def train(key: Any, rate: Any) -> Any:
        schedule = optax.cosine_decay_schedule(rate, ADVI_STEPS)
        method = make(log_density, optax.adam(schedule), ADVI_DRAWS)

        def step(state: Any, key: Any) -> Any:
            state, info = method.step(key, state)
            return state, info.elbo  # BlackJAX gives the loss, −ELBO, under this name

        start = method.init(np.zeros(dim))
        state, losses = jax.lax.scan(step, start, jax.random.split(key, ADVI_STEPS))
        return state, -losses[-ADVI_LAST:].mean()

    compiled = jax.jit(train)
    keys = jax.random.split(key, len(ADVI_RATES))
    fits = [compiled(key, rate) for key, rate in zip(keys, ADVI_RATES, strict=True)]
    elbo, best = max((float(np.nan_to_num(e, nan=-np.inf)), i) for i, (_, e) in enumerate(fits))
    if not np.isfinite(elbo):
        raise ValueError("expected a finite ELBO, found none at any learning rate")
    return elbo, fits[best][0]
