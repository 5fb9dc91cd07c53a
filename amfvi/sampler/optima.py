"""Local optima of a log density from many starts, each with its curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from amfvi.log_density import UnconstrainedDensity

__all__ = ["Optimum", "find_optima"]

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]

LEAST_MASS = -20.0  # log of the share below which an optimum is a spike that holds nothing
MOST_EVALUATIONS = 150  # of one optimisation
NEWTON_STEPS = 3
SAME = 0.3  # standard deviations within which two optima are one
DIFFERENCE = 1e-5
WIDEST, NARROWEST = 1e2, 1e-12  # standard deviations that a curvature may mean


@dataclass(frozen=True)
class Optimum:
    """A local maximum.

    Attributes:
        point: shape (d,).
        log_density: there, nats.
        covariance: of the Gaussian of the same curvature, (d, d).
    """

    point: Tensor
    log_density: float
    covariance: Tensor

    @property
    def log_mass(self) -> float:
        """Laplace's approximation of the logarithm of the mass around it, nats."""
        d = len(self.point)
        return self.log_density + 0.5 * (
            d * math.log(2 * math.pi) + float(torch.linalg.slogdet(self.covariance).logabsdet)
        )


def find_optima(
    density: UnconstrainedDensity, starts: Tensor, known: Sequence[Optimum] = ()
) -> list[Optimum]:
    """Distinct optima that L-BFGS reaches from ``starts`` (k, d), the heaviest first.

    Those ``known`` are among them. Optima without a finite curvature, and those whose
    mass is a vanishing part of the heaviest one's, are left out.
    """
    objective = _with_gradient(density) if density.differentiable else _by_differences(density)
    found = list(known)
    for start in starts:
        with np.errstate(all="ignore"):
            solved = minimize(
                objective, start.numpy(), jac=True, method="L-BFGS-B",
                options={"maxfun": MOST_EVALUATIONS, "maxcor": 20, "ftol": 1e-10},
            )  # fmt: skip
        if not np.isfinite(solved.fun) or solved.fun >= 1e300:
            continue
        point = torch.from_numpy(np.asarray(solved.x, dtype=np.float64))
        if any(_apart(point, known) < SAME for known in found):
            continue
        covariance = _covariance(density, point)
        if covariance is None:
            continue
        one = _polished(objective, Optimum(point, -float(solved.fun), covariance))
        if not any(_apart(one.point, known) < SAME for known in found):
            found.append(one)
    found.sort(key=lambda one: -one.log_mass)
    return [one for one in found if one.log_mass > found[0].log_mass + LEAST_MASS]


def _polished(objective: Objective, optimum: Optimum) -> Optimum:
    """Some Newton steps on, where they go up: L-BFGS stops early in a narrow ridge."""
    for _ in range(NEWTON_STEPS):
        value, downhill = objective(optimum.point.numpy())
        point = optimum.point - optimum.covariance @ torch.from_numpy(downhill)
        reached = objective(point.numpy())[0]
        if not reached < value:
            break
        optimum = Optimum(point, -reached, optimum.covariance)
    return optimum


def _apart(point: Tensor, optimum: Optimum) -> float:
    """Distance in standard deviations of the optimum, per root dimension."""
    away = (point - optimum.point)[:, None]
    factor = torch.linalg.cholesky(optimum.covariance)
    scores = torch.linalg.solve_triangular(factor, away, upper=False)
    return float(scores.square().mean().sqrt())


def _with_gradient(density: UnconstrainedDensity) -> Objective:
    def objective(y: Array) -> tuple[float, Array]:
        value, gradient = density.log_prob_and_gradient(torch.from_numpy(y)[None])
        return _negated(float(value), gradient[0].numpy())

    return objective


def _by_differences(density: UnconstrainedDensity) -> Objective:
    """Forward differences, all in one batch."""

    def objective(y: Array) -> tuple[float, Array]:
        steps = DIFFERENCE * np.maximum(1.0, np.abs(y))
        points = torch.from_numpy(np.vstack([y, y + np.diag(steps)]))
        values = density.log_prob(points).numpy()
        return _negated(float(values[0]), (values[1:] - values[0]) / steps)

    return objective


def _negated(value: float, gradient: Array) -> tuple[float, Array]:
    """What is minimised: finite everywhere, so that a line search can step back."""
    if not math.isfinite(value):
        return 1e300, np.zeros_like(gradient)
    return -value, -np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _covariance(density: UnconstrainedDensity, point: Tensor) -> Tensor | None:
    """The inverse of minus the Hessian, made positive where it is not; None if not finite."""
    hessian = _hessian(density, point)
    if not bool(hessian.isfinite().all()):
        return None
    # Curvatures are compared in units of each coordinate's own.
    unit = hessian.diagonal().abs().clamp(WIDEST**-2, NARROWEST**-2).rsqrt()
    values, vectors = torch.linalg.eigh(-hessian * unit[:, None] * unit)
    flat = values.abs().max() * 1e-10
    values = values.abs().clamp(min=max(float(flat), 1e-12))
    factor = unit[:, None] * vectors * values.rsqrt()
    covariance = factor @ factor.T
    sd = covariance.diagonal().sqrt()
    shrink = (WIDEST / sd).clamp(max=1.0)  # along a ridge there is no curvature at all
    return covariance * shrink[:, None] * shrink


def _hessian(density: UnconstrainedDensity, point: Tensor) -> Tensor:
    """By differences of gradients, or of values, over steps that suit each coordinate."""
    d = len(point)
    steps = _steps(density, point)
    if density.differentiable:
        moved = torch.cat([point + torch.diag(steps), point - torch.diag(steps)])
        gradients = density.log_prob_and_gradient(moved)[1]
        hessian = (gradients[:d] - gradients[d:]) / (2 * steps[:, None])
        return (hessian + hessian.T) / 2
    shifts = torch.diag(steps)
    first, second = torch.triu_indices(d, d)
    corners = torch.cat(
        [point + a * shifts[first] + b * shifts[second] for a in (1, -1) for b in (1, -1)]
    )
    plus, across, back, minus = density.log_prob(corners).view(4, -1)
    entries = (plus - across - back + minus) / (4 * steps[first] * steps[second])
    hessian = torch.zeros(d, d, dtype=torch.float64)
    hessian[first, second] = entries
    hessian[second, first] = entries
    return hessian


def _steps(density: UnconstrainedDensity, point: Tensor) -> Tensor:
    """For each coordinate, the step that lowers the log density by about a hundredth."""
    d = len(point)
    sizes = torch.logspace(-6, 1, 15, dtype=torch.float64)
    moves = torch.eye(d, dtype=torch.float64)[:, None] * sizes[None, :, None]
    here = density.log_prob(point[None])
    drop = here - density.log_prob((point + moves).view(-1, d)).view(d, -1)
    distance = (drop.abs().clamp(1e-300, 1e300).log() - math.log(1e-2)).abs()
    distance[~drop.isfinite()] = math.inf
    return sizes[distance.argmin(dim=1)]
