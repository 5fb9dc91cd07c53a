"""Density estimators of other libraries, each with sensible settings.

A density estimator takes draws (n, d) and a seed and returns a function from points
(m, d) to log densities (m,), nats. All standardize each coordinate, hold out the last
fifth of the draws for early stopping, and keep the best state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["PEERS", "Array", "LogDensity", "Peer", "missing_module", "nflows_flow"]

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]
"""From points (m, d) to log densities (m,), nats."""

COMPONENT_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28)
"""Numbers of components that a Gaussian mixture is tried with."""

EPOCHS = 200
"""Most passes over the training draws."""

PATIENCE = 15
"""Epochs without a better held-out likelihood after which training stops."""

BATCH_SIZE = 256
"""Draws per step."""

LEARNING_RATE = 3e-3
"""Of Adam."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A density estimator of another library.

    Attributes:
        fit: from draws (n, d) and a seed to a log density.
        package: that it comes from, as it is installed.
        modules: to import before a clock starts.
    """

    fit: Callable[[Array, int], LogDensity]
    package: str
    modules: tuple[str, ...]


def scikit_learn_gmm(draws: Array, seed: int) -> LogDensity:
    """Fit GaussianMixture with the number of components that is best on held-out draws."""
    from sklearn.mixture import GaussianMixture

    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    z = (draws - mean) / sd
    n = len(z) * 4 // 5
    fits = (GaussianMixture(k, random_state=seed, max_iter=500) for k in COMPONENT_COUNTS)
    best = max([fit.fit(z[:n]) for fit in fits], key=lambda fit: fit.score(z[n:]))
    shift = np.log(sd).sum()
    return lambda x: best.score_samples((x - mean) / sd) - shift


def flowjax_spline(draws: Array, seed: int) -> LogDensity:
    """Fit its default masked autoregressive flow with rational-quadratic splines of 8 knots."""
    from flowjax.bijections import RationalQuadraticSpline

    return _flowjax(draws, seed, RationalQuadraticSpline(knots=8, interval=4))


def flowjax_affine(draws: Array, seed: int) -> LogDensity:
    """Fit its default masked autoregressive flow, affine."""
    return _flowjax(draws, seed, None)


def _flowjax(draws: Array, seed: int, transformer: object) -> LogDensity:
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    build, train = jr.split(jr.key(seed))
    flow = masked_autoregressive_flow(
        build, base_dist=Normal(jnp.zeros(draws.shape[1])), transformer=transformer
    )
    flow, _ = fit_to_data(
        train, flow, jnp.asarray((draws - mean) / sd), learning_rate=LEARNING_RATE,
        max_epochs=EPOCHS, max_patience=PATIENCE, batch_size=BATCH_SIZE, val_prop=0.2,
        show_progress=False,
    )  # fmt: skip
    log_prob = eqx.filter_jit(lambda x: flow.log_prob(x))
    shift = np.log(sd).sum()
    return lambda x: np.asarray(log_prob(jnp.asarray((x - mean) / sd)), dtype=float) - shift


def zuko_maf(draws: Array, seed: int) -> LogDensity:
    """Fit a MAF of 5 transforms, two hidden layers of 32."""
    import zuko

    dim = draws.shape[1]
    return _zuko(draws, seed, lambda: zuko.flows.MAF(dim, transforms=5, hidden_features=(32, 32)))


def zuko_nsf(draws: Array, seed: int) -> LogDensity:
    """Fit an NSF of 3 transforms, 8 bins, two hidden layers of 32."""
    import zuko

    dim = draws.shape[1]
    return _zuko(draws, seed, lambda: zuko.flows.NSF(dim, transforms=3, hidden_features=(32, 32)))


def _zuko(draws: Array, seed: int, build: Callable[[], Any]) -> LogDensity:
    return _train(draws, seed, build, lambda flow, z: flow().log_prob(z))


def nflows_flow(dim: int) -> Any:
    """Build an untrained nflows Flow of 5 masked affine transforms, two residual blocks of 32."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    layers: list[Any] = []
    for _ in range(5):
        layers += [ReversePermutation(dim), MaskedAffineAutoregressiveTransform(dim, 32)]
    return Flow(CompositeTransform(layers), StandardNormal([dim]))


def nflows_maf(draws: Array, seed: int) -> LogDensity:
    """MAF of 5 masked affine autoregressive transforms, two blocks of 32."""
    dim = draws.shape[1]
    return _train(draws, seed, lambda: nflows_flow(dim), lambda flow, z: flow.log_prob(z))


def normflows_spline(draws: Array, seed: int) -> LogDensity:
    """Fit five autoregressive spline layers, two blocks of 32, tails at 4."""
    import normflows as nf

    dim = draws.shape[1]

    def build() -> Any:
        layers: list[Any] = []
        for _ in range(5):
            layers += [
                nf.flows.AutoregressiveRationalQuadraticSpline(dim, 2, 32, tail_bound=4),
                nf.flows.Permute(dim, mode="swap"),
            ]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), layers)

    return _train(draws, seed, build, lambda flow, z: flow.log_prob(z))


def _train(
    draws: Array,
    seed: int,
    build: Callable[[], Any],
    log_prob: Callable[[Any, torch.Tensor], torch.Tensor],
) -> LogDensity:
    """Train a torch module by AdamW with cosine decay, scored once per epoch."""
    torch.manual_seed(seed)
    flow = build()
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    z = torch.from_numpy((draws - mean) / sd).float()
    n = len(z) * 4 // 5
    batches = max(n // BATCH_SIZE, 1)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    best, best_state, stale = math.inf, flow.state_dict(), 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(n)[: batches * BATCH_SIZE].chunk(batches):
            optimizer.zero_grad()
            (-log_prob(flow, z[rows]).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            score = -float(log_prob(flow, z[n:]).mean())
        if score < best:
            best, stale = score, 0
            best_state = {name: value.clone() for name, value in flow.state_dict().items()}
        else:
            stale += 1
            if stale == PATIENCE:
                break
    flow.load_state_dict(best_state)
    flow.eval()
    shift = np.log(sd).sum()

    @torch.no_grad()
    def evaluate(x: Array) -> Array:
        points = torch.from_numpy((x - mean) / sd).float()
        parts = [log_prob(flow, part) for part in points.split(2**15)]
        return torch.cat(parts).double().numpy() - shift

    return evaluate


PEERS: dict[str, Peer] = {
    "gmm (scikit-learn)": Peer(
        fit=scikit_learn_gmm, package="scikit-learn", modules=("sklearn.mixture",)
    ),
    "spline (flowjax)": Peer(
        fit=flowjax_spline,
        package="flowjax",
        modules=("flowjax.flows", "flowjax.train", "equinox"),
    ),
    "maf (flowjax)": Peer(
        fit=flowjax_affine,
        package="flowjax",
        modules=("flowjax.flows", "flowjax.train", "equinox"),
    ),
    "nsf (zuko)": Peer(fit=zuko_nsf, package="zuko", modules=("zuko",)),
    "maf (zuko)": Peer(fit=zuko_maf, package="zuko", modules=("zuko",)),
    "maf (nflows)": Peer(
        fit=nflows_maf, package="nflows", modules=("nflows.flows", "nflows.transforms")
    ),
    "spline (normflows)": Peer(fit=normflows_spline, package="normflows", modules=("normflows",)),
}
"""Density estimators by the name that pages give them."""


def missing_module(name: str) -> str | None:
    """Import what a density estimator needs; the module that is not installed, or None."""
    for module in PEERS[name].modules:
        try:
            import_module(module)
        except ImportError:
            return module.partition(".")[0]
    return None
