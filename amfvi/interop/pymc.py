"""PyMC models as log densities."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.density.log_density import LogDensity
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.interop.pymc_functions import DensityFunctions, compile_batches
from amfvi.interop.pymc_parameters import ParameterSpace, describe_variables, to_own_space
from amfvi.variables import Variables

__all__ = ["PyMCDensity", "from_pymc", "transformed_variables"]


class PyMCDensity(LogDensity):
    """The log joint density of a PyMC model given its observations; see :func:`from_pymc`.

    Examples:
        >>> import pymc
        >>> with pymc.Model() as model:
        ...     tau = pymc.HalfNormal("tau", 2.0)
        ...     log_tau = pymc.Deterministic("log_tau", pymc.math.log(tau))
        >>> density = from_pymc(model)
        >>> density.transformed([[1.0], [1.0]])
        {'log_tau': array([0., 0.])}
    """

    def __init__(self, space: ParameterSpace) -> None:
        functions = DensityFunctions(space)
        gradient: Callable[[Any], Any] | bool = functions.values_and_gradients
        if not functions.has_gradient:
            gradient = False
            warnings.warn(
                "an operation of the PyMC model has no gradient; the fit goes on without",
                AmfviWarning,
                stacklevel=3,
            )
        super().__init__(
            functions.values,
            len(space.variables.names),
            variables=space.variables,
            constraints=space.constraints,
            value_and_grad=gradient,
        )
        self._space = space

    def transformed(self, draws: Any) -> dict[str, NDArray[Any]]:
        """Compute the variables of the model that are functions of its parameters.

        These are its deterministics, and in their own space the variables that are parameters
        under PyMC's transform.

        Args:
            draws: parameters (..., d), such as draws of a posterior fitted to this density.

        Returns:
            Arrays (..., *shape) by name, in the order of :attr:`transformed_variables`.

        Raises:
            InputError: another number of parameters.
        """
        x = np.asarray(draws, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise InputError(f"draws must be (..., {self.dim}), found shape {x.shape}")
        compiled, names = self._compiled_transforms
        flat = x.reshape(-1, self.dim)
        arrays = compiled(flat) if names else []
        return {
            name: array.reshape(*x.shape[:-1], *array.shape[1:])
            for name, array in zip(names, arrays, strict=True)
        }

    @cached_property
    def transformed_variables(self) -> Variables:
        """The arrays that :meth:`transformed` returns, with PyMC's dims and coords."""
        point = self.test_points()[:1].numpy()
        shapes = {name: array.shape[1:] for name, array in self.transformed(point).items()}
        return describe_variables(self._space.model, shapes)

    @cached_property
    def _compiled_transforms(self) -> tuple[Callable[[Any], list[NDArray[Any]]], list[str]]:
        model = self._space.model
        found = [*(model[name] for name in self._space.transformed), *model.deterministics]
        graphs = model.replace_rvs_by_values(found)
        return compile_batches(self._space, graphs), [each.name for each in found]


def from_pymc(model: Any) -> PyMCDensity:
    """Make a log density, with its gradient, of a PyMC model given its observations.

    Its parameters are the model's free variables in their own space, flattened: ``mu`` for a
    number, ``theta[1]``, ``theta[2]``, … for a vector; dims and coords come along. Constraints
    are those that PyMC's transforms remove. A variable with a constraint that amfvi does not
    have, such as a Cholesky factor of a covariance, or bounds that depend on other variables,
    is taken as PyMC transforms it and under PyMC's name for that, ``x_interval__``;
    ``density.transformed(draws)`` gives it back, and the model's deterministics.

    The data of the model are those that it has when this is called.

    Args:
        model: a ``pymc.Model``; its potentials count.

    Raises:
        UsageError: PyMC is not installed, no free variables, discrete ones, or a density that
            is random (``pm.Minibatch``, ``pm.Simulator``).

    Warns:
        AmfviWarning: an operation of the model has no gradient.

    Examples:
        >>> import pymc
        >>> with pymc.Model(coords={"school": ["A", "B"]}) as model:
        ...     tau = pymc.HalfNormal("tau", 2.0)
        ...     theta = pymc.Normal("theta", 0.0, tau, dims="school")
        >>> density = from_pymc(model)
        >>> density.names, density.constraints.lower
        (('tau', 'theta[1]', 'theta[2]'), (0.0, -inf, -inf))
    """
    try:
        import pymc
    except ImportError as error:
        raise UsageError("this needs PyMC: pip install 'amfvi[pymc]'") from error
    if not isinstance(model, pymc.Model):
        raise UsageError(f"from_pymc needs a pymc.Model, found {type(model).__name__}")
    return PyMCDensity(to_own_space(model))


def transformed_variables(model: Any, draws: Any) -> dict[str, NDArray[Any]]:
    """Compute the variables of a PyMC model that are functions of the parameters of a fit.

    For a posterior that was loaded; one that was fitted in this process has a ``log_density``
    whose ``transformed`` does the same.

    Args:
        model: that :func:`from_pymc` made the log density of.
        draws: parameters (..., d) of the fit.

    Returns:
        Deterministics, and variables that :func:`from_pymc` left transformed in their own
        space, as arrays (..., *shape) by name.

    Raises:
        UsageError: as :func:`from_pymc`.
        InputError: another number of parameters.

    Examples:
        >>> import pymc
        >>> with pymc.Model() as model:
        ...     x = pymc.Normal("x", shape=2)
        ...     total = pymc.Deterministic("total", x.sum())
        >>> transformed_variables(model, [[1.0, 2.0]])
        {'total': array([3.])}
    """
    return from_pymc(model).transformed(draws)
