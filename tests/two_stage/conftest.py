"""What the tests of the two stages share: a few draws in folds."""

from __future__ import annotations

import pytest

from amfvi.experts import Folds


@pytest.fixture
def folds(curved, folded) -> Folds:
    """600 draws in five folds."""
    return folded(curved(2, 600, 0), 5)
