"""The device on which a user's function is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from amfvi.density.adapters import Values
from amfvi.density.log_density import LogDensity

__all__ = ["place"]

TOLERANCE = 1e-4
"""Largest relative difference between a value on an accelerator and on the CPU; data in single
precision explain about as much."""


def place(log_density: LogDensity, device: torch.device | str) -> torch.device:
    """Choose ``device`` if the function gives the same values there, else the CPU.

    A function of torch may use data that lie on the CPU, and then fails at points elsewhere.
    One of numpy or of JAX, one that takes a point at a time and one that workers share are
    handed arrays of the CPU in any case.

    Raises:
        InputError: the function cannot be called on the CPU either.

    Examples:
        >>> place(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=2), "cpu")
        device(type='cpu')
    """
    wanted, cpu = torch.device(device), torch.device("cpu")
    density = log_density.vectorized
    if wanted.type == "cpu" or not density.takes_tensors:
        return cpu
    points = log_density.test_points().to(wanted)
    try:
        values = _values(density.call, points, differentiate=density.differentiable)
    except Exception:  # whatever it is, there is none of it on the CPU
        return cpu
    finally:
        log_density.n_evaluations += len(points)
    there = torch.tensor(log_density.test_values, dtype=torch.float64)
    same = values.shape == there.shape and torch.allclose(
        values, there, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
    )
    return wanted if same else cpu


def _values(call: Values, points: Tensor, *, differentiate: bool) -> Tensor:
    """Values (n,) on the CPU, and the gradient computed for what it may raise."""
    x = points.clone().requires_grad_(differentiate)
    with torch.set_grad_enabled(differentiate):
        values = call(x)
        if values.device != x.device:
            raise RuntimeError(f"values lie on {values.device}, points on {x.device}")
        if values.requires_grad:
            torch.autograd.grad(values.sum(), x)
    return values.detach().cpu()
