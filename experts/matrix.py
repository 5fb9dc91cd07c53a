"""The matrix of log densities that stage two rests on: one row per draw, a column per expert."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amfvi.errors import FitError
from amfvi.experts.base import Expert
from amfvi.experts.folds import Folds

__all__ = ["log_densities", "optimism_corrected_log_densities"]


def log_densities(experts: Mapping[str, Expert], y: Tensor) -> Tensor:
    """Log densities (n, K) in nats of each expert at points ``y`` (n, d).

    Raises:
        FitError: an expert returns NaN; the message names it and the point.

    Examples:
        >>> from amfvi.experts import GMM
        >>> expert = GMM().fit(torch.randn(200, 1, generator=torch.Generator().manual_seed(0)))
        >>> log_densities({"gmm": expert}, torch.zeros(3, 1)).shape
        torch.Size([3, 1])
    """
    # A family of the user's own may compute on the CPU alone.
    columns = {n: e.log_prob(y.to(e.device)).to(y.device) for n, e in experts.items()}
    return _stack(columns, y)


def optimism_corrected_log_densities(experts: Mapping[str, Expert], folds: Folds) -> Tensor:
    """Log densities (m, K) in nats at the held-out draws, as if nothing had seen them.

    Raises:
        FitError: an expert returns NaN; the message names it and the point.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> folds = Folds(draws, torch.arange(200) % 2)
        >>> expert, _ = GMM().fit_folds(folds, generator=torch.Generator().manual_seed(0))
        >>> optimism_corrected_log_densities({"gmm": expert}, folds).shape
        torch.Size([200, 1])
    """
    columns = {name: expert.log_prob_optimism_corrected(folds) for name, expert in experts.items()}
    draws = folds.draws[folds.is_heldout]
    return _stack({name: column.to(draws.device) for name, column in columns.items()}, draws)


def _stack(columns: Mapping[str, Tensor], y: Tensor) -> Tensor:
    for name, column in columns.items():
        undefined = column.isnan()
        if bool(undefined.any()):
            raise FitError(f"expert {name!r} has density NaN at {y[undefined][0].tolist()}")
    return torch.stack(list(columns.values()), dim=1)
