"""Local modes of a log density from many starting points, each with its curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.factors import factorize
from amfvi.sampler.lockstep import EvaluateAll, minimize_together
from amfvi.sampler.resolution import MAX_EXPONENT, evaluate_together, evaluate_where_possible

__all__ = ["Mode", "find_modes", "mahalanobis_rms", "newton_polish"]

Array = NDArray[np.float64]

Objective = Callable[[Array], tuple[float, Array]]
"""Minus the log density at a point (d,), and its gradient (d,)."""

MIN_LOG_MASS = -20.0
"""Log of the share of the heaviest mode's mass below which a mode is ignored."""

MAX_EVALUATIONS = 150
"""Evaluations of the objective in one optimization."""

NEWTON_STEPS = 3
"""Newton steps at most after an optimization."""

SAME_MODE_DISTANCE = 0.3
"""Mahalanobis distance per root dimension within which two modes count as one."""

DIFFERENCE = 1e-5
"""Relative step of the forward differences that stand in for a gradient."""

MAX_SD = 1e2
"""Largest standard deviation that a small curvature may stand for; of a parameter of large scale,
as a multiple of the step that lowers the log density by ``DROP``."""

DROP = 1e-2
"""Nats by which a step lowers the log density over which curvature is measured."""

STEP_SIZES = torch.logspace(-6, 1, 15, dtype=torch.float64)
"""Steps that are tried first."""

RARE_STEP_SIZES = torch.logspace(-12, 12, 49, dtype=torch.float64)
"""Steps that are tried where none of the first is near."""

MIN_SD = 1e-12
"""Smallest standard deviation that a large curvature may stand for."""

PENALTY = 1e300
"""Value of the objective where the log density is not finite."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A local maximum of a log density.

    Attributes:
        point: in unconstrained space, (d,).
        log_density: there, nats.
        covariance: of the Gaussian of the same curvature, (d, d).

    Examples:
        >>> Mode(point=torch.zeros(1), log_density=0.0, covariance=torch.eye(1)).log_mass
        0.9189385332046727
    """

    point: Tensor
    log_density: float
    covariance: Tensor

    @property
    def log_mass(self) -> float:
        """Laplace's approximation of the log of the mass around the mode, nats."""
        d = len(self.point)
        return self.log_density + 0.5 * (
            d * math.log(2 * math.pi) + float(torch.linalg.slogdet(self.covariance).logabsdet)
        )


def find_modes(
    density: UnconstrainedDensity, starts: Tensor, known: Sequence[Mode] = ()
) -> list[Mode]:
    """Find the distinct modes that L-BFGS reaches from ``starts`` (k, d), heaviest first.

    The optimizations advance together. Modes already ``known`` are kept among them. Modes
    without a finite curvature, and those with a vanishing part of the heaviest one's mass, are
    left out.

    Raises:
        OutOfBudgetError: a limit was reached.
        InputError: the density is broken.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = LogDensity(lambda x: -2 * (x[:, 0] - 3) ** 2, 1)
        >>> (mode,) = find_modes(UnconstrainedDensity(density), torch.zeros(1, 1).double())
        >>> print(f"{float(mode.point):.3f} {float(mode.covariance):.3f}")
        3.000 0.250
    """
    evaluate_all = _objective(density)
    modes = list(known)
    solutions = minimize_together(
        evaluate_all, [start.numpy() for start in starts], method="L-BFGS-B",
        options={"maxfun": MAX_EVALUATIONS, "maxcor": 20, "ftol": 1e-10},
    )  # fmt: skip
    for solution in solutions:
        if not np.isfinite(solution.fun) or solution.fun >= PENALTY:
            continue
        point = torch.from_numpy(np.asarray(solution.x, dtype=np.float64))
        if any(mahalanobis_rms(point, mode) < SAME_MODE_DISTANCE for mode in modes):
            continue
        covariance = _laplace_covariance(density, point)
        if covariance is None:
            continue
        candidate = Mode(point=point, log_density=-float(solution.fun), covariance=covariance)
        candidate = newton_polish(lambda y: evaluate_all([y])[0], candidate)
        if not any(mahalanobis_rms(candidate.point, mode) < SAME_MODE_DISTANCE for mode in modes):
            modes.append(candidate)
    modes.sort(key=lambda mode: -mode.log_mass)
    return [mode for mode in modes if mode.log_mass > modes[0].log_mass + MIN_LOG_MASS]


def newton_polish(objective: Objective, mode: Mode) -> Mode:
    """Take Newton steps while they go up, since L-BFGS stops early on a narrow ridge.

    Examples:
        >>> def objective(y):
        ...     return float(0.5 * y @ y), y
        >>> near = Mode(
        ...     point=torch.ones(1).double(), log_density=-0.5, covariance=torch.eye(1).double()
        ... )
        >>> newton_polish(objective, near).point
        tensor([0.], dtype=torch.float64)
    """
    for _ in range(NEWTON_STEPS):
        value, gradient = objective(mode.point.numpy())
        point = mode.point - mode.covariance @ torch.from_numpy(gradient)
        next_value = objective(point.numpy())[0]
        if not next_value < value:
            break
        mode = Mode(point=point, log_density=-next_value, covariance=mode.covariance)
    return mode


