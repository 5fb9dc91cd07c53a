"""Mixtures of Gaussians and of Student-t distributions, as experts."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from amfvi.experts.base import (
    Checkpoint,
    Expert,
    ExpertConfig,
    FitReport,
    Progress,
    match_tensors,
    members_of,
)
from amfvi.experts.em import Components, expectation_maximisation
from amfvi.experts.folds import Folds
from amfvi.experts.pieces import in_pieces
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError

__all__ = ["EllipticalConfig", "EllipticalMixture"]

LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 64)
# Numbers held at a time while densities are evaluated, on a CPU so that they stay in cache.
ROOM = 2**18
ACCELERATOR_ROOM = 2**26


class EllipticalMixture(Expert):
    """Fitted components behind a whitening that all members share."""

    def __init__(
        self, config: EllipticalConfig, whitening: Whitening, components: Components
    ) -> None:
        members, self._count, dim = components.means.shape
        super().__init__(config, dim, members)
        self.whitening = whitening
        self.components = components
        self._gaussian = bool(torch.isinf(components.freedom).all())
        identity = torch.eye(dim, dtype=torch.float64, device=self.device)
        inverse = torch.linalg.solve_triangular(
            components.factors, identity.expand_as(components.factors), upper=False
        )
        self._scale = inverse.reshape(members, -1, dim)  # all L⁻¹ under one another
        towards = inverse @ components.means[..., None]
        self._shift = -towards.reshape(members, -1, 1)

    def _log_prob(self, x: Tensor) -> Tensor:
        room = ROOM if x.device.type == "cpu" else ACCELERATOR_ROOM
        return in_pieces(self._density, x, max(1, room // (self._count * self.dim)))

    def _density(self, x: Tensor) -> Tensor:
        scale, shift = self._scale.to(x.dtype), self._shift.to(x.dtype)
        z = self.whitening.forward(x).to(x.dtype)
        standard = torch.baddbmm(shift, scale, z)
        squared = standard.square().unflatten(1, (self._count, self.dim)).sum(dim=2)
        joint = self.components.log_joint(squared, self._gaussian)
        return joint.logsumexp(dim=1) + float(self.whitening.log_det)

    def _sample(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        parts = self.components
        weights = parts.log_weights.exp().cpu()
        which = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(self.members, n, self.dim, generator=generator, dtype=torch.float64)
        if not self._gaussian:
            random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
            freedom = parts.freedom.cpu().numpy()[:, None]
            spread = torch.from_numpy(freedom / random.chisquare(freedom, (self.members, n)))
            noise = noise * spread.sqrt()[..., None]
        member = torch.arange(self.members)[:, None]
        means, factors = parts.means.cpu()[member, which], parts.factors.cpu()[member, which]
        z = means + (factors @ noise[..., None]).squeeze(-1)
        return self.whitening.inverse(z.mT.to(self.device)).to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        parts = self.components
        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "log_weights": parts.log_weights.cpu(),
            "means": parts.means.cpu(),
            "factors": parts.factors.cpu(),
            # Zero stands for infinity: what is saved is finite.
            "inverse_freedom": (1 / parts.freedom).cpu(),
        }

    def to(self, device: torch.device | str) -> Self:
        parts = self.components
        moved = Components(
            parts.log_weights.to(device),
            parts.means.to(device),
            parts.factors.to(device),
            parts.freedom.to(device),
        )
        return type(self)(self.config, self.whitening.to(device), moved)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.whitening.mean.device


@dataclass(frozen=True, kw_only=True)
class EllipticalConfig(ExpertConfig):
    """Settings of a mixture of elliptical components with full scatter matrices.

    The number of components goes up a ladder (1, 2, 3, 4, 5, 6, 8, …) until
    the held-out density has not improved on ``patience`` rungs; the best is kept.

    Attributes:
        max_components: where the ladder ends.
        patience: rungs without improvement before the climb stops.
        tolerance: gain in nats of the mean training log density that ends EM.
        max_iterations: most EM iterations a rung.
    """

    max_components: int = 64
    patience: int = 2
    tolerance: float = 3e-4
    max_iterations: int = 500

    gaussian: ClassVar[bool]

    def __post_init__(self) -> None:
        self._require_positive("max_components", "patience", "tolerance", "max_iterations")
        if self.max_components > LADDER[-1]:
            raise UsageError(
                f"{self.kind}: max_components must be at most {LADDER[-1]}, "
                f"found {self.max_components}"
            )

    def fit(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[EllipticalMixture, FitReport]:
        started = time.monotonic()
        folds.require_fittable(self.kind)
        # For the numbers' sake only: EM means the same in any affine coordinates.
        whitening = Whitening.pooled(folds.draws, folds.weight)
        z = whitening.forward(folds.draws[None])[0].T.to(device)
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        level = -float(whitening.log_det)
        best: Components | None = None
        best_nll, best_step, stale = math.inf, 0, 0
        history: list[Checkpoint] = []
        stopped_by, converged = "max_components", False
        fewest = min(len(rows) for rows in folds.train_rows)
        rungs = [k for k in LADDER if k <= self.max_components and k * (folds.dim + 1) <= fewest]
        for k in rungs or [1]:
            found, train_nll, heldout_nll = expectation_maximisation(
                z,
                folds,
                k,
                gaussian=self.gaussian,
                random=random,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )
            history.append(
                Checkpoint(step=k, train_nll=train_nll + level, heldout_nll=heldout_nll + level)
            )
            if history[-1].heldout_nll < best_nll:
                best, best_nll, best_step, stale = found, history[-1].heldout_nll, k, 0
            else:
                stale += 1
            if progress is not None:
                progress(k / LADDER[-1], best_nll)
            if stale >= self.patience:
                stopped_by, converged = "no further improvement on held-out draws", True
                break
            if time_limit is not None and time.monotonic() - started > time_limit:
                stopped_by = "timeout"
                break
        if best is None:
            raise FitError(f"{self.kind}: no mixture has a finite held-out density")
        return EllipticalMixture(self, whitening.to(device), best), FitReport(
            history=tuple(history),
            best_step=best_step,
            converged=converged,
            stopped_by=stopped_by,
            seconds=time.monotonic() - started,
        )

    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> EllipticalMixture:
        log_weights = tensors.get("log_weights", torch.zeros(1, 1))
        members, count = log_weights.shape if log_weights.ndim == 2 else (members_of(tensors), 1)
        shape = torch.Size
        match_tensors(
            self.kind,
            {
                "mean": shape([1, dim]),
                "factor": shape([1, dim, dim]),
                "log_weights": shape([members, count]),
                "means": shape([members, count, dim]),
                "factors": shape([members, count, dim, dim]),
                "inverse_freedom": shape([members]),
            },
            tensors,
        )
        factors = tensors["factors"].double()
        lower = not bool(factors.triu(1).any())
        if not lower or not bool((factors.diagonal(dim1=-2, dim2=-1) > 0).all()):
            raise InputError(f"{self.kind}: a factor is not lower triangular and positive")
        if not torch.allclose(log_weights.double().exp().sum(dim=1), torch.ones(()).double()):
            raise InputError(f"{self.kind}: the component weights do not sum to one")
        freedom = 1 / tensors["inverse_freedom"].double()
        if bool((freedom <= 0).any()) or bool(torch.isinf(freedom).all()) != self.gaussian:
            raise InputError(f"{self.kind}: the degrees of freedom are not those of a {self.kind}")
        components = Components(log_weights.double(), tensors["means"].double(), factors, freedom)
        return EllipticalMixture(self, Whitening.of(tensors["mean"], tensors["factor"]), components)
