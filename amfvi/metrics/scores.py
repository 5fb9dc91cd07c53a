"""Scores of a mixture and of its experts on one set of test draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor

from amfvi.errors import AmfviWarning, FitError
from amfvi.metrics.floor import Floor
from amfvi.metrics.likelihood import kl, nll
from amfvi.metrics.mmd import bandwidths, mmd_test
from amfvi.metrics.parallel import thread_pool
from amfvi.metrics.wasserstein import wasserstein2
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.statistics import Estimate

__all__ = ["Evaluation", "Score", "Truth", "score_mixture"]

MIXTURE = "the mixture"
"""Key of the mixture beside the names of its experts."""

Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of one density; None where unknown.

    Attributes:
        nll, nll_se: negative log-likelihood in nats, with its standard error.
        kl, kl_se: KL divergence of the truth from it in nats, with its standard error.
        w2, w2_sd: W₂ to the truth, a distance, with its standard deviation over repeats.
        mmd2, mmd_p: unbiased MMD², a squared distance, with its permutation p-value.

    Examples:
        >>> Score(nll=3.2, nll_se=0.1, kl=None, kl_se=None, w2=0.1, w2_sd=0.0,
        ...       mmd2=0.0, mmd_p=0.5).nll
        3.2
    """

    nll: float
    nll_se: float
    kl: float | None
    kl_se: float | None
    w2: float | None
    w2_sd: float | None
    mmd2: float | None
    mmd_p: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a mixture and its experts on one set of test draws.

    Attributes:
        n_test: draws behind nll and kl.
        n_w2: draws per sample behind w2 and mmd2.
        entropy: of the truth in nats, None if unknown; the least possible nll.
        mixture: scores of the mixture.
        experts: scores of each expert, by name.
        floor: what w2 and mmd2 are between two samples of the truth.
        advantage: KL of the best expert minus KL of the mixture, paired, in nats:
            positive where mixing gained.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("banana", experts="gmm", n_draws=200)
        >>> evaluation = amfvi.evaluate(posterior, posterior.sample(200))
        >>> evaluation.n_test, list(evaluation.experts)
        (200, ['gmm'])
    """

    n_test: int
    n_w2: int
    entropy: float | None
    mixture: Score
    experts: dict[str, Score]
    floor: Floor | None
    advantage: Estimate

    def to_json(self) -> dict[str, Any]:
        """Describe the scores in JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a mixture is scored against.

    Attributes:
        test: draws (n, d) for nll and kl.
        references: samples (m, d) for w2 and mmd2.
        scale: unit of each parameter for distances, (d,).
        floor: distances between two samples of the truth.
        sample_weight: importance weights of ``test`` (n,); None where all are equal.
        log_p: exact log density at ``test`` in nats; None if unknown.
        entropy: in nats; None if unknown.

    Examples:
        >>> floor = Floor(w2=0.1, w2_sd=0.01, mmd2=0.0, mmd2_sd=0.001)
        >>> x = torch.zeros(100, 2)
        >>> Truth(test=x, references=[x], scale=torch.ones(2), floor=floor).entropy is None
        True
    """

    test: Tensor
    references: list[Tensor]
    scale: Tensor
    floor: Floor
    sample_weight: Tensor | None = None
    log_p: Tensor | None = None
    entropy: float | None = None


class _Distances(TypedDict):
    w2: float | None
    w2_sd: float | None
    mmd2: float | None
    mmd_p: float | None


def score_mixture(mixture: Mixture, truth: Truth, *, seed: int) -> Evaluation:
    """Score a mixture and each of its experts.

    Args:
        seed: of the draws made for w2 and mmd2.

    Warns:
        AmfviWarning: a W₂ could not be computed.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("banana", experts="gmm", n_draws=200)
        >>> x = posterior.sample(100)
        >>> floor = Floor(w2=0.1, w2_sd=0.01, mmd2=0.0, mmd2_sd=0.001)
        >>> truth = Truth(test=x, references=[x, x], scale=torch.ones(2), floor=floor)
        >>> score_mixture(posterior, truth, seed=0).n_w2
        100
    """
    expert_log_q = mixture.expert_log_probs(truth.test)
    log_q = mixture.mix(expert_log_q)
    distances = _measure_distances(_samplers(mixture), truth, seed)
    only = _only_expert(mixture)
    if only is not None:
        distances[MIXTURE] = distances[only]
    scores = {
        name: _score(log_density, truth, distances[name])
        for name, log_density in zip(mixture.experts, expert_log_q.T, strict=True)
    }
    means = torch.tensor([-score.nll for score in scores.values()], dtype=torch.float64)
    best = int(torch.nan_to_num(means, nan=-math.inf).argmax())
    return Evaluation(
        n_test=len(truth.test),
        n_w2=len(truth.references[0]),
        entropy=truth.entropy,
        mixture=_score(log_q, truth, distances[MIXTURE]),
        experts=scores,
        floor=truth.floor,
        advantage=Estimate.from_terms(log_q - expert_log_q[:, best], truth.sample_weight),
    )


def _score(log_q: Tensor, truth: Truth, distances: _Distances) -> Score:
    likelihood = nll(log_q, truth.sample_weight)
    divergence = None if truth.log_p is None else kl(truth.log_p, log_q)
    return Score(
        nll=likelihood.mean,
        nll_se=likelihood.se,
        kl=None if divergence is None else divergence.mean,
        kl_se=None if divergence is None else divergence.se,
        **distances,
    )


def _only_expert(mixture: Mixture) -> str | None:
    """The name of the expert that has all the weight, and so is the mixture, if one has."""
    names = [name for name, w in zip(mixture.experts, mixture.weights, strict=True) if w > 0]
    return names[0] if len(names) == 1 else None


def _samplers(mixture: Mixture) -> dict[str, Sampler]:
    """What draws from each expert, and from the mixture where it is not one of them."""
    samplers: dict[str, Sampler] = {
        name: partial(mixture.sample_expert, name) for name in mixture.experts
    }
    if _only_expert(mixture) is None:
        samplers[MIXTURE] = lambda n, generator: mixture.sample((n,), generator)
    return samplers


def _measure_distances(
    samplers: Mapping[str, Sampler], truth: Truth, seed: int
) -> dict[str, _Distances]:
    """W₂ and MMD² of draws from each sampler to the references."""
    references = [reference / truth.scale for reference in truth.references]
    widths = bandwidths(references[0])
    pending: dict[str, tuple[list[Future[float]], Future[tuple[float, float]]]] = {}
    with thread_pool() as pool:
        for name, sample in samplers.items():
            generator = generator_for(seed, "evaluate", name)
            draws = [sample(len(r), generator).cpu() / truth.scale for r in references]
            if not all(bool(x.isfinite().all()) for x in draws):
                continue  # there is no distance to an infinite draw
            pairs = zip(draws, references, strict=True)
            transports = [pool.submit(wasserstein2, x, y) for x, y in pairs]
            test = pool.submit(mmd_test, draws[0], references[0], widths, generator)
            pending[name] = transports, test
    unknown = _Distances(w2=None, w2_sd=None, mmd2=None, mmd_p=None)
    return {
        name: _collect(name, *pending[name]) if name in pending else unknown for name in samplers
    }


def _collect(
    name: str, transports: list[Future[float]], test: Future[tuple[float, float]]
) -> _Distances:
    mmd2, mmd_p = test.result()
    try:
        w2 = torch.tensor([transport.result() for transport in transports], dtype=torch.float64)
    except FitError as error:  # one score is missing, not the whole fit
        warnings.warn(f"{name}: W2 is unknown: {error}", AmfviWarning, stacklevel=2)
        return _Distances(w2=None, w2_sd=None, mmd2=mmd2, mmd_p=mmd_p)
    return _Distances(w2=float(w2.mean()), w2_sd=float(w2.std()), mmd2=mmd2, mmd_p=mmd_p)
