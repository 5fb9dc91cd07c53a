"""Named arrays of parameters, as a model has them, and their entries as d flat parameters."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import InputError, UsageError

__all__ = ["Variable", "Variables", "group_labels", "label_entries", "parse_names"]

ENTRY = re.compile(r"(.+)\[(\d+(?:,\d+)*)\]")
"""The name of one entry of an array, counted from one."""


@dataclass(frozen=True)
class Variable:
    """One array of parameters.

    Attributes:
        name: of the array.
        shape: () for one number.
        dims: names of its dimensions, as many as ``shape`` has; empty if they have none.

    Raises:
        UsageError: another number of names.

    Examples:
        >>> Variable("theta", (2,), ("school",)).labels
        ('theta[1]', 'theta[2]')
    """

    name: str
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dims and len(self.dims) != len(self.shape):
            raise UsageError(f"{self.name} has shape {self.shape}, but dims {self.dims}")

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its entries, row by row."""
        return label_entries(self.name, self.shape)


def label_entries(name: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Names of the entries of an array, counted from one, the last dimension fastest.

    Examples:
        >>> label_entries("mu", ()), label_entries("L", (1, 2))
        (('mu',), ('L[1,1]', 'L[1,2]'))
    """
    if not shape:
        return (name,)
    places = itertools.product(*(range(1, size + 1) for size in shape))
    return tuple(f"{name}[{','.join(map(str, place))}]" for place in places)


def group_labels(labels: Sequence[str]) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """Shape of each array, and the columns of its entries with the last dimension fastest.

    Args:
        labels: of entries in any order as Stan writes them, such as ``theta.2.1``.

    Examples:
        >>> group_labels(["mu", "L.1.1", "L.2.1", "L.1.2", "L.2.2"])
        {'mu': ((), [0]), 'L': ((2, 2), [1, 3, 2, 4])}
    """
    places: dict[str, dict[tuple[int, ...], int]] = {}
    for column, label in enumerate(labels):
        name, *indices = label.replace(":", ".").split(".")
        places.setdefault(name, {})[tuple(int(i) for i in indices)] = column
    grouped = {}
    for name, columns in places.items():
        shape = (
            tuple(np.max(list(columns), axis=0).astype(int).tolist()) if () not in columns else ()
        )
        ordered_columns = [columns[place] for place in sorted(columns)]
        if len(ordered_columns) != len(label_entries(name, shape)):  # ragged, such as a tuple
            shape = (len(ordered_columns),)
        grouped[name] = (shape, ordered_columns)
    return grouped


@dataclass(frozen=True, eq=False)
class Variables:
    """Arrays whose entries, one array after the other, are the d parameters of a posterior.

    Attributes:
        each: the arrays in order.
        coords: coordinates along dimensions that have any, by the name of the dimension.

    Raises:
        UsageError: two arrays of one name, or coordinates of another length.

    Examples:
        >>> variables = Variables.from_names(["mu", "L[1,1]", "L[1,2]"])
        >>> variables.each
        (Variable(name='mu', shape=(), dims=()), Variable(name='L', shape=(1, 2), dims=()))
        >>> {name: part.shape for name, part in variables.split(np.zeros((5, 3))).items()}
        {'mu': (5,), 'L': (5, 1, 2)}
    """

    each: tuple[Variable, ...]
    coords: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [variable.name for variable in self.each]
        if len(set(names)) != len(names):
            raise UsageError(f"two variables of one name among {', '.join(names)}")
        for variable in self.each:
            for dim, size in zip(variable.dims, variable.shape, strict=False):
                if dim in self.coords and len(self.coords[dim]) != size:
                    raise UsageError(
                        f"dimension {dim!r} of {variable.name} has {size} entries, but "
                        f"{len(self.coords[dim])} coordinates"
                    )

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Variables:
        """Put together what names show to be entries of one array.

        ``theta[1]``, ``theta[2]``, … in a row become one vector, ``L[1,1]``, ``L[1,2]``, … one
        matrix; anything else stays a number by itself.
        """
        stems = [_stem(name) for name in names]
        found: list[Variable] = []
        for stem, group in itertools.groupby(names, key=_stem):
            members = tuple(group)
            match = ENTRY.fullmatch(members[-1])
            shape = tuple(int(i) for i in match[2].split(",")) if match else ()
            is_whole = stems.count(stem) == len(members) and label_entries(stem, shape) == members
            if match and is_whole:
                found.append(Variable(stem, shape))
            else:
                found += [Variable(name) for name in members]
        return cls(tuple(found))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d parameters."""
        return tuple(label for variable in self.each for label in variable.labels)

    def split(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Arrays (..., *shape) by variable from parameters (..., d).

        Raises:
            InputError: another number of parameters.
        """
        sizes = [variable.size for variable in self.each]
        if x.shape[-1] != sum(sizes):
            raise InputError(f"expected {sum(sizes)} parameters, found {x.shape[-1]}")
        parts = np.split(x, np.cumsum(sizes)[:-1], axis=-1)
        return {
            variable.name: part.reshape(*x.shape[:-1], *variable.shape)
            for variable, part in zip(self.each, parts, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """Describe the arrays in JSON values."""
        return {
            "variables": [
                {"name": variable.name, "shape": variable.shape, "dims": variable.dims}
                for variable in self.each
            ],
            "coords": {dim: _coordinates_to_json(values) for dim, values in self.coords.items()},
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Variables:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        each = tuple(
            Variable(str(entry["name"]), tuple(entry["shape"]), tuple(entry["dims"]))
            for entry in fields["variables"]
        )
        coords = {
            str(dim): np.array(entry["values"], dtype=np.dtype(entry["dtype"]))
            for dim, entry in fields["coords"].items()
        }
        return cls(each, coords)


def parse_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of parameters, as texts.

    Raises:
        UsageError: a single text, or an entry that is none.

    Examples:
        >>> parse_names(["mu", "tau"])
        ('mu', 'tau')
        >>> parse_names("mu")
        Traceback (most recent call last):
        amfvi.errors.UsageError: names must be a list of texts, found 'mu'
    """
    parsed = () if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in parsed):
        raise UsageError(f"names must be a list of texts, found {names!r}")
    return parsed


def _stem(name: str) -> str:
    """The array that a name is an entry of, or the name itself."""
    match = ENTRY.fullmatch(name)
    return match[1] if match else name


def _coordinates_to_json(values: NDArray[Any]) -> dict[str, Any]:
    """Numbers, strings, truth values or dates, with their type."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        array = np.array([str(value) for value in array])
    plain = array.astype(str) if array.dtype.kind in "Mm" else array
    return {"dtype": array.dtype.str, "values": plain.tolist()}
