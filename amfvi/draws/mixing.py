"""How many independent draws Markov chains are worth, and whether the chains agree.

Effective sample sizes and R̂ are those of Vehtari, Gelman, Simpson, Carpenter & Bürkner
(2021, Bayesian Analysis 16), of normal scores of ranks, so that heavy tails, several modes
and ties do no harm. Chains may be of different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtri
from torch import Tensor

from amfvi.statistics import average_ranks, effective_sample_size

__all__ = ["Mixing", "assess_mixing", "describe_mixing"]

DRAWS_PER_PARAMETER = 50
"""Effective draws per parameter that are enough."""

FEW = 200
"""Effective draws below which there is a warning if they are but a quarter of the draws."""

RHAT = 1.1
"""Largest split-R̂ of chains that agree."""

CHANCE = 1e-4
"""Probability below which chains do not differ by chance."""

MAX_ROWS = 20_000
"""Rows that are looked at; of longer chains every second, third, … row is."""

ROWS_PER_COLUMN = 100
"""Rows per column that are looked at if those are more."""

MIN_PIECE = 4
"""Fewest draws of half a chain that say anything."""

INTERLEAVED = 0.5
"""Correlation of rows some lag apart, and not of nearer ones, that means interleaved chains."""

SIGNIFICANCE = 4.0
"""Standard errors of a correlation above which it is not one of independent rows."""

MIN_PIECES_AT_LAG = 8
"""Fewest rows of each of several interleaved chains."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How well chains have mixed, by column.

    Attributes:
        ess: effective sample size, (d,), at most n.
        rhat: split-R̂, (d,); the larger of that of ranks and that of distances from the median.
        chance: probability that half chains of independent draws are so far apart, (d,).
        lag_one: correlation of the normal scores of successive rows, (d,).
        n: rows that were looked at.
        interleaved: number of chains that the rows seem to be from in turn; 1 if none.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(1000, 1))
        >>> bool(assess_mixing(x, np.zeros(1000)).rhat < 1.01)
        True
    """

    ess: Array
    rhat: Array
    chance: Array
    lag_one: Array
    n: int
    interleaved: int = 1


def describe_mixing(
    values: Array, names: Sequence[str], chain: Array | None, sample_weight: Tensor | None
) -> str | None:
    """Describe chains that disagree, or are worth few independent draws; None if they do well.

    Args:
        chain: the chain of each row of (n, d); None for one.
        sample_weight: importance weights of the rows, (n,), if they have any.

    Examples:
        >>> walk = np.cumsum(np.random.default_rng(0).normal(size=(1000, 1)), axis=0)
        >>> describe_mixing(walk, ["mu"], None, None)
        "1000 draws are worth about 2 independent ones (effective sample size of 'mu'): ..."
    """
    n = len(values)
    chain = np.zeros(n, dtype=np.int64) if chain is None else chain
    counts = _counts_rows(values, chain)
    values = values[:, ~counts]
    names = [name for name, is_count in zip(names, counts, strict=True) if not is_count]
    d = len(names)
    mixing = assess_mixing(values, chain)
    if mixing is None:
        return None
    share = 1.0 if sample_weight is None else effective_sample_size(sample_weight) / n
    ess = max(1, round(share * float(mixing.ess.min())))
    worth = f"{n} draws are worth about {ess} independent ones"
    apart = (mixing.rhat > RHAT) & (mixing.chance < CHANCE / d)
    if sample_weight is None and chain.min() != chain.max() and apart.any():
        column = int(np.where(apart, mixing.rhat, 0).argmax())
        also = f", and {worth} (effective sample size)" if ess < n / 2 else ""
        return (
            f"chains disagree: split-R̂ of {names[column]!r} is {mixing.rhat[column]:.2f}{also}; "
            "they are in different modes or far from convergence: run them longer, or leave out "
            "those that are stuck"
        )
    few = (mixing.lag_one > SIGNIFICANCE / mixing.n**0.5) & (
        ((share * mixing.ess < DRAWS_PER_PARAMETER * d) & (mixing.ess < mixing.n / 2))
        | ((share * mixing.ess < FEW) & (mixing.ess < mixing.n / 4))
    )
    if not few.any():
        return None
    worst = names[int(mixing.ess.argmin())]
    return f"{worth} (effective sample size of {worst!r}): {_cause(values, names, mixing)}"


def _cause(values: Array, names: Sequence[str], mixing: Mixing) -> str:
    """Why rows are worth few draws, and what to do."""
    is_sorted = _is_sorted(values)
    if is_sorted.any():
        return (
            f"the rows are sorted by {names[int(is_sorted.argmax())]!r}; shuffle them if they "
            "are independent, else give them in the order in which the chain made them"
        )
    if mixing.interleaved > 1:
        return (
            f"they seem to be from {mixing.interleaved} chains in turn, each of which moves "
            "slowly; run the chains longer"
        )
    return (
        "each row resembles the one before; run the chain longer, or shuffle the rows if they "
        "are independent and were grouped afterwards"
    )


def _counts_rows(values: Array, chain: Array) -> Array:
    """Which columns (n, d) go on by one step from row to row of a chain: no draws at all."""
    inside = np.diff(chain) == 0
    steps = (np.diff(column)[inside] for column in values.T)
    return np.array([len(step) > 0 and np.ptp(step) == 0 for step in steps], dtype=bool)


def _is_sorted(values: Array) -> Array:
    """Which columns (n, d) rise or fall throughout."""
    steps = (np.diff(column) for column in values.T)
    return np.array([(step >= 0).all() or (step <= 0).all() for step in steps], dtype=bool)


def assess_mixing(values: Array, chain: Array) -> Mixing | None:
    """Assess rows (n, d) in the order in which chains (n,) made them; None for too few.

    Chains of too few rows to be split count as one chain together.

    Examples:
        >>> walk = np.cumsum(np.random.default_rng(0).normal(size=(1000, 1)), axis=0)
        >>> bool(assess_mixing(walk, np.zeros(1000)).ess < 20)
        True
    """
    n, d = values.shape
    if d == 0:
        return None
    step = -(-n // max(MAX_ROWS, ROWS_PER_COLUMN * d))
    halves = _halves(_rows_by_chain(chain, step))
    if sum(map(len, halves)) < n / step / 2:
        halves = _halves([np.arange(0, n, step)])
    if len(halves) < 2:
        return None
    kept = np.concatenate(halves)
    lengths = np.array([len(half) for half in halves])
    scores = _normal_scores(values[kept])
    mixing = _assess(scores, lengths)
    lag = _interleaved_lag(scores) if len(halves) == 2 else 1
    if lag > 1:
        rows = [np.arange(start, len(kept), lag) for start in range(lag)]
        halves = _halves(rows)
        scores = _normal_scores(values[kept][np.concatenate(halves)])
        mixing = _assess(scores, np.array([len(half) for half in halves]), interleaved=lag)
    return mixing


def _rows_by_chain(chain: Array, step: int) -> list[Array]:
    order = np.argsort(chain, kind="stable")
    starts = np.flatnonzero(np.diff(chain[order])) + 1
    return [rows[::step] for rows in np.split(order, starts)]


def _halves(rows: Sequence[Array]) -> list[Array]:
    """Both halves of each chain that is long enough; of an odd number one is left out."""
    halves = []
    for chain in rows:
        half = len(chain) // 2
        if half >= MIN_PIECE:
            halves += [chain[:half], chain[-half:]]
    return halves


def _normal_scores(values: Array) -> Array:
    """The normal quantile of each value's rank in its column, (n, d)."""
    ranks = np.stack([average_ranks(column) for column in values.T], axis=1)
    return np.asarray(ndtri((ranks - 0.375) / (len(values) + 0.25)))


