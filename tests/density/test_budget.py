"""Limits on evaluations and on time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from amfvi.density import budget
from amfvi.density.budget import Budget, OutOfBudgetError


def test_a_budget_of_evaluations():
    limited = Budget(max_evaluations=10)
    limited.spend(6)
    assert limited.left == 4
    with pytest.raises(OutOfBudgetError, match="max_evaluations=10") as error:
        limited.spend(5)
    assert error.value.limit == "max_evaluations"
    limited.spend(4)
    assert (limited.spent, limited.left) == (10, 0)
    kept_back = Budget(max_evaluations=10, reserved_evaluations=0.2)
    with pytest.raises(OutOfBudgetError, match="max_evaluations=10"):  # as the user gave it
        kept_back.spend(9)
    kept_back.release()
    kept_back.spend(9)
    assert Budget().left is None


def test_a_budget_of_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now[0]))
    limited = Budget(timeout=5)
    now[0] = 104.9
    limited.spend(1_000_000)
    now[0] = 105.1
    with pytest.raises(OutOfBudgetError, match="timeout=5") as error:
        limited.spend(1)
    assert error.value.limit == "timeout"
    assert limited.spent == 1_000_000
    limited.release(timed=False)
    now[0] = 1e9
    limited.spend(1)
    kept_back = Budget(timeout=10, reserved_time=0.4)
    now[0] += 7
    with pytest.raises(OutOfBudgetError, match="timeout=10"):
        kept_back.spend(1)
    kept_back.release()
    kept_back.spend(1)
