"""Draws from a posterior: validated once, here, and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.randomness import stream
from amfvi.support import Support
from amfvi.weighting import effective_sample_size, weighted_subset

__all__ = ["Draws", "default_names"]

MIN_ROWS = 20  # fewer cannot be split three ways into anything
DRAWS_PER_PARAMETER = 50
OUTLIER_RATIO = 50.0  # interquartile ranges from the median
HEAVY_TAIL_RATIO = 10.0  # 4.6 for a normal, 8.1 for t₅, 13.4 for t₃

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Posterior draws that passed every check; make one with :meth:`of`.

    Attributes:
        values: n × d, float64, on the CPU, in the user's parameters.
        names: d parameter names.
        support: bounds of the parameters.
        weight: importance weights, (n,) float64, positive and 1 on average; None where
            all are equal.
        chain: which chain each row came from, (n,) int64; rows keep the order in
            which their chain made them.
        source: where the draws came from, in words.
        n_dropped: rows with NaN or infinity that were left out on request.
    """

    values: Tensor
    names: tuple[str, ...]
    support: Support
    chain: Tensor
    source: str
    weight: Tensor | None = None
    n_dropped: int = 0

    @property
    def ess(self) -> float:
        """Effective sample size (Σw)²/Σw²: how many draws of equal weight these are worth."""
        return float(len(self)) if self.weight is None else effective_sample_size(self.weight)

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Draws: {len(self)} × {self.dim} from {self.source}>"

    @classmethod
    def of(
        cls,
        data: Any,
        *,
        names: Sequence[str] | None = None,
        support: Mapping[Any, Any] | Sequence[Any] | Support | None = None,
        weights: Any = None,
        chain: Any = None,
        chains: bool = False,
        nonfinite: str = "error",
        source: str = "an array",
    ) -> Draws:
        """Validate draws.

        Args:
            data: an n × d array or tensor of real numbers (n,) for one parameter, or,
                with ``chains=True``, chains × draws × d.
            names: parameter names; ``x1, x2, …`` if not given.
            support: see :meth:`Support.of`.
            weights: importance weights of the rows, (n,), non-negative; only their
                ratios matter. Rows of weight zero are left out.
            chain: which chain each row is from, (n,); one chain if not given.
            nonfinite: "error", or "drop" to leave such rows out and count them.

        Raises:
            InputError: draws that no density could be fitted to; says which row or
                column and what to do.
            UsageError: an argument that does not go with the data.

        Warns:
            AmfviWarning: repeated rows, integer columns, near-collinear columns,
                heavy tails, few draws.
        """
        if isinstance(data, Draws):
            return data
        values, chain_of_row = _as_rows(data, chain, chains)
        row_weights = _row_weights(weights, len(values))
        if row_weights is not None:
            present = row_weights > 0
            values, chain_of_row = values[present], chain_of_row[present]
            row_weights = row_weights[present]
        names = tuple(names) if names is not None else default_names(values.shape[1])
        if len(names) != values.shape[1]:
            raise UsageError(f"{len(names)} names given for {values.shape[1]} columns")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two columns are called {twice!r}; names must differ")
        box = Support.of(names, support)
        finite = _finite_rows(values, nonfinite)
        values, chain_of_row = values[finite], chain_of_row[finite]
        weight = None
        if row_weights is not None and len(values) and np.ptp(row_weights[finite]) > 0:
            weight = torch.from_numpy(row_weights[finite] / row_weights[finite].mean())
        _require_fittable(values, names, weight)
        draws = cls(
            values=torch.from_numpy(values),
            names=names,
            support=box,
            chain=torch.from_numpy(chain_of_row),
            source=source,
            weight=weight,
            n_dropped=int((~finite).sum()),
        )
        _require_inside(draws)
        for message in _doubts(draws):
            warnings.warn(message, AmfviWarning, stacklevel=2)
        return draws


def default_names(d: int) -> tuple[str, ...]:
    """``x1, x2, …`` for d parameters without names of their own."""
    return tuple(f"x{i}" for i in range(1, d + 1))


def _as_rows(data: Any, chain: Any, chains: bool) -> tuple[Array, NDArray[np.int64]]:
    """Real float64 rows (n, d), C-contiguous and owned, with the chain of each."""
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy() if not data.is_complex() else data.resolve_conj().numpy()
    try:
        array = np.asarray(data)
    except ValueError as error:  # ragged nested lists
        raise InputError(f"draws must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"draws must be real numbers, found dtype {array.dtype}; convert them first"
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 3 and chains:
        if chain is not None:
            raise UsageError("give chain= or chains=True, not both")
        chain = np.repeat(np.arange(array.shape[0]), array.shape[1])
        array = array.reshape(-1, array.shape[2])
    elif chains:
        raise UsageError(
            f"chains=True wants a chains × draws × d array, found {array.ndim} dimensions"
        )
    if array.ndim == 3:
        raise InputError(
            f"draws have shape {array.shape}: if that is chains × draws × parameters, "
            "say chains=True (--chains); otherwise reshape to n × d"
        )
    if array.ndim != 2:
        raise InputError(f"draws must be n × d, found shape {array.shape}")
    if array.shape[1] == 0:
        raise InputError("draws have no columns")
    rows = np.array(array, dtype=np.float64, order="C")
    if chain is None:
        return rows, np.zeros(len(rows), dtype=np.int64)
    chain_of_row = np.asarray(chain)
    if chain_of_row.shape != (len(rows),):
        raise UsageError(f"chain= must have {len(rows)} entries, found {chain_of_row.shape}")
    _, numbered = np.unique(chain_of_row, return_inverse=True)
    return rows, numbered.astype(np.int64)


def _row_weights(weights: Any, n: int) -> Array | None:
    if weights is None:
        return None
    if isinstance(weights, Tensor):
        weights = weights.detach().cpu().numpy()
    found = np.asarray(weights)
    if found.shape != (n,) or found.dtype.kind not in "fiu":
        raise UsageError(f"weights= must be {n} real numbers, found {found.dtype} {found.shape}")
    row_weights = found.astype(np.float64)
    bad = ~np.isfinite(row_weights) | (row_weights < 0)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"weights must be finite and non-negative, found {row_weights[row]:g} at row {row}"
        )
    if not row_weights.any():
        raise InputError("all weights are zero")
    return row_weights