def mahalanobis_rms(point: Tensor, mode: Mode) -> float:
    """Mahalanobis distance of ``point`` (d,) from a mode, divided by √d.

    Examples:
        >>> mode = Mode(point=torch.zeros(2), log_density=0.0, covariance=4 * torch.eye(2))
        >>> mahalanobis_rms(torch.tensor([2.0, 2.0]), mode)
        1.0
    """
    difference = (point - mode.point)[:, None]
    factor = factorize(mode.covariance)
    scores = torch.linalg.solve_triangular(factor, difference, upper=False)
    return float(scores.square().mean().sqrt())


def _objective(density: UnconstrainedDensity) -> EvaluateAll:
    """Minus the log density at points, with gradients by autograd or by forward differences."""

    def by_autograd(points: Sequence[Array]) -> list[tuple[float, Array]]:
        batches = [torch.from_numpy(y)[None] for y in points]
        return [
            _negate(float(value), gradient[0].numpy())
            for value, gradient in evaluate_together(
                density, batches, gradient=True, max_magnitude=MAX_EXPONENT
            )
        ]

    def by_differences(points: Sequence[Array]) -> list[tuple[float, Array]]:
        steps = [DIFFERENCE * np.maximum(1.0, np.abs(y)) for y in points]
        batches = [
            torch.from_numpy(np.vstack([y, y + np.diag(step)]))
            for y, step in zip(points, steps, strict=True)
        ]
        evaluated = evaluate_together(density, batches, gradient=False, max_magnitude=MAX_EXPONENT)
        results = []
        for (log_p, _), step in zip(evaluated, steps, strict=True):
            values = log_p.numpy()
            with np.errstate(invalid="ignore"):  # −∞ − −∞, where the density is zero
                results.append(_negate(float(values[0]), (values[1:] - values[0]) / step))
        return results

    return by_autograd if density.differentiable else by_differences


def _negate(value: float, gradient: Array) -> tuple[float, Array]:
    """Minus both, finite everywhere, so that a line search can step back."""
    if not math.isfinite(value):
        return PENALTY, np.zeros_like(gradient)
    return -value, -np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _laplace_covariance(density: UnconstrainedDensity, point: Tensor) -> Tensor | None:
    """The inverse of minus the Hessian, made positive where it is not; None if not finite."""
    steps, max_sd = _difference_steps(density, point)
    hessian = _hessian(density, point, steps)
    if not bool(hessian.isfinite().all()):
        return None
    # Eigenvalues are compared in units of each coordinate's own curvature.
    unit = hessian.diagonal().abs().clamp(max=MIN_SD**-2).maximum(max_sd**-2).rsqrt()
    values, vectors = torch.linalg.eigh(-hessian * unit[:, None] * unit)
    flat = values.abs().max() * 1e-10
    values = values.abs().clamp(min=max(float(flat), 1e-12))
    factor = unit[:, None] * vectors * values.rsqrt()
    covariance = factor @ factor.T
    sd = covariance.diagonal().sqrt()
    shrink = (max_sd / sd).clamp(max=1.0)  # along a ridge there is no curvature at all
    return covariance * shrink[:, None] * shrink


def _hessian(density: UnconstrainedDensity, point: Tensor, steps: Tensor) -> Tensor:
    """Central differences of gradients, or of values, with a step size per coordinate (d,)."""
    d = len(point)
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


def _difference_steps(density: UnconstrainedDensity, point: Tensor) -> tuple[Tensor, Tensor]:
    """The step of each coordinate that lowers the log density by about ``DROP``, (d,).

    Also the largest standard deviation that its curvature may stand for, (d,).
    """
    d = len(point)
    here = density.log_prob(point[None])
    steps, distance = _choose_steps(density, point, here, torch.arange(d), STEP_SIZES)
    far = (distance > math.log(10)).nonzero().flatten()
    if len(far):
        steps[far], distance[far] = _choose_steps(density, point, here, far, RARE_STEP_SIZES)
    falls = distance <= math.log(10)
    steps = torch.where(falls, steps, 1.0)
    return steps, MAX_SD * steps.clamp(min=1.0)


def _choose_steps(
    density: UnconstrainedDensity, point: Tensor, here: Tensor, columns: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """Of some coordinates the size (k,) whose fall is nearest to ``DROP``, and how near (k,).

    As the logarithm of a ratio; infinite where no fall is finite.
    """
    shifts = torch.eye(len(point), dtype=torch.float64)[columns][:, None] * sizes[None, :, None]
    moved = (point + shifts).view(-1, len(point))
    log_p = evaluate_where_possible(density, moved, gradient=False, max_magnitude=MAX_EXPONENT)[0]
    fall = (here - log_p).view(len(columns), -1)
    distance = (fall.abs().clamp(1e-300, 1e300).log() - math.log(DROP)).abs()
    distance[~fall.isfinite()] = math.inf
    nearest = distance.min(dim=1)
    return sizes[nearest.indices], nearest.values
