"""The posterior of one y given many independent observations, from a fit to single ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amfvi.conditional.mixture import ConditionalMixture
from amfvi.constraints.constraints import Constraints
from amfvi.density.log_density import LogDensity
from amfvi.errors import InputError, UsageError
from amfvi.experts import ConditionedExpert
from amfvi.mixture import Mixture
from amfvi.simulation.prior import Prior

__all__ = ["density_given_all"]

EDGE = 0.005
"""Share of the prior's draws next to a finite bound where likelihoods are taken as constant."""

N_PRIOR_DRAWS = 10_000
"""Draws of the prior among which its lowest density bounds the region that is looked at."""

MAX_STARTS = 4
"""Most observations whose own posteriors the sampler starts from."""

ROWS = 2**16
"""Most pairs of a point and an observation that are evaluated at a time."""


def density_given_all(
    model: ConditionalMixture,
    conditions: Tensor,
    prior: Any,
    fitted: Tensor | None,
) -> LogDensity:
    """Make the log density Σᵢ log q(y | cᵢ) − (n − 1) log p(y) of n independent observations.

    It is log p(y) + Σᵢ log q(y | cᵢ) / p(y), and the quotients, which are likelihoods, are kept
    to where q has learned them. It is −∞ where the prior is lower than at all of its draws: a q
    with heavier tails than the prior's would make them grow without end. Nearer to a finite
    bound than 0.5% of the prior's draws they are those at that distance. And a soft clamp, which
    squeezes what would leave an interval into its edges, is left out: a little of that at every
    observation would be a spike of all of them.

    Args:
        model: q, fitted to pairs with y of the prior p.
        conditions: (n, g), finite.
        prior: p, as :class:`amfvi.simulation.prior.Prior` with a log density, or what makes
            one; a :class:`~amfvi.LogDensity`; or a function from points (m, d) to (m,), nats.
        fitted: parameters (m, d) that ``model`` was fitted to, for a prior without draws.

    Raises:
        UsageError: no density of the prior, or one over another number of parameters.
        InputError: no condition.

    Examples:
        >>> import amfvi
        >>> from torch.distributions import Normal
        >>> prior = Normal(torch.zeros(1), 1.0)
        >>> simulator = amfvi.Simulator(lambda y, rng: y + rng.normal(size=y.shape), prior=prior)
        >>> model = amfvi.fit(simulator, n_draws=200, experts="gmm")
        >>> c = torch.tensor([[0.9], [1.1], [1.0]]).double()
        >>> density = density_given_all(model, c, prior, None)
        >>> y = torch.tensor([[0.75], [0.0]]).double()
        >>> bool(density.log_prob(y).diff() < -0.5)
        True
    """
    n = len(conditions)
    if n == 0:
        raise InputError("no condition is given, expected one at least")
    log_prob: Callable[[Tensor], Tensor] = partial(model.log_prob, given=conditions)
    if n > 1:
        log_prior, draws = _read_prior(prior, model, fitted)
        log_prob = _product(model, conditions, log_prior, draws)
    density = LogDensity(
        log_prob,
        model.dim,
        names=model.names,
        constraints=model.constraints,
        prior=_start(model, conditions),
    )
    density.caveat = (
        f"this is about the product of {n} fitted conditional densities: nothing is known of their "
        "own errors, which add up"
    )
    return density


