"""Draws from a posterior, validated once for all that use them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from amfvi.constraints.constraints import Constraints, ConstraintsLike, default_names
from amfvi.draws.checks import (
    find_suspicious_features,
    require_enough,
    require_inside,
    require_varying,
)
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.statistics import effective_sample_size, normalize_to_mean
from amfvi.variables import Variables, parse_names

__all__ = ["NAN_POLICIES", "Draws", "DrawsLike", "WeightsLike"]

NAN_POLICIES = ("raise", "omit")
"""What to do about rows with NaN or infinity: raise an error, or leave them out."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Posterior draws that passed every check; make one with :meth:`from_array`.

    Attributes:
        values: n × d, float64, on the CPU, in the user's parameters.
        names: d parameter names.
        constraints: what values the parameters may take.
        chain: which chain each row came from, (n,) int64; rows keep the order in
            which their chain made them.
        source: where the draws came from, for messages.
        sample_weight: importance weights, (n,) float64, positive and 1 on average; None
            where all are equal.
        n_omitted: rows with NaN or infinity that were left out on request.
        layout: the arrays that the parameters are entries of; None: what the names show.

    Examples:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> Draws.from_array(x, names=["mu", "tau"])
        <Draws: 500 × 2 from an array>
    """

    values: Tensor
    names: tuple[str, ...]
    constraints: Constraints
    chain: Tensor
    source: str
    sample_weight: Tensor | None = None
    n_omitted: int = 0
    layout: Variables | None = None

    @property
    def variables(self) -> Variables:
        """The arrays that the parameters are entries of."""
        return self.layout or Variables.from_names(self.names)

    @property
    def ess(self) -> float:
        """Effective sample size (Σw)²/Σw² of the importance weights; n without any."""
        if self.sample_weight is None:
            return float(len(self))
        return effective_sample_size(self.sample_weight)

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Draws: {len(self)} × {self.dim} from {self.source}>"

    @classmethod
    def from_array(
        cls,
        data: DrawsLike,
        *,
        names: Sequence[str] | None = None,
        constraints: ConstraintsLike = None,
        sample_weight: WeightsLike | None = None,
        chain_ids: ArrayLike | None = None,
        chains: bool = False,
        nan_policy: str = "raise",
        source: str = "an array",
        variables: Variables | None = None,
        independent: bool = False,
    ) -> Draws:
        """Validate draws; ``Draws`` are returned as they are.

        Args:
            data: an n × d array or tensor of real numbers, (n,) for one parameter, or,
                with ``chains=True``, chains × draws × d.
            names: parameter names; ``x1, x2, …`` if not given.
            constraints: see :meth:`Constraints.parse`.
            sample_weight: importance weights (n,) up to a factor; rows of weight 0 are left out.
            chain_ids: which chain each row is from, (n,); one chain if not given.
            nan_policy: "raise", or "omit" to leave out rows with NaN or infinity.
            variables: the arrays that the columns are entries of.
            independent: whether the rows are no chain, whose mixing would be judged.

        Raises:
            InputError: draws that nothing can be fitted to; says which row or column.
            UsageError: an argument that does not go with the data.

        Warns:
            AmfviWarning: what is suspicious, as repeated rows, heavy tails or few draws.
        """
        if isinstance(data, Draws):
            return data
        values, chain = _parse_rows(data, chain_ids, chains)
        names = _parse_names(names, variables, values.shape[1])
        constraints = Constraints.parse(names, constraints)
        weights = _parse_weights(sample_weight, len(values))
        present = np.full(len(values), True) if weights is None else weights > 0
        rows = np.flatnonzero(present & _find_finite_rows(values, present, nan_policy))
        normalized = _normalize(None if weights is None else weights[rows])
        require_enough(len(rows), len(names), constraints.unconstrained_dim, normalized)
        require_varying(kept := _take(values, rows), names, constraints)
        draws = cls(
            values=torch.from_numpy(kept),
            names=names,
            constraints=constraints,
            chain=torch.from_numpy(chain[rows]),
            source=source,
            sample_weight=normalized,
            n_omitted=int(present.sum()) - len(rows),
            layout=variables,
        )
        require_inside(draws.values, names, constraints, rows.tolist())
        for message in draws._suspicious_features(independent):
            warnings.warn(message, AmfviWarning, stacklevel=2)
        return draws

    def _suspicious_features(self, independent: bool) -> list[str]:
        return find_suspicious_features(
            self.values, self.names, self.constraints, self.sample_weight, self.chain,
            independent=independent,
        )  # fmt: skip


WeightsLike = Tensor | ArrayLike
"""What a user may give as ``sample_weight=``: n non-negative numbers."""

DrawsLike = Draws | Tensor | ArrayLike
"""What a user may give as draws: an n × d array, tensor or nested list, or ``Draws``."""


def _parse_rows(
    data: Tensor | ArrayLike, chain_ids: ArrayLike | None, chains: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Real rows (n, d), C-contiguous and owned, with the number of the chain of each."""
    array = _to_numpy(data)
    if array.ndim == 1:
        array = array[:, None]
    if chains:
        if array.ndim != 3:
            raise UsageError(
                f"chains=True needs a chains × draws × d array, found {array.ndim} dimensions"
            )
        if chain_ids is not None:
            raise UsageError("give chain_ids= or chains=True, not both")
        chain_ids = np.repeat(np.arange(array.shape[0]), array.shape[1])
        array = array.reshape(-1, array.shape[2])
    if array.ndim == 3:
        raise InputError(
            f"draws have shape {array.shape}: if that is chains × draws × parameters, "
            "pass chains=True; otherwise reshape to n × d"
        )
    if array.ndim != 2:
        raise InputError(f"draws must be n × d, found shape {array.shape}")
    if array.shape[1] == 0:
        raise InputError("draws have no columns")
    return np.array(array, dtype=np.float64, order="C"), _number_chains(chain_ids, len(array))


