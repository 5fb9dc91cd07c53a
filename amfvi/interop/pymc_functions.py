"""Compiled functions of a PyMC model, over batches of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import AmfviWarning
from amfvi.interop.pymc_parameters import ParameterSpace

__all__ = ["DensityFunctions", "compile_batches"]

CHUNK_NUMBERS = 1 << 21
"""Numbers that the data of the points of one call may come to: 16 MiB for each step of a graph."""

CHUNK_ROWS = (16, 4096)
"""Fewest and most points in one call."""

Batches = Callable[[Any], list[NDArray[Any]]]


def compile_batches(space: ParameterSpace, outputs: Sequence[Any]) -> Batches:
    """Compile a function from points (n, d) to arrays (n, *shape), one for each output.

    Args:
        outputs: graphs of the values of ``space.model``.

    Examples:
        >>> import pymc
        >>> from amfvi.interop.pymc_parameters import to_own_space
        >>> with pymc.Model() as model:
        ...     x = pymc.Normal("x")
        >>> space = to_own_space(model)
        >>> (squares,) = compile_batches(space, [space.model.rvs_to_values[space.model["x"]] ** 2])(
        ...     [[1.0], [2.0]])
        >>> squares
        array([1., 4.])
    """
    from pymc.pytensorf import join_nonshared_inputs

    model = space.model
    point = {
        value.name: np.zeros(variable.shape, value.dtype)
        for value, variable in zip(space.values, space.variables.each, strict=True)
    }
    joined, vector = join_nonshared_inputs(point=point, outputs=outputs, inputs=space.values)
    ndims = [output.ndim for output in outputs]
    d = sum(variable.size for variable in space.variables.each)
    compiled = _compile_vectorized(model, joined, vector, d) or _compile_loop(model, joined, vector)
    data = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    per_point = max(1, d + sum(int(np.prod([n or 1 for n in v.type.shape])) for v in data))
    rows = int(np.clip(CHUNK_NUMBERS // per_point, *CHUNK_ROWS))

    def batches(x: Any) -> list[NDArray[Any]]:
        points = np.ascontiguousarray(x, dtype=vector.dtype)
        if points.ndim != 2:
            raise TypeError(f"expected points (n, d), found shape {points.shape}")
        chunks = [points[start : start + rows] for start in range(0, max(1, len(points)), rows)]
        parts = [
            [
                # What depends on no parameter has no dimension for the points.
                out if np.ndim(out) > ndim else np.broadcast_to(out, (len(chunk), *np.shape(out)))
                for out, ndim in zip(compiled(chunk), ndims, strict=True)
            ]
            for chunk in chunks
        ]
        return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]

    return batches


def _compile_vectorized(
    model: Any, outputs: Sequence[Any], vector: Any, d: int
) -> Callable[[Any], Sequence[Any]] | None:
    """A compiled function of a batch; None where PyTensor has none."""
    import pytensor.tensor as pt
    from pymc.pytensorf import compile
    from pytensor.graph.replace import vectorize_graph

    matrix = pt.matrix("points", shape=(None, d), dtype=vector.dtype)
    try:
        vectorized = vectorize_graph(list(outputs), replace={vector: matrix})
        with model:  # whose check_bounds decides whether parameters are checked
            return compile([matrix], vectorized, on_unused_input="ignore")
    except Exception:  # whatever an operation that has no version for batches raises
        return None


def _compile_loop(
    model: Any, outputs: Sequence[Any], vector: Any
) -> Callable[[Any], Sequence[Any]]:
    """A compiled function of one point, called for each of a batch."""
    from pymc.pytensorf import compile

    with model:
        of_point = compile([vector], list(outputs), on_unused_input="ignore")

    def of_batch(x: NDArray[Any]) -> list[NDArray[Any]]:
        rows = [of_point(point) for point in x]
        return [np.stack(each) for each in zip(*rows, strict=True)]

    return of_batch


class DensityFunctions:
    """The log density of a PyMC model and its gradient, compiled at the first call.

    Where it is not a number it counts as zero density, as it does for PyMC's samplers.

    Examples:
        >>> import pymc
        >>> from amfvi.interop.pymc_parameters import to_own_space
        >>> with pymc.Model() as model:
        ...     x = pymc.HalfFlat("x")
        ...     tilt = pymc.Potential("tilt", -3.0 * x)
        >>> functions = DensityFunctions(to_own_space(model))
        >>> functions.has_gradient, functions.values([[2.0]])
        (True, array([-6.]))
    """

    def __init__(self, space: ParameterSpace) -> None:
        self._space = space
        self._log_density = space.model.logp()
        self._has_warned = False

    @cached_property
    def _gradient(self) -> Any:
        """The graph of the gradient (d,); None if an operation has none."""
        import pytensor
        import pytensor.tensor as pt
        from pymc.pytensorf import rewrite_pregrad

        values = list(self._space.values)
        cost = rewrite_pregrad(self._log_density)
        try:
            parts = pytensor.grad(cost, values, disconnected_inputs="ignore")
        except (NotImplementedError, pytensor.gradient.NullTypeGradError):
            return None
        return pt.concatenate([pt.flatten(part) for part in parts])

    @property
    def has_gradient(self) -> bool:
        """Whether every operation of the model can be differentiated."""
        return self._gradient is not None

    @cached_property
    def _compiled(self) -> Batches:
        return compile_batches(self._space, [self._log_density])

    @cached_property
    def _compiled_pair(self) -> Batches:
        return compile_batches(self._space, [self._log_density, self._gradient])

    def values(self, x: Any) -> NDArray[Any]:
        """Log densities in nats (n,) at points (n, d)."""
        (out,) = self._compiled(x)
        return self._without_nan(out)

    def values_and_gradients(self, x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Log densities (n,) and gradients (n, d) at points (n, d)."""
        out, gradients = self._compiled_pair(x)
        return self._without_nan(out), gradients

    def _without_nan(self, out: NDArray[Any]) -> NDArray[Any]:
        bad = np.isnan(out)
        if not bad.any():
            return out
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "the log density of the PyMC model is not a number at some points; they count as "
                "points of zero density, as in PyMC's samplers",
                AmfviWarning,
                stacklevel=2,
            )
        return np.where(bad, -np.inf, out)
