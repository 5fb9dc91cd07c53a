"""A heavy-tailed defensive component that keeps importance weights bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import MIN_LOG_Q, WeightedDraws, importance_sample
from amfvi.diagnostics.thresholds import (
    DEFENSIVE_WEIGHT,
    MAX_DEFENSIVE_FREEDOM,
    NEARLY_EQUAL_WEIGHTS,
)
from amfvi.experts import TMM, Expert, Folds
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.two_stage.split import Split
from amfvi.two_stage.weights import fit_weights

__all__ = [
    "DEFENSIVE",
    "defensive_only",
    "ensure_reliable_weights",
    "fit_defensive_component",
    "with_defensive_component",
    "with_heavy_tails",
]

M = TypeVar("M", bound=Mixture)

DEFENSIVE = "defensive"
"""Name of the defensive component among the experts of a mixture."""

FREEDOMS = (MAX_DEFENSIVE_FREEDOM, 3.0, 1.0)
"""Most degrees of freedom of the component, until its own weights are reliable."""

HEAVY_FREEDOM = 8.0
"""Degrees of freedom that draws with heavy tails give the component. Of others it gets no fewer
than three, with which its draws have a variance, but as a last resort."""

MAX_COMPONENTS = 32
"""Most Student-t components: they are to have the tails, not the finer shape."""

MAX_DEFENSIVE_WEIGHT = 0.95
"""Largest weight of the component."""

MIN_KEPT = 0.7
"""Share of the efficiency that must be left for more than the least weight."""

MORE_DRAWS = 4
"""How many times as many draws are made where weights are nearly equal and k̂ is high."""


def fit_defensive_component(
    folds: Folds, *, seed: int, device: torch.device | str = "cpu"
) -> EllipticalMixture:
    """Fit Student-t components to the draws, as a single member.

    Raises:
        FitError: they cannot be fitted.

    Examples:
        >>> draws = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> component = fit_defensive_component(Folds(draws, torch.arange(200) % 2), seed=0)
        >>> bool((with_heavy_tails(component, 3.0).components.freedom <= 3).all())
        True
    """
    config = TMM(max_components=MAX_COMPONENTS)
    generator = generator_for(seed, "guard")
    return config.fit_folds(folds.first_member(), generator=generator, device=device)[0]


def with_heavy_tails(component: EllipticalMixture, max_freedom: float) -> EllipticalMixture:
    """The same components with at most ``max_freedom`` degrees of freedom.

    Examples:
        See :func:`fit_defensive_component`:

        >>> with_heavy_tails.__annotations__["return"]
        'EllipticalMixture'
    """
    components = component.components
    heavier = replace(components, freedom=components.freedom.clamp(max=max_freedom))
    return EllipticalMixture(TMM(), component.whitening, heavier)


def with_defensive_component(mixture: M, component: Expert, share: float) -> M:
    """The mixture with one more expert, of weight ``share``.

    Where every expert's tails are lighter than the posterior's, a few extreme draws carry
    weights without bound. A defensive component (Hesterberg 1995, Technometrics 37:185)
    bounds them, for −log(1 − share) nats of KL(p‖q) at most.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> with_defensive_component(mixture, TMM().fit(draws), 0.05)
        Mixture(d = 1, gmm: 0.950, defensive: 0.050)
    """
    weights = torch.cat([(1 - share) * mixture.weights, torch.tensor([share])])
    return mixture._with(experts={**mixture.experts, DEFENSIVE: component}, weights=weights)


def defensive_only(mixture: M, component: Expert) -> M:
    """The defensive component alone, in the parameters of the mixture.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> defensive_only(mixture, TMM().fit(draws))
        Mixture(d = 1, defensive: 1.000)
    """
    return mixture._with(experts={DEFENSIVE: component}, weights=torch.ones(1))


def ensure_reliable_weights(
    mixture: Mixture,
    weighted: WeightedDraws,
    density: UnconstrainedDensity,
    split: Split,
    *,
    seed: int,
    is_last_resort: bool = False,
) -> tuple[Mixture, WeightedDraws]:
    """Mend unreliable importance weights: by more draws, then by a defensive component.

    Where nearly all weights are equal, k̂ is drawn upwards by the few that are not, until
    there are enough of them. The weights of a mixture with a defensive component are at
    most those of that component alone over its share, so their tail is no heavier than
    its. The share is what the test draws of the split give it, if that is more than the
    least. What cannot be mended, or not with the evaluations that are left, is returned as
    it is.

    Args:
        is_last_resort: whether a component without a variance is allowed where the draws do
            not have such tails.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.draws.draws import Draws
        >>> from amfvi.experts import GMM
        >>> from amfvi.two_stage.split import split_draws
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1))
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> good = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> weighted = importance_sample(good, normal, 500, torch.Generator().manual_seed(0))
        >>> split = split_draws(Draws.from_array(draws), 0.15, seed=0, folds=2)
        >>> mixture, weighted = ensure_reliable_weights(good, weighted, normal, split, seed=0)
        >>> mixture is good, weighted.importance.n_draws
        (True, 2000)
    """
    n_before = n_draws = weighted.importance.n_draws
    try:
        if weighted.importance.efficiency > NEARLY_EQUAL_WEIGHTS:
            n_draws *= MORE_DRAWS
            generator = generator_for(seed, "compare", "more")
            weighted = importance_sample(mixture, density, n_draws, generator)
        if weighted.reliable:
            return mixture, weighted
        fitted = fit_defensive_component(split.folds, seed=seed, device=mixture.device)
        freedoms = _choose_freedoms(fitted, is_last_resort)
        component, alone = _find_component(mixture, density, fitted, freedoms, n_before, seed)
        if not alone.reliable:
            return mixture, weighted
        for share in _choose_shares(mixture, component, split):
            defended = with_defensive_component(mixture, component, share)
            generator = generator_for(seed, "defended")
            khat = alone.importance.khat
            again = importance_sample(defended, density, n_draws, generator, khat_bound=khat)
            if again.importance.efficiency > MIN_KEPT * weighted.importance.efficiency:
                break
        return defended, again
    except OutOfBudgetError:
        return mixture, weighted


def _choose_freedoms(fitted: EllipticalMixture, is_last_resort: bool) -> Sequence[float]:
    """Most degrees of freedom of the component to try in turn."""
    is_heavy = float(fitted.components.freedom.min()) <= HEAVY_FREEDOM
    return FREEDOMS if is_heavy or is_last_resort else FREEDOMS[:-1]


def _find_component(
    mixture: Mixture,
    density: UnconstrainedDensity,
    fitted: EllipticalMixture,
    freedoms: Sequence[float],
    n_draws: int,
    seed: int,
) -> tuple[EllipticalMixture, WeightedDraws]:
    """The component of the lightest tails whose own weights are reliable, and its draws.

    The one of the heaviest tails if there is none.
    """
    for max_freedom in freedoms:
        component = with_heavy_tails(fitted, max_freedom)
        generator = generator_for(seed, "guard alone")
        alone = importance_sample(defensive_only(mixture, component), density, n_draws, generator)
        if alone.reliable:
            break
    return component, alone


def _choose_shares(mixture: Mixture, component: Expert, split: Split) -> list[float]:
    """Weights to try for the component: that which test draws give it, and the least."""
    if split.test is None:
        return [DEFENSIVE_WEIGHT]
    alone = defensive_only(mixture, component)
    columns = [mixture.log_prob(split.test), alone.log_prob(split.test)]
    log_densities = torch.stack(columns, dim=1).clamp(min=MIN_LOG_Q)
    fit = fit_weights(log_densities, sample_weight=split.test_sample_weight)
    share = min(float(fit.weights[1]), MAX_DEFENSIVE_WEIGHT)
    return [DEFENSIVE_WEIGHT] if share <= DEFENSIVE_WEIGHT else [share, DEFENSIVE_WEIGHT]
