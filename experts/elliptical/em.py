"""Expectation maximization of elliptical mixtures, from seeds to an optimum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.problem import MixtureProblem

__all__ = ["ascend", "maximize_expectation"]


def maximize_expectation(
    problem: MixtureProblem,
    k: int,
    *,
    random: np.random.Generator,
    tolerance: float,
    max_iterations: int,
) -> tuple[Components, float, float]:
    """Fit k components to the training rows of each member by EM.

    Args:
        problem: whitened draws and their folds.
        tolerance: gain in mean training log density, nats, below which EM ends.

    Returns:
        The components, and the mean training and held-out negative log densities.

    Examples:
        >>> import torch
        >>> from amfvi.experts.folds import Folds
        >>> z = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> components, train_nll, heldout_nll = maximize_expectation(
        ...     MixtureProblem(z, Folds(z, torch.arange(100) % 2), gaussian=True), 1,
        ...     random=np.random.default_rng(0), tolerance=1e-6, max_iterations=10)
        >>> torch.allclose(components.means[0, 0], z[1::2].mean(dim=0))
        True
    """
    few = problem.few
    start = few.seed_components(k, random)
    if k == 1 and problem.gaussian:  # a single step ends at the only optimum, one more scores it
        max_iterations = min(max_iterations, 1 if few is problem else 2)
    limits: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations}
    fitted = ascend(few, start, **limits)
    shared = few.share_starts(fitted[0])
    if shared is not None:
        fitted = ascend(few, shared, **limits)
    return fitted if few is problem else ascend(problem, fitted[0], **limits)


def ascend(
    problem: MixtureProblem, components: Components, *, tolerance: float, max_iterations: int
) -> tuple[Components, float, float]:
    """Take EM steps from a start until they gain less than ``tolerance`` nats a row.

    Returns:
        As :func:`maximize_expectation`.

    Examples:
        >>> import torch
        >>> from amfvi.experts.folds import Folds
        >>> z = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> folds = Folds(z, torch.arange(100) % 2)
        >>> problem = MixtureProblem(z, folds, gaussian=True)
        >>> start = problem.seed_components(2, np.random.default_rng(0))
        >>> components, train_nll, _ = ascend(problem, start, tolerance=1e-6, max_iterations=99)
        >>> train_nll < ascend(problem, start, tolerance=1e-6, max_iterations=1)[1]
        True
    """
    previous = -math.inf
    for _ in range(max_iterations):
        updated, train, heldout = problem.step(components)
        current = float(train.mean())
        if current - previous < tolerance:
            break
        previous, components = current, updated
    return components, -current, -float(heldout)
