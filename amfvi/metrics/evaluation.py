"""Score a mixture on a target, on the test draws of its fit, or on other draws."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from amfvi import targets
from amfvi.draws.draws import Draws, DrawsLike
from amfvi.errors import InputError, UsageError
from amfvi.metrics.floor import floor_of_draws, floor_of_target
from amfvi.metrics.mmd import bandwidths
from amfvi.metrics.scores import Evaluation, Score, Truth, score_mixture
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.statistics import effective_sample_size, weighted_sd, weighted_subset
from amfvi.targets import ExactTarget
from amfvi.two_stage.split import N_TEST, Split

__all__ = [
    "Evaluation",
    "HasSummary",
    "Score",
    "evaluate",
    "evaluate_on_draws",
    "evaluate_on_split",
    "evaluate_on_target",
]

N_W2 = 1_000
"""Draws per sample for W₂ and MMD², if there are as many."""

W2_REPEATS = 3
"""Samples of the truth that W₂ is a mean over."""

NO_TEST_DRAWS = "no test draws were set aside; give a target or draws to score on"


class HasSplit(Protocol):
    """The summary of a fit, which knows its test draws."""

    @property
    def split(self) -> Split:
        """The draws by role."""


@runtime_checkable
class HasSummary(Protocol):
    """A mixture that knows how it was fitted, as :func:`amfvi.fit` returns it.

    Examples:
        >>> isinstance(torch.ones(1), HasSummary)
        False
    """

    @property
    def summary(self) -> HasSplit | None:
        """How it was fitted; None if that was in another process."""


def evaluate(
    mixture: Mixture,
    data: str | ExactTarget | DrawsLike | None = None,
    *,
    seed: int = 0,
    floor_cache: Path | None = None,
) -> Evaluation:
    """Score a mixture against a target or against draws that nothing was fitted to.

    Args:
        data: a target or its name, an n × d array of draws, or :class:`~amfvi.Draws`. If
            not given, the test draws that :func:`amfvi.fit` set aside.
        seed: of the draws made for the scores.
        floor_cache: a file that keeps floors of targets, which take seconds to measure,
            between processes.

    Raises:
        UsageError: no data given and none set aside, or of another dimension.
        InputError: draws that are not valid.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("banana", experts="gmm", n_draws=200)
        >>> evaluation = evaluate(posterior, posterior.sample(200))
        >>> evaluation.mixture.kl is None, evaluation.floor.w2 > 0
        (True, True)
    """
    if not isinstance(mixture, Mixture):
        raise UsageError(
            f"scores are of a mixture without a condition, found {type(mixture).__name__}: take "
            "given(c), or calibration()"
        )
    if isinstance(data, str):
        target = targets.get(data)
        if not isinstance(target, ExactTarget):
            raise UsageError(f"{data} has no exact draws to score on; give draws")
        data = target
    if isinstance(data, ExactTarget):
        return evaluate_on_target(mixture, data, seed=seed, floor_cache=floor_cache)
    if data is None:
        if not isinstance(mixture, HasSummary) or mixture.summary is None:
            raise UsageError(NO_TEST_DRAWS)
        return evaluate_on_split(mixture, mixture.summary.split, seed=seed)
    draws = Draws.from_array(data, names=mixture.names, constraints=mixture.constraints)
    return evaluate_on_draws(mixture, draws.values, seed=seed, sample_weight=draws.sample_weight)


def evaluate_on_target(
    mixture: Mixture,
    target: ExactTarget,
    *,
    seed: int,
    test: Tensor | None = None,
    floor_cache: Path | None = None,
) -> Evaluation:
    """Score against a target with exact draws.

    Args:
        test: its draws (n, d) for nll and kl; made anew if not given.
        floor_cache: as for :func:`evaluate`.

    Raises:
        UsageError: the target has another dimension.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("banana", experts="gmm", n_draws=200)
        >>> evaluate_on_target(posterior, targets.get("funnel"), seed=0)
        Traceback (most recent call last):
        amfvi.errors.UsageError: funnel has 10 parameters, the mixture has 2
    """
    if target.dim != mixture.dim:
        raise UsageError(
            f"{target.name} has {target.dim} parameters, the mixture has {mixture.dim}"
        )
    if test is None:
        test = target.sample(N_TEST, generator_for(seed, "test"))
    generator = generator_for(seed, "evaluate", "truth")
    truth = Truth(
        test=test,
        log_p=target.log_prob(test),
        entropy=target.entropy,
        floor=floor_of_target(target, N_W2, cache=floor_cache),
        references=[target.sample(N_W2, generator) for _ in range(W2_REPEATS)],
        scale=torch.ones(target.dim, dtype=torch.float64),
    )
    return score_mixture(mixture, truth, seed=seed)


def evaluate_on_split(mixture: Mixture, split: Split, *, seed: int) -> Evaluation:
    """Score against the test draws of a split.

    Raises:
        UsageError: it has none, or they have another dimension.
        InputError: too few of them.

    Examples:
        >>> import amfvi
        >>> draws = targets.get("banana").sample(400, torch.Generator().manual_seed(0))
        >>> posterior = amfvi.fit(draws, experts="gmm", test_fraction=0.5)
        >>> split = posterior.summary.split
        >>> evaluate_on_split(posterior, split, seed=0).n_test == len(split.test)
        True
    """
    if split.test is None:
        raise UsageError(NO_TEST_DRAWS)
    return evaluate_on_draws(
        mixture,
        split.test,
        seed=seed,
        sample_weight=split.test_sample_weight,
        others=split.seen,
        others_weight=split.sample_weight,
    )


def evaluate_on_draws(
    mixture: Mixture,
    test: Tensor,
    *,
    seed: int,
    sample_weight: Tensor | None = None,
    others: Tensor | None = None,
    others_weight: Tensor | None = None,
) -> Evaluation:
    """Score against test draws (n, d) alone; kl and entropy are then unknown.

    w2 and mmd2 are in units of the training standard deviation of each parameter (of
    the standard deviation of ``test``, for a mixture that knows none).

    Args:
        sample_weight: importance weights of the test draws (n,), if they have any.
        others: further draws of the same posterior (m, d), for the floor alone: the
            more, the more draws per sample w2 and mmd2 can use.
        others_weight: their importance weights (m,), if test draws have any.

    Raises:
        UsageError: draws of another dimension.
        InputError: too few draws.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("banana", experts="gmm", n_draws=200)
        >>> evaluate_on_draws(posterior, posterior.sample(100), seed=0).n_w2
        50
    """
    if test.ndim != 2 or test.shape[1] != mixture.dim:
        raise UsageError(
            f"the draws have shape {(*test.shape,)}, the mixture has {mixture.dim} parameters"
        )
    everything = test if others is None else torch.cat([test, others])
    weights = None
    if sample_weight is not None:
        rest = test[:0, 0] if others is None else torch.ones(len(others))
        weights = torch.cat([sample_weight, rest if others_weight is None else others_weight])
    ess, ess_of_all = _ess(test, sample_weight), _ess(everything, weights)
    if ess < 2 or ess_of_all < 4:
        raise InputError(f"found {ess} test draws, need at least 4 to score on")
    scale = weighted_sd(test, sample_weight) if mixture.scale is None else mixture.scale
    n = min(N_W2, ess, ess_of_all // 2)
    generator = generator_for(seed, "evaluate", "truth")
    references = [weighted_subset(test, sample_weight, n, generator) for _ in range(W2_REPEATS)]
    widths = bandwidths(references[0] / scale)
    floor_generator = generator_for(seed, "evaluate", "floor")
    truth = Truth(
        test=test,
        floor=floor_of_draws(everything / scale, weights, n, widths, floor_generator),
        references=references,
        scale=scale,
        sample_weight=sample_weight,
    )
    return score_mixture(mixture, truth, seed=seed)


def _ess(draws: Tensor, sample_weight: Tensor | None) -> int:
    """Effective sample size, rounded down."""
    return len(draws) if sample_weight is None else int(effective_sample_size(sample_weight))
