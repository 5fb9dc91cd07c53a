"""Standard deviations that the plain draws of a mixture have, however rare what makes them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amfvi.diagnostics.defensive import with_heavy_tails
from amfvi.diagnostics.importance import khat_of_squares
from amfvi.experts import Expert
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.mixture_base import MixtureBaseFlow
from amfvi.mixture import Mixture

__all__ = ["OwnSpread", "measure_own_spread"]

N_DRAWS = 20_000
"""Draws of the mixture, and as many of a wider one."""

RAREST = 1e-7
"""Share of the draws, the farthest ones, that is left out: autoregressive flows have tails without
a variance, whose part in it is of draws that no user ever sees."""

WIDER = 1.5
"""How many times wider the normal distribution is from which flows map the others: what a plain
draw reaches once in a hundred million times is then reached once in some ten thousand."""


N_FARTHEST = 200
"""Draws that add most to the variance of a parameter, at which the posterior is asked."""

CARRIED_SHARE = 0.3
"""Share of a variance from which it is; the farthest of a normal distribution have less."""

HARD_KHAT = 0.3
"""k̂ of squared distances from which weighted draws alone tell a standard deviation roughly."""

N_ASKED = 1_200
"""Draws, by what they add to a variance, at which the posterior is asked for its own."""

MAX_LOG_RATIO = math.log(10.0)
"""Nats at which one log p − log q is cut, so that it does not decide alone."""

HEAVIER = 3.0
"""Most degrees of freedom that mixtures of components have in the wider mixture."""


@dataclass(frozen=True, kw_only=True)
class OwnSpread:
    """Standard deviations of a mixture.

    Attributes:
        sd: of each of the user's parameters, (d,), but for draws rarer than one in ten million;
            infinite where a draw is.
        n_draws: that they were estimated from.
        told: what the density says of them: those of the same draws weighted towards the posterior,
            (d,), by some of the draws, chosen by what they add to a variance; None where tails
            are light, or it was not asked.
        told_se: relative standard error of ``told``, (d,).
        supported: what is left of them if the farthest draws count as much as their density says
            they should, and no more than they do, (d,); None where it was not asked.

    Examples:
        >>> OwnSpread(sd=torch.ones(2), n_draws=1000).n_draws
        1000
    """

    sd: Tensor
    n_draws: int
    told: Tensor | None = None
    told_se: Tensor | None = None
    supported: Tensor | None = None


@torch.no_grad()
def measure_own_spread(
    mixture: Mixture,
    generator: torch.Generator,
    log_excess: Callable[[Tensor], Tensor] | None = None,
) -> OwnSpread:
    """Estimate the standard deviations of a mixture's draws, those that rare ones make too.

    A flow may throw one draw in a million so far out that it ruins the standard deviations of the
    millions that a user asks for, and no sample of a size that can be afforded has it. Half of
    the draws are therefore of flows whose normal distributions are wider, and of components whose
    tails are heavier, weighted by importance
    (Hesterberg 1995, doi:10.1080/00401706.1995.10484303, on mixtures of which one part is what is
    sought, so that no weight is larger than two).

    Args:
        log_excess: log p − log q − log Z at points (k, d), nats, from the posterior: tails that are
            its own are so told from outliers. It is asked where few draws carry a variance.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="rbig", n_draws=500)
        >>> spread = measure_own_spread(posterior, torch.Generator().manual_seed(0))
        >>> 2.8 < float(spread.sd[0]) < 3.2
        True
    """
    plain = mixture.sample((N_DRAWS,), generator)
    if not bool(plain.isfinite().all()):
        return OwnSpread(sd=plain.new_full((mixture.dim,), math.inf), n_draws=len(plain))
    wider = mixture._with(experts={name: _wider(e) for name, e in mixture.experts.items()})
    far = wider.sample((N_DRAWS,), generator)
    x = torch.cat([plain, far[far.isfinite().all(dim=1)]])
    log_q, log_wider = mixture.log_prob(x), wider.log_prob(x)
    log_weights = log_q - torch.logaddexp(log_q, log_wider) + math.log(2.0)
    weights = torch.nan_to_num(log_weights, nan=-math.inf).exp()
    terms = _terms_of_variance(x, weights)
    spread = OwnSpread(sd=terms.sum(dim=0).sqrt(), n_draws=len(plain))
    if log_excess is None:
        return spread
    if bool((khat_of_squares(plain, plain.median(dim=0).values) > HARD_KHAT).any()):
        ratio, ratio_se = _ratio_of_variances(x, terms, log_excess, generator)
        spread = replace(spread, told=spread.sd * ratio.sqrt(), told_se=0.5 * ratio_se / ratio)
    largest, rows = terms.topk(min(N_FARTHEST, len(x)), dim=0)
    is_carried = largest.sum(dim=0) > CARRIED_SHARE * terms.sum(dim=0)
    farthest = rows[:, is_carried].flatten().unique()
    if not len(farthest):
        return replace(spread, supported=spread.sd)
    kept = torch.ones(len(x), 1, dtype=torch.float64)
    kept[farthest, 0] = torch.nan_to_num(log_excess(x[farthest]), nan=0.0).clamp(max=0.0).exp()
    return replace(spread, supported=(kept * terms).sum(dim=0).sqrt())


def _ratio_of_variances(
    x: Tensor, terms: Tensor, log_excess: Callable[[Tensor], Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Variances (d,) of the posterior, in those of the mixture, and their standard errors.

    The mean of p / q over draws (n, d) chosen in proportion to what they add to a variance.
    """
    shares = terms / terms.sum(dim=0).clamp(min=1e-300)
    chosen = shares.mean(dim=1)
    if not bool(chosen.isfinite().all() and chosen.sum() > 0):
        return torch.ones_like(shares[0]), torch.zeros_like(shares[0])
    rows = torch.multinomial(chosen, N_ASKED, replacement=True, generator=generator)
    log_ratio = torch.nan_to_num(log_excess(x[rows]), nan=0.0).clamp(max=MAX_LOG_RATIO)
    weights = shares[rows] / chosen[rows, None]  # one on average in each coordinate
    weights = weights / weights.mean(dim=0).clamp(min=1e-300)
    ratio = (weights * log_ratio.exp()[:, None]).mean(dim=0).clamp(min=1e-12)
    deviations = weights * (log_ratio.exp()[:, None] - ratio)
    return ratio, deviations.std(dim=0) / math.sqrt(N_ASKED)


def _wider(expert: Expert) -> Expert:
    """A flow from a wider base, a mixture with heavier tails; one of the user's own as it is."""
    if isinstance(expert, EllipticalMixture):
        return with_heavy_tails(expert, HEAVIER)
    if isinstance(expert, MixtureBaseFlow):
        return MixtureBaseFlow(expert.flow, with_heavy_tails(expert.base, HEAVIER))
    if not isinstance(expert, BijectiveExpert):
        return expert
    wider = copy.copy(expert)
    wider.spread = expert.spread * WIDER
    return wider


def _terms_of_variance(x: Tensor, weights: Tensor) -> Tensor:
    """What each draw (n, d) of weights (n,) adds to the variances, but for the rarest share."""
    shares = weights / weights.sum()
    squared = (x - shares @ x).square()
    order = squared.argsort(dim=0, descending=True)
    is_seen = torch.empty_like(order, dtype=torch.bool)
    is_seen.scatter_(0, order, shares[order].cumsum(dim=0) > RAREST)
    return torch.where(is_seen, shares[:, None] * squared, 0.0)
