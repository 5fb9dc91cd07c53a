"""Experts fitted once per data set, for every study that asks about them.

Experts are fitted independently of each other, so that a fit of nine shows what any
three of them would have given. A fitted pool is saved and used again by other studies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import amfvi
from amfvi.experts import DEFAULT, ExpertConfig
from amfvi.experts.matrix import log_densities, optimism_corrected_log_densities
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.saving import save
from amfvi.targets import ExactTarget
from amfvi.two_stage.fit import fit_split
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.split import Split, split_target
from experiments.lab.tables import Row
from experiments.lab.targets import exact_target

__all__ = ["TRIO", "Pool", "draw_test_points", "kl_divergence", "trio_pool"]

TRIO = DEFAULT
"""The three experts of the paper."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Fitted experts with the split that they were fitted to.

    Attributes:
        target: that all draws come from.
        mixture: the experts, weighted by the default rule.
        split: draws and folds.
        seed: of the split and of the fit.
        n_test: how many fresh draws the experts are scored on.
        heldout: log densities (n, K) at the held-out draws, corrected for optimism, nats.
        seconds: that fitting the experts took.
    """

    target: ExactTarget
    mixture: Mixture
    split: Split
    seed: int
    n_test: int
    heldout: Tensor
    seconds: float

    @classmethod
    def load_or_fit(
        cls,
        target: ExactTarget,
        n_draws: int,
        seed: int,
        folder: Path,
        *,
        experts: Sequence[str | ExpertConfig] = TRIO,
        label: str | None = None,
        folds: int = 5,
        n_test: int,
    ) -> Pool:
        """Read a pool from a folder of fits, or fit it and save it there.

        Args:
            label: of the experts, where they are not names.
            n_test: fresh draws to score the experts on.
        """
        split = split_target(target, n_draws, seed=seed, n_test=0, folds=folds)
        label = label or "+".join(map(str, experts))
        path = folder / f"{target.name}-{n_draws}-{seed}-{folds}-{label}"
        seconds = path.with_name(f"{path.name}.seconds")
        if not path.is_dir():
            options = FitOptions(experts=experts, folds=folds, seed=seed, device="cpu")
            mixture, summary = fit_split(split, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            seconds.write_text(json.dumps(summary.seconds["stage_one"]))
            save(mixture, path)
        saved = amfvi.load_posterior(path)
        heldout = optimism_corrected_log_densities(saved.experts, split.folds)
        return cls(
            target=target,
            mixture=saved,
            split=split,
            seed=seed,
            n_test=n_test,
            heldout=heldout,
            seconds=json.loads(seconds.read_text()),
        )

    @property
    def names(self) -> list[str]:
        return list(self.mixture.experts)

    @cached_property
    def points(self) -> Tensor:
        """Fresh exact draws, (n_test, d)."""
        return draw_test_points(self.target, self.n_test, self.seed)

    @cached_property
    def test_log_densities(self) -> tuple[Tensor, Tensor]:
        """Log densities of the target (n_test,) and the experts (n_test, K) at ``points``."""
        return self.log_densities_at(self.points)

    def log_densities_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities of the target (m,) and of the experts (m, K) at points (m, d)."""
        return self.target.log_prob(x), log_densities(self.mixture.experts, x)


def trio_pool(cell: Row, folder: Path) -> Pool:
    """Read or fit the trio for a cell with the keys target, n, seed and n_test."""
    target = exact_target(cell["target"])
    return Pool.load_or_fit(target, cell["n"], cell["seed"], folder, n_test=cell["n_test"])


def draw_test_points(target: ExactTarget, n_test: int, seed: int) -> Tensor:
    """Draw the points that fits of this seed are scored on, (n_test, d)."""
    return target.sample(n_test, generator_for(seed, "fresh draws of a study"))


def kl_divergence(log_p: Tensor, log_q: Tensor, weights: object) -> float:
    """Estimate KL(p‖Σwₖqₖ), nats, from log densities (m,) and (m, K) at draws of p."""
    w = torch.as_tensor(weights, dtype=torch.float64)
    return float((log_p - torch.logsumexp(log_q + w.log(), dim=1)).mean())
