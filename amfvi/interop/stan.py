"""Stan models as log densities, with gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.density.joint import with_gradient
from amfvi.density.log_density import LogDensity
from amfvi.errors import MissingFileError, UsageError
from amfvi.interop.own_space import OwnSpace, find_own_space
from amfvi.interop.stan_library import StanLibrary, compile_stan
from amfvi.json_files import read_json
from amfvi.variables import group_labels

__all__ = ["BridgeStanModel", "CompiledModel", "from_stan"]

Array = NDArray[np.float64]


class CompiledModel(Protocol):
    """What :func:`from_stan` needs of a compiled model with its data.

    Examples:
        >>> sorted(name for name in dir(CompiledModel) if not name.startswith("_"))
        ['constrain', 'log_density', 'log_density_gradient', 'names', 'unconstrained_names']
    """

    @property
    def unconstrained_names(self) -> tuple[str, ...]:
        """Names of the coordinates of unconstrained space."""

    def names(self, *, transformed: bool = False, generated: bool = False) -> tuple[str, ...]:
        """Names of entries, such as ``theta.1.2``."""

    def log_density(self, y: Array) -> Array:
        """Log densities (n,) over unconstrained space of points (n, d)."""

    def log_density_gradient(self, y: Array) -> tuple[Array, Array]:
        """The same with gradients (n, d)."""

    def constrain(self, y: Array, *, transformed: bool = False, generated: bool = False) -> Array:
        """Values (n, m) in the order of :meth:`names`."""


def from_stan(model: Any, data: Any = None, *, seed: int = 0) -> LogDensity:
    """Make a log density of the joint density of a Stan program given its data.

    Its parameters are the program's own, in their own space: ``mu`` for a number,
    ``theta[1]``, … for a vector. Their constraints are found from Stan's map, where they are
    ones that amfvi has; other parameters, such as covariance matrices, are replaced by their
    unconstrained coordinates, ``unconstrained_Sigma[1]``, …. All constants are kept, so that
    the evidence is that of the program, but for what ``target +=`` and ``_lupdf`` leave out.

    ``density.transformed(draws)`` gives transformed parameters and generated quantities, as
    does ``posterior.to_arviz(transformed=True)``.

    Args:
        model: PyStan's model object (``stan.build``), which has its data; a ``StanModel`` of
            BridgeStan; or the code of a program, or the path of a ``.stan`` file. A program is
            compiled at first, in about a minute, and kept for later processes.
        data: for code: a mapping from names to numbers and arrays, or the path of a JSON file.
        seed: of what is random in transformed data and generated quantities.

    Raises:
        UsageError: PyStan or a C++ compiler is missing, or data are given twice or not at all.
        InputError: the program or the data are missing or not valid.

    Examples:
        >>> from_stan.__annotations__["return"]  # the how-to on Stan has one that runs
        'LogDensity'
    """
    compiled = _compile(model, data, seed)
    if not compiled.unconstrained_names:
        raise UsageError("the Stan program has no parameters")
    space = find_own_space(compiled.constrain, compiled.names(), compiled.unconstrained_names)
    function = _Density(compiled, space)
    variables = space.variables
    return LogDensity(
        function,
        len(variables.names),
        variables=variables,
        constraints=space.constraints,
        transformed=function.transformed,
    )


def _compile(model: Any, data: Any, seed: int) -> CompiledModel:
    """The compiled model with its data, whatever it is made from."""
    if hasattr(model, "log_density_gradient") and hasattr(model, "param_constrain"):
        _require_no_data(data)
        return BridgeStanModel(model)
    if hasattr(model, "program_code") and hasattr(model, "data"):
        _require_no_data(data)
        return StanLibrary(compile_stan(model.program_code), model.data, seed)
    if isinstance(model, Path) or (isinstance(model, str) and model.endswith(".stan")):
        path = Path(model)
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file, expected a Stan program")
        model = path.read_text(encoding="utf-8")
    if not isinstance(model, str):
        raise UsageError(
            "expected a model of PyStan or BridgeStan, the code of a Stan program or the path of "
            f"a .stan file, found {type(model).__name__}"
        )
    if isinstance(data, Path) or (isinstance(data, str) and data.endswith(".json")):
        data = read_json(Path(data))
    if isinstance(data, str):
        data = json.loads(data)
    if data is not None and not isinstance(data, Mapping):
        raise UsageError(f"data must be a mapping or a JSON file, found {type(data).__name__}")
    return StanLibrary(compile_stan(model), data or {}, seed)


def _require_no_data(data: Any) -> None:
    if data is not None:
        raise UsageError("the model has its data already; leave out data=")


class _Density:
    """A Stan model as a function of points (n, d) in the space of its own parameters."""

    def __init__(self, compiled: CompiledModel, space: OwnSpace) -> None:
        self._compiled = compiled
        self._space = space
        self._call = with_gradient(self._values, self._joint)

    def __call__(self, x: Tensor) -> Tensor:
        """Log densities (n,); autograd passes through."""
        y, log_det = self._space.to_unconstrained(x)
        return self._call(y) + log_det

    def transformed(self, x: Array) -> dict[str, Array]:
        """Transformed parameters and generated quantities, (n, …) each, of draws (n, d).

        Parameters that have been replaced by unconstrained coordinates are among them.
        """
        y, _ = self._space.to_unconstrained(torch.as_tensor(x, dtype=torch.float64))
        values = self._compiled.constrain(y.numpy(), generated=True)
        known = {part.variable.name for part in self._space.parts}
        return {
            name: values[:, columns].reshape(len(values), *shape)
            for name, (shape, columns) in group_labels(self._compiled.names(generated=True)).items()
            if name not in known
        }

    def _values(self, y: Tensor) -> Tensor:
        return torch.from_numpy(self._compiled.log_density(y.numpy()))

    def _joint(self, y: Tensor) -> Tensor:
        values, gradients = self._compiled.log_density_gradient(y.numpy())
        return torch.from_numpy(np.column_stack([values, gradients]))


class BridgeStanModel:
    """A model of BridgeStan, one point at a time, as :class:`CompiledModel`.

    Args:
        model: ``bridgestan.StanModel``, or anything with the same methods.

    Examples:
        >>> BridgeStanModel.__init__.__annotations__["model"]
        'Any'
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.unconstrained_names = tuple(model.param_unc_names())

    def names(self, *, transformed: bool = False, generated: bool = False) -> tuple[str, ...]:
        return tuple(self._model.param_names(include_tp=transformed or generated,
                                             include_gq=generated))  # fmt: skip

    def log_density(self, y: Array) -> Array:
        return np.array([self._evaluate(self._model.log_density, row) for row in y], dtype=float)

    def log_density_gradient(self, y: Array) -> tuple[Array, Array]:
        nothing = (-np.inf, np.zeros(y.shape[1]))
        pairs = [
            self._evaluate(self._model.log_density_gradient, row, rejected=nothing) for row in y
        ]
        values = np.array([value for value, _ in pairs], dtype=np.float64)
        return values, np.array([gradient for _, gradient in pairs]).reshape(y.shape)

    def constrain(self, y: Array, *, transformed: bool = False, generated: bool = False) -> Array:
        options: dict[str, Any] = {"include_tp": transformed or generated, "include_gq": generated}
        if generated:
            options["rng"] = self._model.new_rng(seed=0)
        return np.stack([self._model.param_constrain(row, **options) for row in y])

    def _evaluate(self, function: Any, row: Array, rejected: Any = -np.inf) -> Any:
        """The result at one point; ``rejected`` where Stan rejects it."""
        try:
            out = function(row, propto=False, jacobian=True)
        except RuntimeError:  # BridgeStan's word for a rejected point
            return rejected
        value = out[0] if isinstance(out, tuple) else out
        return rejected if np.isnan(value) else out
