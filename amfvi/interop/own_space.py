"""The space of a model's own parameters, found from its map out of unconstrained space.

Stan tells values, not constraints. But a parameter that is exp(y) + L for every y is one with
lower bound L, and a vector that is torch's stick-breaking of y lies on the simplex. Where the
map is another, such as for covariance matrices, the unconstrained coordinates stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import biject_to, constraints

from amfvi.constraints.vectors import ordered
from amfvi.variables import Variable, Variables, group_labels

__all__ = ["OwnSpace", "Part", "find_own_space"]

N_PROBES = 12
"""Points at which the map is compared with those that are known."""

SAME = 1e-8
"""Largest relative difference of two maps that are one."""

DIGITS = 12
"""Digits of a bound that is read off a map."""

Array = NDArray[np.float64]
Map = Callable[[Array], Array]


@dataclass(frozen=True)
class Part:
    """One variable of a model, and its map out of unconstrained space.

    Attributes:
        variable: in the space that the density is over.
        coordinates: its columns of the library's unconstrained space, in the order of its
            entries where it has one of each.
        kind: "scale", "lower", "upper", "interval", "free", or the name of a constraint of
            torch on the last dimensions.
        shift, slope: of each entry, (size,): x = shift + slope · f(y).
        constraint: as :class:`amfvi.LogDensity` takes it; None for none.

    Examples:
        >>> sorted(Part.__dataclass_fields__)
        ['constraint', 'coordinates', 'kind', 'shift', 'slope', 'variable']
    """

    variable: Variable
    coordinates: tuple[int, ...]
    kind: str
    shift: Array
    slope: Array
    constraint: Any = None

    def to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The library's coordinates (n, k) of entries (n, size), and log |dy/dx|, (n,)."""
        shift, slope = torch.from_numpy(self.shift), torch.from_numpy(self.slope)
        if self.kind in VECTORS:
            return self._vectors_to_unconstrained(x)
        z = (x - shift) / slope
        if self.kind in ("lower", "upper"):
            y = (z if self.kind == "lower" else -z).log()
            return y, -y.sum(dim=1)
        if self.kind == "interval":
            inside = z.log() + torch.log1p(-z)
            return torch.logit(z), -(inside + slope.log()).sum(dim=1)
        return z, -slope.abs().log().sum().expand(len(x))

    def _vectors_to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        transform = biject_to(VECTORS[self.kind])
        each = x.reshape(len(x), *self.variable.shape)
        y = transform.inv(each)
        log_det = -transform.log_abs_det_jacobian(y, each)
        return y.reshape(len(x), -1), log_det.reshape(len(x), -1).sum(dim=1)


VECTORS: Mapping[str, constraints.Constraint] = {
    "simplex": constraints.simplex,
    "ordered": ordered,
    "corr_cholesky": constraints.corr_cholesky,
}
"""Constraints on vectors and matrices whose maps may be those of torch."""

BASES: Mapping[str, Callable[[Array], Array]] = {
    "scale": lambda y: y,
    "lower": np.exp,
    "upper": lambda y: -np.exp(y),
    "interval": lambda y: 1 / (1 + np.exp(-y)),
}
"""f(y) of the maps x = shift + slope · f(y) of single entries."""


@dataclass(frozen=True)
class OwnSpace:
    """All variables of a model in the space that its density is over.

    Attributes:
        parts: one for each variable.
        dim: of the library's unconstrained space.

    Examples:
        >>> space = find_own_space(np.exp, ["tau"], ["tau"])
        >>> space.variables.names, space.parts[0].kind
        (('tau',), 'lower')
        >>> y, log_det = space.to_unconstrained(torch.tensor([[2.0]]).double())
        >>> torch.allclose(y.exp(), torch.tensor(2.0).double()), float(log_det.exp())
        (True, 0.5)
    """

    parts: tuple[Part, ...]
    dim: int

    @property
    def variables(self) -> Variables:
        """The variables that the density is over."""
        return Variables(tuple(part.variable for part in self.parts))

    @property
    def constraints(self) -> dict[Any, Any]:
        """Their constraints, by the names of entries."""
        held: dict[Any, Any] = {}
        for part in self.parts:
            labels = part.variable.labels
            if part.kind in VECTORS:
                size = int(np.prod(part.variable.shape[-VECTORS[part.kind].event_dim :]))
                for start in range(0, len(labels), size):
                    held[labels[start : start + size]] = VECTORS[part.kind]
            elif part.constraint is not None:
                held |= dict(zip(labels, part.constraint, strict=True))
        return held

    def to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The library's coordinates of points (n, d), (n, k), and log |dy/dx|, (n,)."""
        columns: list[Tensor] = [x[:, :0]] * self.dim
        total = x.new_zeros(len(x))
        sizes = [part.variable.size for part in self.parts]
        for part, entries in zip(self.parts, x.split(sizes, dim=1), strict=True):
            y, log_det = part.to_unconstrained(entries)
            total = total + log_det
            for place, coordinate in enumerate(part.coordinates):
                columns[coordinate] = y[:, place : place + 1]
        return torch.cat(columns, dim=1), total


