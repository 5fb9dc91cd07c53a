"""Scores of a fitted density, each with its noise."""

from amfvi.metrics.evaluation import Evaluation, Score, evaluate
from amfvi.metrics.floor import Floor
from amfvi.metrics.likelihood import Estimate, kl, nll
from amfvi.metrics.mmd import bandwidths, mmd2, mmd_test
from amfvi.metrics.wasserstein import wasserstein2

__all__ = [
    "Estimate",
    "Evaluation",
    "Floor",
    "Score",
    "bandwidths",
    "evaluate",
    "kl",
    "mmd2",
    "mmd_test",
    "nll",
    "wasserstein2",
]
