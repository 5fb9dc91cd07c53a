"""All scores of a mixture and of its experts, each beside its floor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amfvi import targets
from amfvi.draws import Draws
from amfvi.errors import AmfviWarning, FitError, InputError, UsageError
from amfvi.metrics.floor import Floor, floor_of_draws, floor_of_target, in_parallel
from amfvi.metrics.likelihood import Estimate, kl, nll
from amfvi.metrics.mmd import bandwidths, mmd_test
from amfvi.metrics.wasserstein import wasserstein2
from amfvi.mixture import Mixture
from amfvi.randomness import stream
from amfvi.split import N_TEST, Split
from amfvi.targets import Target
from amfvi.weighting import effective_sample_size, weighted_sd, weighted_subset

__all__ = [
    "Evaluation",
    "Score",
    "evaluate",
    "evaluate_on_draws",
    "evaluate_on_split",
    "evaluate_on_target",
]

N_W2 = 2_000  # draws a side for W₂ and MMD²
W2_REPEATS = 3
MIXTURE = "the mixture"  # beside names of experts

Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of one density; None where unknown.

    nll and kl in nats with standard errors; w2 a distance, with its standard
    deviation over repeats; mmd2 unbiased, with a permutation p-value.
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
        n_w2: draws a side behind w2 and mmd2.
        entropy: of the truth in nats, None if unknown; the least possible nll.
        floor: what w2 and mmd2 are between two samples of the truth.
        advantage: KL of the best expert minus KL of the mixture, paired, in nats:
            positive where mixing gained.
    """

    n_test: int
    n_w2: int
    entropy: float | None
    mixture: Score
    experts: dict[str, Score]
    floor: Floor | None
    advantage: Estimate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(mixture: Mixture, data: Any = None, *, seed: int = 0) -> Evaluation:
    """Score a mixture against a target or against draws nothing was fitted to.

    Args:
        data: a target or its name, an n × d array of draws, or :class:`Draws`. If
            not given, the test draws that ``amfvi.fit`` set aside.
        seed: of the draws made for the scores.

    Raises:
        UsageError: no data given and none set aside, or of another dimension.
        InputError: draws that are not valid.
    """
    if isinstance(data, str):
        data = targets.get(data)
    if isinstance(data, Target):
        return evaluate_on_target(mixture, data, seed=seed)
    if data is None:
        split = mixture.summary.split if mixture.summary is not None else None
        if split is None or split.test is None:
            raise UsageError("no test draws were set aside; give a target or draws to score on")
        return evaluate_on_split(mixture, split, seed=seed)
    if not isinstance(data, Draws):
        data = Draws.of(data, names=mixture.names, support=mixture.bounds)
    return evaluate_on_draws(mixture, data.values, seed=seed, weight=data.weight)


def evaluate_on_target(
    mixture: Mixture, target: Target, *, seed: int, test: Tensor | None = None
) -> Evaluation:
    """Score against an exact posterior, on ``test`` or on fresh draws of its own.

    Raises:
        UsageError: the target has another dimension.
    """
    if target.dim != mixture.dim:
        raise UsageError(
            f"{target.name} has {target.dim} parameters, the mixture has {mixture.dim}"
        )
    if test is None:
        test = target.sample(N_TEST, stream(seed, "test"))
    truth = stream(seed, "evaluate", "truth")
    return _evaluate(
        mixture,
        test,
        seed=seed,
        log_p=target.log_prob(test),
        entropy=target.entropy,
        floor=floor_of_target(target, N_W2),
        references=[target.sample(N_W2, truth) for _ in range(W2_REPEATS)],
        scale=torch.ones(target.dim, dtype=torch.float64),
    )


def evaluate_on_split(mixture: Mixture, split: Split, *, seed: int) -> Evaluation:
    """Score against the test draws of a split.

    Raises:
        UsageError: it has none, or they have another dimension.
        InputError: too few of them.
    """
    if split.test is None:
        raise UsageError("no test draws were set aside; give a target or draws to score on")
    return evaluate_on_draws(
        mixture,
        split.test,
        seed=seed,
        weight=split.test_weight,
        others=split.seen,
        others_weight=split.weight,
    )


