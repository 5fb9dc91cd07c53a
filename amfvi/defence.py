"""A thin heavy-tailed component that keeps importance weights bounded."""

from __future__ import annotations

import torch

from amfvi.experts import TMM
from amfvi.experts.elliptical import EllipticalMixture
from amfvi.experts.em import Components
from amfvi.experts.whitening import Whitening
from amfvi.mixture import Mixture
from amfvi.split import Split

__all__ = ["GUARD", "defended"]

GUARD = "guard"
FREEDOM = 3.0
WIDENING = 1.2


def defended(mixture: Mixture, split: Split, share: float) -> Mixture:
    """The mixture with a Student-t of the draws' location and shape at weight ``share``.

    Where every expert's tails are lighter than the posterior's, a few draws far out carry
    weights without bound. A defensive component (Hesterberg 1995, Technometrics 37:185)
    bounds them, for ``share`` nats of KL(p‖q) at most.
    """
    folds = split.folds
    whitening = Whitening.pooled(folds.draws, folds.weight)
    d = whitening.dim
    components = Components(
        torch.zeros(1, 1, dtype=torch.float64),
        torch.zeros(1, 1, d, dtype=torch.float64),
        WIDENING * torch.eye(d, dtype=torch.float64)[None, None],
        torch.full((1,), FREEDOM, dtype=torch.float64),
    )
    guard = EllipticalMixture(TMM(max_components=1), whitening, components).to(mixture.device)
    return Mixture(
        {**mixture.experts, GUARD: guard},
        torch.cat([(1 - share) * mixture.weights, torch.tensor([share])]),
        support=mixture.bounds,
        names=mixture.names,
        seed=mixture.seed,
        scale=mixture.scale,
        summary=mixture.summary,
    )
