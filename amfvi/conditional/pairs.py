"""Pairs of a condition and parameters, validated, and their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from amfvi.constraints.constraints import Constraints, ConstraintsLike
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.draws.draws import Draws, DrawsLike, WeightsLike
from amfvi.errors import InputError, UsageError
from amfvi.experts.folds import Folds
from amfvi.randomness import generator_for
from amfvi.simulation.prior import Prior
from amfvi.two_stage.split import assign_folds

__all__ = ["PairSplit", "Pairs", "split_pairs"]

MIN_CONDITIONS_PER_ROLE = 5
"""Different conditions per fold and for the test set, below which they are taken for groups."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows (c, y): conditions and parameters.

    Attributes:
        given: conditions c, (n, g), float64.
        given_names: of the g numbers of a condition.
        draws: the parameters y, with names, constraints and weights.
        prior: what the parameters were drawn from; None if unknown.

    Examples:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> c = random.normal(size=(100, 1))
        >>> Pairs.from_arrays(c + random.normal(size=(100, 1)), c)
        <Pairs: 100 rows, 1 parameter given 1>
    """

    given: Tensor
    given_names: tuple[str, ...]
    draws: Draws
    prior: Prior | None = None

    @classmethod
    def from_arrays(
        cls,
        y: DrawsLike,
        given: ArrayLike | Tensor,
        *,
        given_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        constraints: ConstraintsLike = None,
        sample_weight: WeightsLike | None = None,
        prior: Prior | None = None,
    ) -> Pairs:
        """Validate pairs.

        Args:
            y: parameters, (n, d) or (n,), as draws are given.
            given: conditions, (n, g) or (n,).
            given_names: ``c1, c2, …`` if not given.
            names: ``x1, x2, …`` if not given.
            sample_weight: importance weights of the rows, (n,), non-negative; rows of weight
                zero are left out.
            prior: what the rows of ``y`` were drawn from, if known.

        Raises:
            InputError: numbers that nothing can be fitted to; says which row or column.
            UsageError: names or weights that do not go with the data.
        """
        draws = Draws.from_array(
            y, names=names, constraints=constraints, sample_weight=sample_weight,
            independent=True,
        )  # fmt: skip
        if draws.n_omitted:
            raise UsageError("rows of pairs cannot be left out: remove them from both arrays")
        conditions = _as_conditions(given)
        n_rows = len(draws)
        if sample_weight is not None:  # rows of weight zero are not among the draws
            has_weight = torch.as_tensor(sample_weight).detach().cpu().reshape(-1) > 0
            n_rows = len(has_weight)
            if len(conditions) == n_rows:
                conditions = conditions[has_weight]
        if len(conditions) != len(draws):
            raise InputError(
                f"{n_rows} rows of parameters and {len(conditions)} of conditions: pairs have "
                "one condition a row"
            )
        names_of_given = _check_names(given_names, conditions.shape[1], draws.names)
        for name, column in zip(names_of_given, conditions.T, strict=True):
            if bool((column == column[0]).all()):
                raise InputError(
                    f"the condition {name!r} is constant ({float(column[0]):g}): it tells nothing, "
                    "leave it out"
                )
        return cls(given=conditions, given_names=names_of_given, draws=draws, prior=prior)

    def __len__(self) -> int:
        return len(self.given)

    def __repr__(self) -> str:
        parameters = "1 parameter" if self.draws.dim == 1 else f"{self.draws.dim} parameters"
        return f"<Pairs: {len(self)} rows, {parameters} given {self.given.shape[1]}>"


@dataclass(frozen=True, kw_only=True)
class PairSplit:
    """Pairs by role.

    Attributes:
        given, draws: what the experts are fitted to, (n, g) and (n, d).
        fold: as in :class:`~amfvi.two_stage.split.Split`.
        test_given, test: pairs that nothing is fitted to, or None.
        sample_weight: of the rows, or None.
        transform: of the parameters to unconstrained space.

    Examples:
        >>> sorted(PairSplit.__dataclass_fields__)[:3]
        ['draws', 'fold', 'given']
    """

    given: Tensor
    draws: Tensor
    fold: Tensor
    test_given: Tensor | None
    test: Tensor | None
    sample_weight: Tensor | None
    transform: UnconstrainingTransform

    @cached_property
    def folds(self) -> Folds:
        """Conditions beside parameters in unconstrained space, with their folds."""
        y = self.transform.to_unconstrained(self.draws)[0]
        rows = torch.cat([self.given, y], dim=1)
        return Folds(rows, self.fold, self.sample_weight, self.given.shape[1])

    def with_transform(self, transform: UnconstrainingTransform) -> PairSplit:
        """The same rows with another change of variables."""
        return replace(self, transform=transform)


def split_pairs(pairs: Pairs, test_fraction: float, seed: int, folds: int) -> PairSplit:
    """Assign pairs to folds and the test set at random; repeats of a condition stay together.

    Conditions of few different values, such as a group, are on every side: they are known.

    Raises:
        InputError: a role would be left without pairs.

    Examples:
        >>> c = torch.arange(100.0).double()[:, None]
        >>> noise = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> split = split_pairs(Pairs.from_arrays(c + noise, c), 0.2, seed=0, folds=5)
        >>> len(split.draws), len(split.test)
        (80, 20)
    """
    # Conditions in the place of draws, in random order: their own may be sorted.
    order = torch.randperm(len(pairs), generator=generator_for(seed, "order of pairs"))
    rows, names = pairs.given, pairs.given_names
    if len(rows.unique(dim=0)) < MIN_CONDITIONS_PER_ROLE * (folds + 1):
        rows, names = torch.cat([rows, pairs.draws.values], dim=1), (*names, *pairs.draws.names)
    conditions = replace(
        pairs.draws,
        values=rows[order],
        names=names,
        constraints=Constraints.unbounded(rows.shape[1]),
        layout=None,
    )
    place = order.argsort()
    role, is_test = (part[place] for part in assign_folds(conditions, test_fraction, seed, folds))
    y, weight = pairs.draws.values, pairs.draws.sample_weight
    kept = ~is_test
    fitted_weight = None if weight is None else weight[kept]
    has_test = test_fraction > 0
    return PairSplit(
        given=pairs.given[kept],
        draws=y[kept],
        fold=role[kept],
        test_given=pairs.given[is_test] if has_test else None,
        test=y[is_test] if has_test else None,
        sample_weight=fitted_weight,
        transform=UnconstrainingTransform.fit(pairs.draws.constraints, y[kept], fitted_weight),
    )


def _as_conditions(given: ArrayLike | Tensor) -> Tensor:
    """Finite conditions (n, g), float64.

    Raises:
        InputError: they are not.
    """
    try:
        values = torch.as_tensor(given).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"conditions must be real numbers: {error}") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"conditions must have shape (n, g) or (n,), found {(*values.shape,)}")
    is_finite = values.isfinite()
    if not bool(is_finite.all()):
        row, column = (int(i) for i in (~is_finite).nonzero()[0])
        raise InputError(
            f"conditions must be finite, found {float(values[row, column])} in row {row}, column "
            f"{column}: remove such pairs"
        )
    return values


def _check_names(names: Sequence[str] | None, g: int, others: tuple[str, ...]) -> tuple[str, ...]:
    if names is None:
        return tuple(f"c{i + 1}" for i in range(g))
    found = tuple(str(name) for name in names)
    if len(found) != g or len({*found, *others}) != g + len(others):
        raise UsageError(
            f"given_names= must be {g} names, all different and none a parameter's, found {found}"
        )
    return found
