"""Which experts earn their place in the mixture.

Maximum-likelihood weights give an expert a share wherever it fits some draws' noise.
Each needless weight loses about 1/(2n) nats and hides which expert the draws speak for.
So experts are left out one by one, the least missed first, and the set is kept for which
Akaike's information criterion is best (Akaike 1974, IEEE Trans. Autom. Control 19:716): a
weight must earn one nat over all draws. Every expert alone is among the sets compared, so
that the mixture still cannot lose to the best of them on these draws.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from amfvi.stage_two import Matrix, WeightFit, fit_weights, normalised

__all__ = ["without_the_needless"]

PRICE = 1.0  # nats over all draws that a weight must earn
FLOOR = 1e-9  # keeps every logarithm finite while the optimiser looks around


def without_the_needless(
    log_densities: Tensor | Matrix,
    found: WeightFit,
    *,
    draw_weights: Tensor | Matrix | None = None,
) -> WeightFit:
    """Weights by the same rule for the experts that earn their place, zero for the others.

    Args:
        log_densities: (n, K) in nats, as ``found`` was fitted to.
        found: maximum-likelihood weights, rule ``ema`` or ``em``.
        draw_weights: as they were fitted with, (n,). What a weight must earn, it must
            earn over as many draws of equal weight as these are worth.
    """
    log_q = np.asarray(torch.as_tensor(log_densities).detach().cpu(), dtype=np.float64)
    shares = normalised(draw_weights, len(log_q))
    reached = (log_q > -np.inf).any(axis=1) & (shares > 0)
    log_q, shares = log_q[reached], shares[reached] / shares[reached].sum()
    kept = _best_set(log_q, shares, np.flatnonzero(found.weights))
    if set(kept) == set(np.flatnonzero(found.weights)):
        return found
    again = fit_weights(log_q[:, kept], found.rule, beta=found.beta or 0.0, draw_weights=shares)
    weights = np.zeros_like(found.weights)
    weights[kept] = again.weights
    steps = found.steps + 1 + again.steps  # leaving out counts as an update
    with np.errstate(divide="ignore"):
        best, reached = (
            shares @ np.logaddexp.reduce(log_q + np.log(w), axis=1)
            for w in (found.weights, weights)
        )
    return replace(
        found,
        weights=weights,
        steps=steps,
        converged=found.converged and again.converged,
        path=np.vstack([found.path, weights]),
        path_steps=np.append(found.path_steps, steps),
        given_up=max(float(best - reached), 0.0),
    )


def _best_set(log_q: Matrix, shares: Matrix, candidates: np.ndarray) -> list[int]:
    """Columns that the criterion likes best, of those met by leaving out one at a time."""
    worth = 1 / np.square(shares).sum()

    def score(columns: list[int]) -> float:
        return worth * _best_log_likelihood(log_q[:, columns], shares)

    current = [int(k) for k in candidates]
    met = [([k], score([k])) for k in range(log_q.shape[1])]
    met.append((current, score(current)))
    while len(current) > 2:
        smaller = [[k for k in current if k != out] for out in current]
        scores = [score(columns) for columns in smaller]
        current = smaller[int(np.argmax(scores))]
        met.append((current, max(scores)))
    return max(met, key=lambda one: one[1] - PRICE * len(one[0]))[0]


def _best_log_likelihood(log_q: Matrix, shares: Matrix) -> float:
    """Largest mean log-likelihood of a mixture of these columns (n, k), nats."""
    top = log_q.max(axis=1)
    if log_q.shape[1] == 1 or not np.isfinite(top).all():
        return float(shares @ top)
    ratios = np.exp(log_q - top[:, None])

    def objective(w: Matrix) -> tuple[float, Matrix]:
        # The term Σw makes the unconstrained optimum one whose weights sum to one.
        mixed = ratios @ w
        return w.sum() - shares @ np.log(mixed), 1 - (shares / mixed) @ ratios

    start = np.full(log_q.shape[1], 1 / log_q.shape[1])
    bounds = [(FLOOR, None)] * len(start)
    solved = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
                      options={"ftol": 1e-12, "gtol": 1e-7})  # fmt: skip
    weights = solved.x / solved.x.sum()
    return float(shares @ (np.log(ratios @ weights) + top))