def _to_numpy(data: Tensor | ArrayLike) -> Array:
    """Real numbers of any shape.

    Raises:
        InputError: not a rectangular array, or not of real numbers.
    """
    if isinstance(data, Tensor):
        real = data.double() if data.is_floating_point() else data  # numpy has no bfloat16
        data = real.detach().resolve_conj().cpu().numpy()
    if isinstance(data, np.ma.MaskedArray):  # what is masked is missing
        data = np.ma.filled(data.astype(np.float64), np.nan)
    try:
        array = np.asarray(data)
    except ValueError as error:  # ragged nested lists
        raise InputError(f"draws must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"draws must be real numbers, found dtype {array.dtype}; convert them first"
        )
    return array


def _number_chains(chain_ids: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """The chain of each of n rows, numbered from 0."""
    if chain_ids is None:
        return np.zeros(n, dtype=np.int64)
    ids = np.asarray(chain_ids)
    if ids.shape != (n,):
        raise UsageError(f"chain_ids must have {n} entries, found shape {ids.shape}")
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _parse_names(
    names: Sequence[str] | None, variables: Variables | None, d: int
) -> tuple[str, ...]:
    if names is None and variables is not None:
        names = variables.names
    parsed = parse_names(names) if names is not None else default_names(d)
    if len(parsed) != d:
        raise UsageError(f"{len(parsed)} names given for {d} columns")
    if len(set(parsed)) != d:
        repeated = next(name for name in parsed if parsed.count(name) > 1)
        raise InputError(f"two columns are called {repeated!r}; names must differ")
    return parsed


def _parse_weights(sample_weight: WeightsLike | None, n: int) -> NDArray[np.float64] | None:
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    array = np.asarray(sample_weight)
    if array.shape != (n,) or array.dtype.kind not in "fiu":
        raise UsageError(
            f"sample_weight must be {n} real numbers, found {array.dtype} of shape {array.shape}"
        )
    weights = array.astype(np.float64)
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"weights must be finite and non-negative, found {weights[row]:g} at row {row}"
        )
    if not weights.any():
        raise InputError("all weights are zero")
    exponent = int(np.frexp(weights.max())[1])
    return np.ldexp(weights, -exponent)  # their sum may overflow


def _take(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """These rows (in order), without a copy if they are all."""
    return values if len(rows) == len(values) else values[rows]


def _find_finite_rows(
    values: NDArray[np.float64], present: NDArray[np.bool_], nan_policy: str
) -> NDArray[np.bool_]:
    """Which rows hold no NaN or infinity.

    Raises:
        InputError: some of those present do, and ``nan_policy`` is "raise".
    """
    if nan_policy not in NAN_POLICIES:
        raise UsageError(f"nan_policy must be 'raise' or 'omit', found {nan_policy!r}")
    finite = np.asarray(np.isfinite(values).all(axis=1))
    bad = np.flatnonzero(present & ~finite)
    if len(bad) and nan_policy == "raise":
        first = ", ".join(str(i) for i in bad[:5])
        raise InputError(
            f"{len(bad)} of {len(values)} rows hold NaN or infinity (first at row {first}, "
            'counting from 0); mend them, or leave them out with nan_policy="omit"'
        )
    return finite


def _normalize(weights: NDArray[np.float64] | None) -> Tensor | None:
    """Weights (n,) that are 1 on average; None where all are equal."""
    if weights is None or not len(weights) or np.ptp(weights) == 0:
        return None
    return normalize_to_mean(torch.from_numpy(weights))