def _product(
    model: ConditionalMixture,
    conditions: Tensor,
    log_prior: Callable[[Tensor], Tensor],
    draws: Tensor,
) -> Callable[[Tensor], Tensor]:
    """The log density of points (m, d), from draws of the prior (k, d)."""
    n = len(conditions)
    floor = float(log_prior(draws).min())
    low, high = _edges(model.constraints, draws)
    unclamped = _without_clamps(model)

    def log_prob(y: Tensor) -> Tensor:
        log_p = log_prior(y)
        inside = ((log_p >= floor) & (log_p > -math.inf)).nonzero().squeeze(1)
        out = torch.full_like(log_p, -math.inf)
        if not len(inside):  # torch's distributions take no empty batch
            return out
        parts = []
        for part in y[inside].split(max(1, ROWS // n)):
            at = part.clamp(low, high)
            parts.append(_sum_over(unclamped, at, conditions) - n * log_prior(at))
        return out.index_put((inside,), log_p[inside] + torch.cat(parts))

    return log_prob


def _edges(constraints: Constraints, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest values (d,) of parameters at which likelihoods are evaluated."""
    lower, upper = (torch.tensor(b).to(draws) for b in (constraints.lower, constraints.upper))
    near, far = (draws.quantile(q, dim=0) for q in (EDGE, 1 - EDGE))
    return torch.where(lower.isfinite(), near, lower), torch.where(upper.isfinite(), far, upper)


def _without_clamps(model: ConditionalMixture) -> ConditionalMixture:
    """The same experts, with the parameters that have a soft clamp as if they had no bounds."""
    transform = model.transform
    constraints = transform.constraints
    bounds = list(zip(constraints.lower, constraints.upper, strict=True))
    for i, (pair, scale) in enumerate(zip(bounds, transform.softplus_scales, strict=True)):
        if 0 < scale < math.inf and all(math.isfinite(bound) for bound in pair):
            bounds[i] = (-math.inf, math.inf)
    lower, upper = zip(*bounds, strict=True)
    return model.with_transform(
        replace(transform, constraints=replace(constraints, lower=lower, upper=upper))
    )


def _sum_over(model: ConditionalMixture, y: Tensor, conditions: Tensor) -> Tensor:
    """Σᵢ log q(y | cᵢ) at points (m, d); (m,)."""
    n = len(conditions)
    rows = y.repeat_interleave(n, dim=0)
    return model.log_prob(rows, given=conditions.repeat(len(y), 1)).view(-1, n).sum(dim=1)


def _start(model: ConditionalMixture, conditions: Tensor) -> Mixture:
    """Where to look for the posterior: in those of single observations, which are wider."""
    places = torch.linspace(0, len(conditions) - 1, min(len(conditions), MAX_STARTS)).long()
    experts, weights = {}, []
    for i in places.tolist():
        for (name, expert), weight in zip(model.experts.items(), model.weights, strict=True):
            if weight > 0:
                experts[f"{name} given {i}"] = ConditionedExpert(expert, conditions[i])
                weights.append(float(weight) / len(places))
    return Mixture(experts, weights, transform=model.transform, names=model.names)


def _read_prior(
    prior: Any, model: ConditionalMixture, fitted: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The prior's log density, and draws (m, d) of it.

    Raises:
        UsageError: it has none, or is over another number of parameters.
    """
    if prior is None:
        raise UsageError(
            "the density of the prior that these pairs were drawn from is not known: give "
            "prior=, a distribution or a function from points (n, d) to log densities"
        )
    log_prob: Callable[[Tensor], Tensor]
    if isinstance(prior, LogDensity) or not (isinstance(prior, Prior) or hasattr(prior, "sample")):
        density = prior if isinstance(prior, LogDensity) else LogDensity(prior, model.dim)
        dim, log_prob, draws = density.dim, density.log_prob, fitted
    else:
        prior = prior if isinstance(prior, Prior) else Prior(prior)
        if prior.log_prob is None:
            raise UsageError(
                "the prior was given by its draws alone: give prior=, a distribution or a "
                "function from points (n, d) to log densities"
            )
        dim, log_prob, draws = prior.dim, _within(prior), prior.sample(N_PRIOR_DRAWS, seed=0)
    if dim != model.dim:
        raise UsageError(f"prior= is over {dim} parameters, the fit over {model.dim}")
    if draws is None:
        raise UsageError(
            "prior= without draws goes with a model fitted in this process, which knows where "
            "its pairs were; this one was loaded: give a distribution"
        )
    return log_prob, draws


def _within(prior: Prior) -> Callable[[Tensor], Tensor]:
    """The prior's log density, −∞ outside its constraints, where torch's would raise."""
    density = prior.log_prob
    if density is None:
        raise UsageError("a prior without a density")

    def log_prob(y: Tensor) -> Tensor:
        inside = prior.constraints.contains(y.detach()).nonzero().squeeze(1)
        out = torch.full((len(y),), -math.inf, dtype=torch.float64)
        return out.index_put((inside,), density(y[inside])) if len(inside) else out

    return log_prob