def evaluate_on_draws(
    mixture: Mixture,
    test: Tensor,
    *,
    seed: int,
    weight: Tensor | None = None,
    others: Tensor | None = None,
    others_weight: Tensor | None = None,
) -> Evaluation:
    """Score against test draws (n, d) alone; kl and entropy are then unknown.

    w2 and mmd2 are in units of the training standard deviation of each parameter (of
    the standard deviation of ``test``, for a mixture that knows none).

    Args:
        weight: importance weights of the test draws (n,), if they have any.
        others: further draws of the same posterior (m, d), for the floor alone: the
            more, the more draws a side w2 and mmd2 can use.
        others_weight: their importance weights (m,), if test draws have any.

    Raises:
        UsageError: draws of another dimension; InputError: too few of them.
    """
    if test.ndim != 2 or test.shape[1] != mixture.dim:
        raise UsageError(
            f"the draws have shape {(*test.shape,)}, the mixture has {mixture.dim} parameters"
        )
    everything = test if others is None else torch.cat([test, others])
    if weight is None:
        weights = None
        worth, worth_of_all = len(test), len(everything)
    else:
        rest = test[:0, 0] if others is None else torch.ones(len(others))
        weights = torch.cat([weight, rest if others_weight is None else others_weight])
        worth = int(effective_sample_size(weight))
        worth_of_all = int(effective_sample_size(weights))
    if worth < 2 or worth_of_all < 4:
        raise InputError(f"found {worth} test draws, need at least 4 to score on")
    scale = weighted_sd(test, weight) if mixture.scale is None else mixture.scale
    n = min(N_W2, worth, worth_of_all // 2)
    generator = stream(seed, "evaluate", "truth")
    references = [weighted_subset(test, weight, n, generator) for _ in range(W2_REPEATS)]
    widths = bandwidths(references[0] / scale)
    return _evaluate(
        mixture,
        test,
        seed=seed,
        log_p=None,
        entropy=None,
        floor=floor_of_draws(
            everything / scale, weights, n, widths, stream(seed, "evaluate", "floor")
        ),
        references=references,
        scale=scale,
        weight=weight,
    )


def _evaluate(
    mixture: Mixture,
    test: Tensor,
    *,
    seed: int,
    log_p: Tensor | None,
    entropy: float | None,
    floor: Floor,
    references: list[Tensor],
    scale: Tensor,
    weight: Tensor | None = None,
) -> Evaluation:
    scaled = [reference / scale for reference in references]
    widths = bandwidths(scaled[0])
    expert_log_q = mixture.expert_log_probs(test)
    log_q = mixture.mix(expert_log_q)

    samplers: dict[str, Sampler] = {
        name: partial(mixture.sample_expert, name) for name in mixture.experts
    }
    samplers[MIXTURE] = lambda n, generator: mixture.sample((n,), generator)
    columns = dict(zip(mixture.experts, expert_log_q.T, strict=True)) | {MIXTURE: log_q}
    distances = _distances(samplers, scaled, widths, scale, seed)

    def score(name: str) -> Score:
        likelihood = nll(columns[name], weight)
        divergence = kl(log_p, columns[name]) if log_p is not None else None
        return Score(
            nll=likelihood.mean,
            nll_se=likelihood.se,
            kl=divergence.mean if divergence else None,
            kl_se=divergence.se if divergence else None,
            **distances[name],
        )

    scores = {name: score(name) for name in mixture.experts}
    means = torch.tensor([-scores[name].nll for name in mixture.experts])
    best = int(torch.nan_to_num(means, nan=-math.inf).argmax())
    return Evaluation(
        n_test=len(test),
        n_w2=len(references[0]),
        entropy=entropy,
        mixture=score(MIXTURE),
        experts=scores,
        floor=floor,
        advantage=Estimate.of(log_q - expert_log_q[:, best], weight),
    )


def _distances(
    samplers: Mapping[str, Sampler],
    references: list[Tensor],
    widths: Tensor,
    scale: Tensor,
    seed: int,
) -> dict[str, dict[str, float | None]]:
    """W2 and MMD² of draws from each sampler to the scaled references, side by side."""
    jobs: list[Callable[[], Any]] = []
    names = []
    for name, sample in samplers.items():
        generator = stream(seed, "evaluate", name)
        draws = [sample(len(r), generator).cpu() / scale for r in references]
        if not all(bool(x.isfinite().all()) for x in draws):
            continue  # an expert's runaway draw has no distance to anything
        names.append(name)
        jobs += [partial(_w2_or_why_not, *pair) for pair in zip(draws, references, strict=True)]
        jobs.append(partial(mmd_test, draws[0], references[0], widths, generator))
    found = in_parallel(jobs)
    scores = {name: dict.fromkeys(("w2", "w2_sd", "mmd2", "mmd_p")) for name in samplers}
    size = len(references) + 1
    for number, name in enumerate(names):
        *transports, (statistic, p_value) = found[number * size : (number + 1) * size]
        scores[name] |= {"mmd2": statistic, "mmd_p": p_value}
        failed = [t for t in transports if isinstance(t, FitError)]
        if failed:  # one score the fewer, not the whole fit
            warnings.warn(f"{name}: W2 is unknown: {failed[0]}", AmfviWarning, stacklevel=2)
        else:
            w2 = torch.tensor(transports)
            scores[name] |= {"w2": float(w2.mean()), "w2_sd": float(w2.std())}
    return scores


def _w2_or_why_not(x: Tensor, y: Tensor) -> float | FitError:
    try:
        return wasserstein2(x, y)
    except FitError as error:
        return error