def _assess(scores: Array, lengths: Array, interleaved: int = 1) -> Mixing:
    """The mixing of half chains of these lengths, one below the other in ``scores``."""
    means, covariance = _autocovariance(scores, lengths)
    between = _variance_of_means(means, lengths)
    within = covariance[0] * len(scores) / (len(scores) - len(lengths))
    whole = covariance[0] + between
    # Of a column that its constraint holds constant there is nothing to correlate.
    rho = np.where(whole > 0, 1 - (within - covariance) / np.where(whole > 0, whole, 1), 0)
    folded = _normal_scores(np.abs(scores - np.median(scores, axis=0)))
    folded_means, folded_covariance = _autocovariance(folded, lengths, lags=1)
    folded_between = _variance_of_means(folded_means, lengths)
    rhat, chance = _compare(covariance[0], between, lengths)
    folded_rhat, folded_chance = _compare(folded_covariance[0], folded_between, lengths)
    is_folded = folded_rhat > rhat
    return Mixing(
        ess=len(scores) / _autocorrelation_time(rho),
        rhat=np.where(is_folded, folded_rhat, rhat),
        chance=np.where(is_folded, folded_chance, chance),
        lag_one=rho[1],
        n=len(scores),
        interleaved=interleaved,
    )


def _compare(biased: Array, between: Array, lengths: Array) -> tuple[Array, Array]:
    """Split-R̂ from the variances within half chains and between their means, with its chance."""
    n, count = int(lengths.sum()), len(lengths)
    within = np.maximum(biased * n / (n - count), np.finfo(float).tiny)
    ratio = between * (n / count) / within
    return np.sqrt((biased + between) / within), fdtrc(count - 1, n - count, ratio)


