"""Conditions that repeat: what depends on them alone is computed once for each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_runs", "find_runs"]

MOST_RUNS = 0.5
"""Runs per condition above which they are not worth their bookkeeping."""


def find_runs(condition: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find runs of equal conditions among neighbors.

    Args:
        condition: (members, g, n).

    Returns:
        The condition of each run, (members, g, u), padded with zeros where a member has fewer,
        and the run that each column belongs to, (members, n). None where that saves little, or
        where derivatives are wanted, of which every column has its own; nor on an accelerator,
        which would have to wait for the number of runs.

    Examples:
        >>> found, run = find_runs(torch.tensor([[[1.0, 1.0, 1.0, 2.0, 2.0]]]))
        >>> found.tolist(), run.tolist()
        ([[[1.0, 2.0]]], [[0, 0, 0, 1, 1]])
    """
    members, g, n = condition.shape
    if n < 2 or condition.requires_grad or condition.device.type != "cpu":
        return None
    is_new = (condition[..., 1:] != condition[..., :-1]).any(dim=1)
    run = torch.nn.functional.pad(is_new.cumsum(dim=1), (1, 0))
    runs = int(run.max()) + 1
    if runs > MOST_RUNS * n:
        return None
    found = condition.new_zeros(members, g, runs)
    return found.scatter_(2, run[:, None].expand(-1, g, -1), condition), run


def at_runs(values: Tensor, run: Tensor) -> Tensor:
    """Values (members, …, u) of runs at each of their columns, (members, …, n).

    Examples:
        >>> at_runs(torch.tensor([[5.0, 7.0]]), torch.tensor([[0, 0, 1]])).tolist()
        [[5.0, 5.0, 7.0]]
    """
    members, n = run.shape
    inner = values.shape[1:-1]
    index = run.view(members, *[1] * len(inner), n).expand(-1, *inner, -1)
    return values.gather(-1, index)