def _finite_rows(values: Array, nonfinite: str) -> NDArray[np.bool_]:
    if nonfinite not in ("error", "drop"):
        raise UsageError(f"nonfinite must be 'error' or 'drop', found {nonfinite!r}")
    bad = ~np.isfinite(values).all(axis=1)
    count = int(bad.sum())
    if count and nonfinite == "error":
        first = ", ".join(str(i) for i in np.flatnonzero(bad)[:5])
        raise InputError(
            f"{count} of {len(values)} rows hold NaN or infinity (first at row {first}, "
            "counting from 0); mend them, or leave them out with nonfinite='drop' "
            "(--nonfinite drop)"
        )
    return np.logical_not(bad)


def _require_fittable(values: Array, names: Sequence[str], weight: Tensor | None) -> None:
    if len(values) < MIN_ROWS:
        rows = f"{len(values)} row" + ("" if len(values) == 1 else "s")
        raise InputError(f"found {rows} of draws, need at least {MIN_ROWS}")
    if weight is not None and effective_sample_size(weight) < MIN_ROWS:
        raise InputError(
            f"{len(values)} weighted draws are worth {effective_sample_size(weight):.1f} of equal "
            f"weight, need at least {MIN_ROWS}"
        )
    for name, column in zip(names, values.T, strict=True):
        if column.min() == column.max():
            raise InputError(
                f"column {name!r} is constant ({column[0]:g}); a density cannot be fitted "
                "to it, leave it out"
            )


def _require_inside(draws: Draws) -> None:
    support = draws.support
    for block in support.blocks:
        held = block.check(draws.values[:, block.columns])
        if not bool(held.all()):
            row = int((~held).nonzero()[0])
            raise InputError(
                f"{int((~held).sum())} draws of {', '.join(draws.names[block.columns])} are no "
                f"{block.kind}; the first is {draws.values[row, block.columns].tolist()} at row "
                f"{row}"
            )
    bounds = zip(support.lower, support.upper, strict=True)
    for name, column, (low, high) in zip(draws.names, draws.values.T, bounds, strict=True):
        outside = (column <= low) | (column >= high)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise InputError(
                f"{int(outside.sum())} draws of {name!r} are not inside its bounds "
                f"({low:g}, {high:g}); the first is {float(column[row]):g} at row {row}"
            )


def _doubts(draws: Draws) -> list[str]:
    """What is suspicious but not wrong about the draws."""
    x, names = draws.values.numpy(), draws.names
    n, d = x.shape
    doubts = []
    repeated = n - len(np.unique(x, axis=0))
    if repeated > 0.05 * n and draws.weight is None:
        doubts.append(
            f"{repeated} of {n} rows repeat an earlier row (rejected proposals of a sampler?); "
            "fewer distinct draws, less accuracy"
        )
    integer = [name for name, column in zip(names, x.T, strict=True) if (column % 1 == 0).all()]
    if integer:
        doubts.append(
            f"column {_listed(integer)} holds integers only; a density describes "
            "continuous parameters"
        )
    if draws.ess < DRAWS_PER_PARAMETER * d:
        worth = "" if draws.weight is None else f", worth {draws.ess:.0f} of equal weight,"
        doubts.append(
            f"{n} draws{worth} of {d} parameters are few; {DRAWS_PER_PARAMETER * d} would do"
        )
    values = draws.values
    if draws.weight is not None:  # judged by draws of equal weight
        n = int(draws.ess)
        values = weighted_subset(values, draws.weight, n, stream(0, "doubts"))
    y = draws.support.turned(values).to_unconstrained(values)[0].numpy()
    names = tuple(draws.support.free_labels(names))
    if d > 1:
        correlation = np.corrcoef((y - y.mean(axis=0)) / y.std(axis=0), rowvar=False)
        for i, j in np.argwhere(np.triu(np.abs(correlation) > 0.9999, k=1)):
            doubts.append(
                f"columns {names[i]!r} and {names[j]!r} are correlated at "
                f"{correlation[i, j]:.6f}; is one a function of the other?"
            )
    if n >= 500:
        far = np.quantile(y, [0.001, 0.25, 0.75, 0.999], axis=0)
        spread = np.maximum(far[2] - far[1], np.finfo(float).tiny)
        ratio = (far[3] - far[0]) / spread
        heavy = [name for name, r in zip(names, ratio, strict=True) if r > HEAVY_TAIL_RATIO]
        if heavy:
            doubts.append(
                f"column {_listed(heavy)} has heavy tails; experts with Gaussian tails "
                "put too little mass far out"
            )
        median = np.median(y, axis=0)
        farthest = np.abs(y - median).max(axis=0) / spread
        outlying = [name for name, r in zip(names, farthest, strict=True) if r > OUTLIER_RATIO]
        outlying = [name for name in outlying if name not in heavy]
        if outlying:
            doubts.append(
                f"column {_listed(outlying)} has a value over {OUTLIER_RATIO:.0f} interquartile "
                "ranges from its median; a single outlier widens every expert, drop it if it "
                "is no draw of the posterior"
            )
    return doubts


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