def _variance_of_means(means: Array, lengths: Array) -> Array:
    """Variance of the means (C, d) of half chains, by length."""
    share = (lengths / lengths.sum())[:, None]
    center = (share * means).sum(axis=0)
    count = len(lengths)
    return np.asarray((share * (means - center) ** 2).sum(axis=0) * count / (count - 1))


def _autocovariance(scores: Array, lengths: Array, lags: int | None = None) -> tuple[Array, Array]:
    """Means (C, d) of the half chains, and their pooled autocovariance (lags, d)."""
    longest = int(lengths.max())
    lags = longest if lags is None else lags
    size = 1 << (2 * longest - 1).bit_length()
    total = np.zeros((lags, scores.shape[1]))
    means = []
    for half in np.split(scores, np.cumsum(lengths)[:-1]):
        means.append(half.mean(axis=0))
        centered = half - means[-1]
        if lags == 1:
            total[0] += (centered**2).sum(axis=0)
            continue
        spectrum = np.abs(np.fft.rfft(centered, n=size, axis=0)) ** 2
        total[: len(half)] += np.fft.irfft(spectrum, n=size, axis=0)[: len(half)]
    return np.stack(means), total / len(scores)


def _autocorrelation_time(rho: Array) -> Array:
    """1 + 2 Σ ρ by Geyer's initial monotone sequence, at least 1, from ρ (lags, d)."""
    rho = np.concatenate([np.ones((1, rho.shape[1])), rho[1:]])
    pairs = len(rho) // 2
    sums = rho[0 : 2 * pairs : 2] + rho[1 : 2 * pairs : 2]
    positive = np.logical_and.accumulate(sums > 0, axis=0)
    sums = np.minimum.accumulate(sums, axis=0)
    return np.maximum(2 * (sums * positive).sum(axis=0) - 1, 1)


def _interleaved_lag(scores: Array) -> int:
    """The lag at which rows of one chain resemble each other though nearer ones do not.

    Samplers that move many walkers at once often give their draws in turn.
    """
    n = len(scores)
    lags = n // MIN_PIECES_AT_LAG
    limit = max(INTERLEAVED, 1.5 * SIGNIFICANCE / n**0.5)
    if lags < 2:
        return 1
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(scores - scores.mean(axis=0), n=size, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, n=size, axis=0)[:lags]
    rho = (covariance / np.maximum(covariance[0], np.finfo(float).tiny)).max(axis=1)
    resembling = np.flatnonzero(rho[1:] > limit) + 1
    if not len(resembling) or resembling[0] == 1:
        return 1
    return int(resembling[0])
