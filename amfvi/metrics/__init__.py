"""Scores of a fitted density, each with its noise."""

from amfvi.metrics.evaluation import evaluate
from amfvi.metrics.floor import Floor
from amfvi.metrics.likelihood import kl, nll
from amfvi.metrics.mmd import bandwidths, mmd2, mmd_test
from amfvi.metrics.scores import Evaluation, Score
from amfvi.metrics.wasserstein import wasserstein2
from amfvi.statistics import Estimate

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
