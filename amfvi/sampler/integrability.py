"""Detect log densities that do not fall off, which have no normalizing constant.

Along a line, a density that can be integrated has less and less mass per doubling of the
distance, from some distance on. A density that grows for ever, such as one with a forgotten
minus sign, has more mass at every doubling, and so has a flat one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError
from amfvi.sampler.resolution import MAX_MAGNITUDE, is_resolved

__all__ = ["NotIntegrableError", "require_decay"]

N_DOUBLINGS = 40
"""Doublings of the distance, some twelve decades, at all of which mass may not grow."""

MIN_DOUBLINGS = 2
"""Doublings of growth that suffice where a line leaves the floating-point numbers."""

MIN_GROWTH = 0.03
"""Increase of the log of the mass per doubling, in nats, that counts as growth."""

MAX_NAMED = 5
"""Parameters up to which an error names the value of each."""


class NotIntegrableError(InputError):
    """A log density that does not fall off, so that it has no normalizing constant.

    Examples:
        >>> issubclass(NotIntegrableError, ValueError)
        True
    """


@torch.no_grad()
def require_decay(density: UnconstrainedDensity, y: Tensor, log_p: Tensor) -> None:
    """Require that a density falls off on lines that lead away from points seen so far.

    The lines are parallel to the axes through the densest point, and the one from the
    origin through it. A line starts as far away as the farthest of ``y`` and is followed
    only until the mass per doubling falls, which most densities do at once.

    Args:
        y: points in unconstrained space, (n, d).
        log_p: their log densities, (n,), nats.

    Raises:
        NotIntegrableError: the density does not fall off on some line.
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> wrong_sign = UnconstrainedDensity(LogDensity(lambda x: 0.5 * x.square().sum(1), 1))
        >>> require_decay(wrong_sign, torch.ones(1, 1).double(), torch.zeros(1).double())
        Traceback (most recent call last):
        amfvi.sampler.integrability.NotIntegrableError: the log density does not fall off...
    """
    start = y[log_p.argmax()]
    lines = torch.stack(list(_lines(start, (y - start).abs().max(dim=0).values)))
    for end in _follow(density, start, lines):
        if end is not None:
            raise _no_decay_error(density, start, *end)


def _lines(start: Tensor, distance: Tensor) -> Iterator[Tensor]:
    """Vectors (d,) along which to leave ``start``; ``distance`` (d,) is their length."""
    length = torch.maximum(distance, start.abs())
    length = torch.where(length.isfinite() & (length > 0), length, 1.0)
    for axis in torch.diag(length):
        yield axis
        yield -axis
    yield torch.where(start == 0, length, start)


def _follow(
    density: UnconstrainedDensity, start: Tensor, lines: Tensor
) -> list[tuple[Tensor, float] | None]:
    """The last point of each line (k, d) where mass always grows, with its log density, or None.

    All lines that are still followed are so together.
    """
    ends: list[tuple[Tensor, float] | None] = [None] * len(lines)
    log_mass = [-math.inf] * len(lines)
    last: list[tuple[Tensor, float] | None] = [None] * len(lines)
    followed = list(range(len(lines)))
    for doubling in range(N_DOUBLINGS + 1):
        points = start + 2.0**doubling * lines[followed]
        grows = []
        for line, point, value in zip(followed, points, _evaluate(density, points), strict=True):
            if value is None:
                ends[line] = last[line] if doubling >= MIN_DOUBLINGS else None
                continue
            new_log_mass = value + doubling * math.log(2)
            if not new_log_mass > log_mass[line] + MIN_GROWTH:
                continue
            log_mass[line], last[line] = new_log_mass, (point, value)
            if value == math.inf or doubling == N_DOUBLINGS:
                ends[line] = last[line]
                continue
            grows.append(line)
        followed = grows
        if not followed:
            break
    return ends


def _evaluate(density: UnconstrainedDensity, points: Tensor) -> list[float | None]:
    """The log densities at points (k, d), which may be infinite.

    None where they say nothing about decay: where the function refuses or returns NaN, or the
    user's parameters cannot be told apart from their bounds, or their squares overflow.
    """
    values: list[float | None] = [None] * len(points)
    rows = is_resolved(density.transform, points).nonzero().squeeze(1)
    x, log_det = density.transform.from_unconstrained_with_log_det(points[rows])
    log_p = _call(density, x) + log_det
    overflows = (log_p == -math.inf) & (x.abs() > MAX_MAGNITUDE).any(dim=1)
    for row, value, nothing in zip(rows, log_p, overflows | log_p.isnan(), strict=True):
        values[int(row)] = None if bool(nothing) else float(value)
    return values


def _call(density: UnconstrainedDensity, x: Tensor) -> Tensor:
    """Values of the user's function at points (k, d), NaN where it raises; (k,)."""
    if not len(x):
        return x.new_zeros(0)
    density.budget.spend(len(x))
    density.log_density.n_evaluations += len(x)
    call = density.log_density.vectorized.call
    # Together where a pool shares them; one point alone may be where the function raises.
    for parts in ([x], x.split(1)) if density.n_workers > 1 else (x.split(1),):
        values = []
        for part in parts:
            try:
                with np.errstate(all="ignore"):
                    values.append(call(part.to(density.device)).cpu().double())
            except Exception:  # so far out a user's function may fail: no value there
                if len(part) > 1:
                    break
                values.append(x.new_full((1,), math.nan))
        else:
            break
    return torch.cat(values)


def _no_decay_error(
    density: UnconstrainedDensity, start: Tensor, end: Tensor, value: float
) -> NotIntegrableError:
    x_start, x = density.transform.from_unconstrained(torch.stack([start, end]))
    if len(x) <= MAX_NAMED:
        where = density.describe(x)
    else:
        farthest = int(((x - x_start).abs() / (1 + x_start.abs())).argmax())
        where = f"{density.log_density.names[farthest]} = {float(x[farthest]):.6g}"
    return NotIntegrableError(
        f"the log density does not fall off ({value:.3g} at {where}), so the density cannot be "
        "integrated; is the sign right (a log density, not its negative), and is every prior "
        "proper?"
    )