def find_own_space(
    constrain: Map, labels: Sequence[str], unconstrained_labels: Sequence[str]
) -> OwnSpace:
    """Find what is known of a model's map out of unconstrained space.

    Args:
        constrain: from points (n, k) to entries (n, m) in the order of ``labels``.
        labels: of entries, such as ``theta.1.2``.
        unconstrained_labels: of the k coordinates, likewise; those of one variable are
            recognized by its name.

    Examples:
        >>> space = find_own_space(lambda y: y, ["mu.1", "mu.2"], ["mu.1", "mu.2"])
        >>> space.variables.names, space.constraints
        (('mu[1]', 'mu[2]'), {})
    """
    dim = len(unconstrained_labels)
    y = np.random.default_rng(0).normal(size=(N_PROBES, dim))
    x = constrain(y)
    depends = constrain(y[0] + np.eye(dim)) != x[0]
    by_name = group_labels(labels)
    coordinates = group_labels(unconstrained_labels)
    parts = []
    for name, (shape, columns) in by_name.items():
        if (found := coordinates.get(name)) is None:  # an array without entries
            continue
        # Stan's order, which for arrays of vectors is not that of the labels.
        places = sorted(found[1])
        own = Variable(name, shape)
        rest = Variable(f"unconstrained_{name}", (len(places),) if found[0] else ())
        part = _find_entries(own, x[:, columns], y, places, depends[np.ix_(places, columns)])
        part = part or _find_vectors(own, x[:, columns], y, places)
        parts.append(part or _keep_unconstrained(rest, places))
    return OwnSpace(tuple(parts), dim)


def _find_entries(
    own: Variable, x: Array, y: Array, places: list[int], depends: NDArray[np.bool_]
) -> Part | None:
    """The part of a variable each of whose entries is mapped alone; None if they are not.

    Args:
        x: entries (n, size).
        y: all coordinates (n, k).
        places: of the variable's coordinates.
        depends: which entries depend on which of these, (len(places), size).
    """
    if not (depends.shape[0] == depends.shape[1] and (depends.sum(axis=0) == 1).all()):
        return None
    coordinates = tuple(places[i] for i in depends.argmax(axis=0))
    if len(set(coordinates)) < len(coordinates):
        return None
    for kind, basis in BASES.items():
        line = _fit_lines(basis(y[:, coordinates]), x)
        if line is not None and _is_allowed(kind, line[1]):
            return Part(own, coordinates, kind, *line, _bounds(kind, *line))
    return None


def _find_vectors(own: Variable, x: Array, y: Array, places: list[int]) -> Part | None:
    """The part of a variable whose vectors, or matrices, are mapped as torch does."""
    for kind, constraint in VECTORS.items():
        if _is_vector_map(constraint, own, x, y[:, places]):
            return Part(own, tuple(places), kind, np.zeros(0), np.zeros(0))
    return None


def _keep_unconstrained(rest: Variable, places: list[int]) -> Part:
    return Part(rest, tuple(places), "free", np.zeros(len(places)), np.ones(len(places)))


def _fit_lines(basis: Array, x: Array) -> tuple[Array, Array] | None:
    """Shift and slope of each column of x = shift + slope · basis; None if it is not so."""
    centered = basis - basis.mean(axis=0)
    slope = (centered * x).sum(axis=0) / (centered**2).sum(axis=0)
    slope = _rounded(slope)
    shift = x.mean(axis=0) - slope * basis.mean(axis=0)
    shift = np.where(np.abs(shift) < SAME * np.abs(slope), 0.0, _rounded(shift))
    scale = np.abs(x).max(axis=0) + np.abs(slope)
    if not np.all(np.isfinite(x)) or np.any(slope == 0):
        return None
    return (shift, slope) if np.all(np.abs(shift + slope * basis - x) <= SAME * scale) else None


def _rounded(values: Array) -> Array:
    """Values without their last digits, so that a bound of 1 is not 0.9999999999999998."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values])


def _is_allowed(kind: str, slope: Array) -> bool:
    """Whether slopes are those of a constraint: ±exp(y) has none of its own."""
    if kind in ("lower", "upper"):
        return bool(np.allclose(slope, 1.0, atol=SAME))
    return kind == "scale" or bool(np.all(slope > 0))


def _bounds(kind: str, shift: Array, slope: Array) -> list[tuple[float, float]] | None:
    """Bounds of each entry; None for none."""
    low, high = np.full(len(shift), -np.inf), np.full(len(shift), np.inf)
    if kind == "scale":
        return None
    if kind in ("lower", "interval"):
        low = shift
    if kind == "interval":
        high = shift + slope
    if kind == "upper":
        high = shift
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _is_vector_map(constraint: constraints.Constraint, own: Variable, x: Array, y: Array) -> bool:
    """Whether entries are torch's map of the coordinates onto a constraint."""
    event = constraint.event_dim
    if len(own.shape) < event:
        return False
    transform = biject_to(constraint)
    wanted = torch.Size(own.shape)
    try:
        given = transform.inverse_shape(wanted)
        if given.numel() != y.shape[1]:
            return False
        mapped = transform(torch.from_numpy(y).reshape(len(y), *given))
    except (ValueError, RuntimeError):
        return False
    return bool(
        torch.allclose(mapped, torch.from_numpy(x).reshape(len(x), *wanted), rtol=SAME, atol=SAME)
    )
