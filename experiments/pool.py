"""Experts fitted once to one data set, for every question that can be asked of them.

Experts are fitted independently of each other, so that a fit of nine can be asked what
any three of them would have made. A fitted pool is saved and used again by other studies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from amfvi.experts import ExpertConfig, resolve
from amfvi.targets import Target
from torch import Tensor

import amfvi
from amfvi.mixture import Mixture, cross_validated_log_densities, log_densities
from amfvi.randomness import stream
from amfvi.split import Split, split_target
from amfvi.stage_two import fit_weights
from amfvi.two_stages import fit_split

__all__ = ["TRIO", "Pool", "divergence"]

TRIO = ("maf", "realnvp", "rbig")


@dataclass(frozen=True)
class Pool:
    """Fitted experts with the split that they were fitted to.

    Attributes:
        tested: how many fresh draws they are scored on.
        heldout: log densities (n, K) of each held-out draw as if nothing had seen it, nats.
        seconds: that fitting the experts took, when they were fitted.
    """

    target: Target
    mixture: Mixture
    split: Split
    seed: int
    tested: int
    heldout: Tensor
    seconds: float | None

    @classmethod
    def of(
        cls,
        target: Target,
        n: int,
        seed: int,
        store: Path,
        experts: Sequence[str | ExpertConfig] = TRIO,
        folds: int = 5,
        label: str | None = None,
        *,
        tested: int,
    ) -> Pool:
        """Fitted now, or read if it has been fitted before.

        Args:
            label: of the experts, where they are not names.
            tested: fresh draws that they will be scored on.
        """
        split = split_target(target, n, 0, seed, 0, folds)
        name = label or "+".join(map(str, experts))
        path = store / f"{target.name}-{n}-{seed}-{folds}-{name}"
        seconds = path.with_name(f"{path.name}.seconds")
        if not path.is_dir():
            mixture, summary = fit_split(split, resolve(experts), seed=seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            seconds.write_text(json.dumps(summary.seconds["stage_one"]))
            mixture.save(path)
        saved = amfvi.load(path)
        # Weighted again, so that saved experts outlive a change of the rule.
        heldout = cross_validated_log_densities(saved.experts, split.folds)
        weights = fit_weights(heldout).weights
        mixture = Mixture(saved.experts, weights, seed=saved.seed, scale=saved.scale)
        took = json.loads(seconds.read_text()) if seconds.is_file() else None
        return cls(target, mixture, split, seed, tested, heldout, took)

    @property
    def names(self) -> list[str]:
        return list(self.mixture.experts)

    @cached_property
    def points(self) -> Tensor:
        """Fresh exact draws, (tested, d)."""
        return self.target.sample(self.tested, stream(self.seed, "fresh draws of a study"))

    @cached_property
    def fresh(self) -> tuple[Tensor, Tensor]:
        """Log densities of the truth (tested,) and of the experts (tested, K) there."""
        return self.at(self.points)

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same at points (m, d)."""
        return self.target.log_prob(x), log_densities(self.mixture.experts, x)


def divergence(log_p: Tensor, log_q: Tensor, weights: object) -> float:
    """Exact KL(p‖Σwₖqₖ) in nats from log densities (m,) and (m, K) at draws of p."""
    w = torch.as_tensor(weights, dtype=torch.float64)
    return float((log_p - torch.logsumexp(log_q + w.log(), dim=1)).mean())
