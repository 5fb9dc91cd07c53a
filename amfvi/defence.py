"""A heavy-tailed component that keeps importance weights bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from amfvi.comparison import Comparison, compared
from amfvi.experts import TMM, Expert
from amfvi.experts.elliptical import EllipticalMixture
from amfvi.log_density import OutOfBudgetError, UnconstrainedDensity
from amfvi.mixture import Mixture
from amfvi.randomness import stream
from amfvi.split import Split

__all__ = ["GUARD", "defended", "fitted_guard", "replaced_by", "with_reliable_weights"]

GUARD = "guard"
MOST_FREEDOM = 10.0  # lighter tails would defend nothing
SHARE = 0.05  # weight of the guard
NEARLY_EXACT = 0.9  # effective share of the draws above which a high k̂ asks for
MORE = 4  # times as many


def fitted_guard(split: Split, *, seed: int, device: torch.device | str = "cpu") -> Expert:
    """Student-t distributions fitted to the draws, with tails that are heavy in any case.

    Raises:
        FitError: they cannot be fitted.
    """
    fitted, _ = TMM().fit(split.folds, generator=stream(seed, "guard"), device=device)
    parts = replace(fitted.components, freedom=fitted.components.freedom.clamp(max=MOST_FREEDOM))
    return EllipticalMixture(TMM(), fitted.whitening, parts)


def defended(mixture: Mixture, guard: Expert, share: float) -> Mixture:
    """The mixture with ``guard`` as one more component, of weight ``share``.

    Where every expert's tails are lighter than the posterior's, a few draws far out carry
    weights without bound. A defensive component (Hesterberg 1995, Technometrics 37:185)
    bounds them, for −log(1 − share) nats of KL(p‖q) at most.
    """
    weights = torch.cat([(1 - share) * mixture.weights, torch.tensor([share])])
    return _like(mixture, {**mixture.experts, GUARD: guard}, weights)


def replaced_by(mixture: Mixture, guard: Expert) -> Mixture:
    """The guard alone, in the parameters of the mixture."""
    return _like(mixture, {GUARD: guard}, torch.ones(1))


def _like(mixture: Mixture, experts: Mapping[str, Expert], weights: Tensor) -> Mixture:
    return Mixture(
        experts,
        weights,
        support=mixture.bounds,
        names=mixture.names,
        seed=mixture.seed,
        scale=mixture.scale,
        summary=mixture.summary,
    )


def with_reliable_weights(
    mixture: Mixture, found: Comparison, split: Split, density: UnconstrainedDensity, seed: int
) -> tuple[Mixture, Comparison]:
    """First more draws, then a guard, where k̂ says that weights are unreliable.

    Where nearly all weights are equal, k̂ is drawn upwards by the few that are not, until
    there are enough of them. The weights of a mixture with a guard are at most those of
    the guard alone over its share, so their tail is no heavier than its. What cannot be
    mended, or not with the calls that are left, is returned as it is.
    """
    few = draws = found.importance.draws
    try:
        if found.importance.efficiency > NEARLY_EXACT:
            draws *= MORE
            found = compared(mixture, density, draws, stream(seed, "compare", "more"))
        if found.reliable:
            return mixture, found
        guard = fitted_guard(split, seed=seed, device=mixture.device)
        alone = replaced_by(mixture, guard)
        bound = compared(alone, density, few, stream(seed, "guard alone"))
        if not bound.reliable:
            return mixture, found
        guarded = defended(mixture, guard, SHARE)
        khat = bound.importance.khat
        return guarded, compared(guarded, density, draws, stream(seed, "defended"), bound=khat)
    except OutOfBudgetError:
        return mixture, found
