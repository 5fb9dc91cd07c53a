"""A density of numpy with its gradient, as a function of JAX whose points are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["CountedDensity", "Density", "float64"]

Array = NDArray[np.float64]


class Density(Protocol):
    """An unnormalized log density over all of R^d, and its gradient."""

    def log_density(self, y: Array) -> Array:
        """Log densities (n,), nats, of points (n, d)."""

    def log_density_gradient(self, y: Array) -> tuple[Array, Array]:
        """The same, with gradients (n, d)."""


@contextmanager
def float64() -> Iterator[None]:
    """Let JAX compute in float64, in its callbacks too, whose threads know global settings only."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


class CountedDensity:
    """A density that counts its points, for numpy and for JAX."""

    def __init__(self, density: Density, dim: int) -> None:
        self._density = density
        self.dim = dim
        self.n_values = 0
        self.n_gradients = 0

    def value(self, y: Any) -> Array:
        """Log densities (...) of points (..., d); −∞ where they are not numbers."""
        points, finite = self._points(y)
        values = np.full(len(points), -np.inf)
        self.n_values += int(finite.sum())
        values[finite] = self._density.log_density(points[finite])
        return np.where(np.isnan(values), -np.inf, values).reshape(np.shape(y)[:-1])

    def value_and_gradient(self, y: Any) -> tuple[Array, Array]:
        """The same, with gradients (..., d), zero where the density is."""
        points, finite = self._points(y)
        values, gradients = np.full(len(points), -np.inf), np.zeros(points.shape)
        self.n_gradients += int(finite.sum())
        values[finite], gradients[finite] = self._density.log_density_gradient(points[finite])
        valid = np.isfinite(values) & np.isfinite(gradients).all(axis=1)
        values, gradients = np.where(valid, values, -np.inf), np.where(valid[:, None], gradients, 0)
        return values.reshape(np.shape(y)[:-1]), gradients.reshape(np.shape(y))

    def _points(self, y: Any) -> tuple[Array, NDArray[np.bool_]]:
        points = np.array(y, dtype=np.float64).reshape(-1, self.dim)
        return points, np.asarray(np.isfinite(points).all(axis=1))

    def for_jax(self) -> Callable[[Any], Any]:
        """Make a function from a point (d,) of JAX to its log density, which JAX differentiates."""
        import jax

        number = jax.ShapeDtypeStruct((), np.float64)
        vector = jax.ShapeDtypeStruct((self.dim,), np.float64)

        def value(y: Any) -> Any:
            return jax.pure_callback(self.value, number, y, vmap_method="expand_dims")

        def forward(y: Any) -> Any:
            return jax.pure_callback(
                self.value_and_gradient, (number, vector), y, vmap_method="expand_dims"
            )

        log_density = jax.custom_vjp(value)
        log_density.defvjp(forward, lambda gradient, slope: (slope * gradient,))
        return log_density
