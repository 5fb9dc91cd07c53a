"""Newton's method for mixture weights: a few steps where an average would take thousands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["newton_step"]

RIDGE = 1e-8
"""Share of the Hessian's mean diagonal that holds the weights of equal experts where they are."""

HALVINGS = 30
"""Most halvings of a step that does not raise the likelihood."""

SUFFICIENT = 1e-2
"""Share of the gain that the gradient promises which a step has to bring."""

Array = NDArray[np.float64]


def newton_step(ratios: Array, row_weights: Array, weights: Array) -> Array | None:
    """Take one step towards the weights of greatest mean log likelihood.

    The quadratic model of −mean log q_mix + Σw is minimized over all w ≥ 0, where its
    minimum lies on the simplex by itself (mixture-SQP: Kim, Carbonetto, Stephens & Anitescu
    2020, arXiv:1806.01412), as a non-negative least-squares problem; the step is halved until
    the likelihood rises.

    Args:
        ratios: densities qₖ(xᵢ), (n, K), up to a constant for each draw.
        row_weights: of the draws, (n,), with sum 1.
        weights: on the simplex, (K,), with positive density at every draw.

    Returns:
        The next weights (K,), on the simplex; None where no step raises the likelihood.

    Examples:
        >>> ratios = np.array([[1.0, 0.2], [0.3, 1.0], [1.0, 0.1]])
        >>> weights = np.array([0.5, 0.5])
        >>> for _ in range(4):
        ...     weights = newton_step(ratios, np.full(3, 1 / 3), weights)
        >>> (1 / (ratios @ weights) @ ratios / 3).round(6)  # the gradient at the optimum
        array([1., 1.])
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls

    mixed = ratios @ weights
    scaled = ratios * (np.sqrt(row_weights) / mixed)[:, None]
    hessian = scaled.T @ scaled
    gradient = hessian @ weights
    hessian += RIDGE * np.trace(hessian) / len(weights) * np.eye(len(weights))
    factor = cholesky(hessian, lower=True)
    linear = hessian @ weights - (1 - gradient)
    goal, _ = nnls(factor.T, solve_triangular(factor, linear, lower=True))
    direction = goal - weights
    slope = float(direction @ (1 - gradient))
    if not slope < 0:
        return None
    before = _objective(mixed, row_weights, weights)
    for _ in range(HALVINGS):
        moved = weights + direction
        mixed = ratios @ moved
        if (mixed > 0).all():
            gain = before - _objective(mixed, row_weights, moved)
            if gain > -SUFFICIENT * slope:
                return np.asarray(moved / moved.sum())
        direction, slope = direction / 2, slope / 2
    return None


def _objective(mixed: Array, row_weights: Array, weights: Array) -> float:
    return float(weights.sum() - row_weights @ np.log(mixed))
