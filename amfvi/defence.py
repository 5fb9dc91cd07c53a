"""A heavy-tailed component that keeps importance weights bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from amfvi.experts import TMM, Expert
from amfvi.experts.elliptical import EllipticalMixture
from amfvi.mixture import Mixture
from amfvi.randomness import stream
from amfvi.split import Split

__all__ = ["GUARD", "defended", "fitted_guard", "replaced_by"]

GUARD = "guard"
MOST_FREEDOM = 10.0  # lighter tails would defend nothing


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
