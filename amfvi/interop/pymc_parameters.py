"""The free variables of a PyMC model in their own space, with their constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.distributions import constraints as torch_constraints

from amfvi.constraints.vectors import ordered
from amfvi.errors import UsageError
from amfvi.variables import Variable, Variables

__all__ = ["ParameterSpace", "describe_variables", "to_own_space"]


@dataclass(frozen=True, kw_only=True)
class ParameterSpace:
    """A PyMC model whose values are its variables in their own space, where that is possible.

    Attributes:
        model: with its data and dimensions fixed. A variable whose constraint amfvi does not
            have, such as a Cholesky factor of a covariance, keeps PyMC's transform.
        transformed: names of the variables that do.
        values: PyMC's variables of the values, in the order of ``variables``.
        variables: the arrays that the parameters are entries of.
        constraints: by names of parameters.

    Examples:
        >>> sorted(ParameterSpace.__dataclass_fields__)
        ['constraints', 'model', 'transformed', 'values', 'variables']
    """

    model: Any
    transformed: tuple[str, ...]
    values: tuple[Any, ...]
    variables: Variables
    constraints: Mapping[tuple[str, ...], Any]


def to_own_space(model: Any) -> ParameterSpace:
    """Free the variables of a PyMC model from the transforms that amfvi has itself.

    The model is not changed.

    Raises:
        UsageError: it has no free variables, discrete ones, or a random density.

    Examples:
        >>> import pymc
        >>> with pymc.Model() as model:
        ...     x = pymc.HalfNormal("tau", 2.0, shape=2)
        >>> to_own_space(model).constraints
        {('tau[1]',): (0.0, inf), ('tau[2]',): (0.0, inf)}
    """
    from pymc.distributions.transforms import _default_transform
    from pymc.model.transform.conditioning import remove_value_transforms
    from pymc.model.transform.optimization import freeze_dims_and_data

    _require_supported(model)
    frozen = freeze_dims_and_data(_without_initial_values(model))
    held: dict[str, Any] = {}
    for rv in frozen.free_RVs:
        # A variable without a transform may have a support all the same.
        transform = frozen.rvs_to_transforms[rv] or _default_transform(rv.owner.op, rv)
        constraint = None if transform is None else _constraint_of(transform, rv)
        if constraint is not None:
            held[rv.name] = constraint
    changed = remove_value_transforms(frozen, [frozen[name] for name in held])
    free = [changed[rv.name] for rv in model.free_RVs]  # which changing reorders
    values = [changed.rvs_to_values[rv] for rv in free]
    shapes = _shapes_of(values, changed)
    left = tuple(rv.name for rv in free if changed.rvs_to_transforms[rv] is not None)
    each: list[Variable] = []
    constraints: dict[tuple[str, ...], Any] = {}
    for rv, value, shape in zip(free, values, shapes, strict=True):
        if rv.name in left:
            each.append(Variable(value.name, shape))
            continue
        each.append(Variable(rv.name, shape, _dims_of(changed, rv.name, shape)))
        if rv.name in held:
            constraints |= _constrain_entries(each[-1], held[rv.name])
    if not sum(variable.size for variable in each):
        raise UsageError("the PyMC model has no free variables")
    return ParameterSpace(
        model=changed,
        transformed=left,
        values=tuple(values),
        variables=Variables(tuple(each), _coords_of(changed, each)),
        constraints=constraints,
    )


def describe_variables(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
    """Arrays of a PyMC model by name and shape, with the dims and coords that it has for them.

    Examples:
        >>> import pymc
        >>> with pymc.Model(coords={"school": ["A", "B"]}) as model:
        ...     x = pymc.Normal("theta", dims="school")
        >>> describe_variables(model, {"theta": (2,)}).each
        (Variable(name='theta', shape=(2,), dims=('school',)),)
    """
    each = [Variable(name, shape, _dims_of(model, name, shape)) for name, shape in shapes.items()]
    return Variables(tuple(each), _coords_of(model, each))


def _require_supported(model: Any) -> None:
    """Refuse what has no density that amfvi can fit.

    Raises:
        UsageError: no free variables, discrete ones, or a random density.
    """
    from pymc.pytensorf import rvs_in_graph

    if not model.free_RVs:
        raise UsageError("the PyMC model has no free variables")
    discrete = [rv.name for rv in model.free_RVs if not str(rv.dtype).startswith("float")]
    if discrete:
        raise UsageError(
            f"discrete free variables cannot be fitted: {', '.join(discrete)}; sum them out of "
            "the model first, such as by marginalize() of pymc-extras"
        )
    if rvs_in_graph(model.logp()):
        raise UsageError(
            "the log density of the PyMC model is random, from a pm.Minibatch or pm.Simulator; "
            "give the model all its data and a likelihood"
        )


def _without_initial_values(model: Any) -> Any:
    """The same model without values to start from, which PyMC cannot copy."""
    bare = object.__new__(type(model))
    none = dict.fromkeys(model.rvs_to_initial_values)
    bare.__dict__.update(model.__dict__ | {"rvs_to_initial_values": none})
    return bare


def _constraint_of(transform: Any, rv: Any) -> Any:
    """The constraint that a transform of PyMC removes from a variable.

    Returns:
        Bounds (lower, upper), each a number or an array, or a constraint on vectors along the
        last dimension; None for one that amfvi does not have.
    """
    from pymc.distributions import transforms
    from pymc.logprob.transforms import LogOddsTransform, LogTransform

    if isinstance(transform, LogTransform | transforms.LogExpM1):
        return 0.0, math.inf
    if isinstance(transform, LogOddsTransform):
        return 0.0, 1.0
    if isinstance(transform, transforms.IntervalTransform):
        return _constant_bounds(transform, rv)
    if isinstance(transform, transforms.CircularTransform):
        return -math.pi, math.pi
    is_vector = rv.ndim > 0 and rv.type.shape[-1] not in (0, 1, None)
    if isinstance(transform, transforms.SimplexTransform | transforms.SumTo1) and is_vector:
        return torch_constraints.simplex
    if isinstance(transform, transforms.Ordered) and is_vector:
        plain = transform.ascending and not transform.positive
        return ordered if plain else None
    return None


def _constant_bounds(transform: Any, rv: Any) -> tuple[Any, Any] | None:
    """The ends of an interval; None if they depend on other variables."""
    import pytensor.tensor as pt
    from pymc.pytensorf import rvs_in_graph

    ends = transform.args_fn(*rv.owner.inputs)
    symbolic = [
        pt.as_tensor(infinite if end is None else end)
        for end, infinite in zip(ends, (-math.inf, math.inf), strict=True)
    ]
    if rvs_in_graph(symbolic):
        return None
    lower, upper = (np.asarray(end.eval(), dtype=np.float64) for end in symbolic)
    return lower, upper


def _constrain_entries(variable: Variable, constraint: Any) -> dict[tuple[str, ...], Any]:
    """The constraint on an array as constraints on its entries, or on its rows."""
    if not isinstance(constraint, tuple):
        length = variable.shape[-1]
        rows = range(0, variable.size, length)
        return {variable.labels[start : start + length]: constraint for start in rows}
    lower, upper = (np.broadcast_to(end, variable.shape).ravel().tolist() for end in constraint)
    pairs = zip(lower, upper, strict=True)
    return {(label,): pair for label, pair in zip(variable.labels, pairs, strict=True)}


def _shapes_of(values: Sequence[Any], model: Any) -> list[tuple[int, ...]]:
    """Shapes of the values of a model; computed where they are not known beforehand."""
    if any(None in value.type.shape for value in values):
        point = model.initial_point(0)
        return [np.shape(point[value.name]) for value in values]
    return [value.type.shape for value in values]


def _dims_of(model: Any, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the dimensions of a variable, if it has them all."""
    dims = tuple(model.named_vars_to_dims.get(name, ()))
    return dims if len(dims) == len(shape) and None not in dims else ()


def _coords_of(model: Any, each: Sequence[Variable]) -> dict[str, NDArray[Any]]:
    """Coordinates along the dimensions of some variables."""
    used = {dim for variable in each for dim in variable.dims}
    coords = {}
    for dim, values in model.coords.items():
        if dim in used and values is not None:
            array = np.asarray(values)
            plain = array.ndim == 1 and array.dtype.kind != "O"
            coords[dim] = array if plain else np.array([str(value) for value in values])
    return coords
