"""Rotation-based iterative Gaussianization (Laparra, Camps-Valls & Malo 2011).

A layer rotates the draws and pushes every coordinate towards a standard normal;
many such layers make any density normal. Three choices differ from the original:
the marginal map is one smooth function that is both applied and differentiated (so
the density integrates to one), it has linear tails (so the density is positive
everywhere), and each layer goes only part of the way (so that noise in one layer's
quantiles is averaged out by the next, as shrinkage does in boosting).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from amfvi.experts.base import (
    Checkpoint,
    ExpertConfig,
    FitReport,
    Progress,
    match_tensors,
    require_finite_draws,
)
from amfvi.experts.bijection import LOG_2PI, BijectiveExpert
from amfvi.experts.spline import MonotoneSpline
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError

__all__ = ["RBIG", "Gaussianization"]

SCORING_DRAWS = 2000  # enough to rank candidate rotations
MIN_KNOT_GAP = 1e-4  # whitened units; tied draws would make knots coincide
MAX_LOG_SECANT = 4.0  # a secant of e⁴ or e⁻⁴ is noise or a tie, not a density


class Layer(NamedTuple):
    """z ← spline(rotation · z), on z of shape (d, n)."""

    rotation: Tensor
    spline: MonotoneSpline

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = self.spline.forward(self.rotation @ z)
        return value, log_slope.sum(dim=0)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = self.spline.inverse(z)
        return self.rotation.T @ value, log_slope.sum(dim=0)

    def to(self, where: torch.device | str | torch.dtype) -> Layer:
        s = self.spline
        return Layer(
            self.rotation.to(where),
            MonotoneSpline(s.x.to(where), s.y.to(where), s.slope.to(where)),
        )


class Gaussianization(BijectiveExpert):
    """A fitted RBIG: layers in float64, with a copy for each other precision used."""

    def __init__(self, config: RBIG, whitening: Whitening, layers: list[Layer]) -> None:
        super().__init__(config, whitening)
        self._layers = {torch.float64: layers}

    def _in(self, dtype: torch.dtype) -> list[Layer]:
        if dtype not in self._layers:
            self._layers[dtype] = [layer.to(dtype) for layer in self._layers[torch.float64]]
        return self._layers[dtype]

    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u, log_det = z.T.contiguous(), z.new_zeros(len(z))
        for layer in self._in(z.dtype):
            u, term = layer.forward(u)
            log_det = log_det + term
        return u.T, log_det

    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = u.T.contiguous(), u.new_zeros(len(u))
        for layer in reversed(self._in(u.dtype)):
            z, term = layer.inverse(z)
            log_det = log_det + term
        return z.T, log_det

    def tensors(self) -> dict[str, Tensor]:
        layers = self._layers[torch.float64]
        splines = [layer.spline for layer in layers]
        d = self.dim

        def joined(parts: list[Tensor]) -> Tensor:
            empty = torch.empty(d, 0, dtype=torch.float64)
            return torch.cat([empty, *(p.cpu() for p in parts)], dim=1)

        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "rotations": joined([layer.rotation for layer in layers]),
            "knots": torch.tensor([s.x.shape[1] for s in splines], dtype=torch.int64),
            "x": joined([s.x for s in splines]),
            "y": joined([s.y for s in splines]),
            "slope": joined([s.slope for s in splines]),
        }

    def to(self, device: torch.device | str) -> Self:
        layers = [layer.to(device) for layer in self._layers[torch.float64]]
        return type(self)(self.config, self.whitening.to(device), layers)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class RBIG(ExpertConfig):
    """Settings of a rotation-based iterative Gaussianization.

    Attributes:
        step: how far each layer goes from the identity to the estimated marginal
            map, in (0, 1].
        max_knots: most knots in a marginal map; None for one that grows as the
            square root of the number of draws. Each layer takes a random number
            from a third of that up, at random positions, so that no two layers
            round off the same detail.
        rotations: candidates a layer chooses from, by the largest sliced
            Wasserstein-2 distance of their axes to the normal (Dai & Seljak 2021).
        max_layers: most layers.
        patience: layers without held-out improvement before the fit stops; it is
            then cut back to the best layer.
    """

    kind: ClassVar[str] = "rbig"
    step: float = 0.2
    max_knots: int | None = None
    rotations: int = 8
    max_layers: int = 400
    patience: int = 20

    def __post_init__(self) -> None:
        self._require_positive("rotations", "max_layers", "patience")
        if not 0 < self.step <= 1:
            raise UsageError(f"rbig: step must be in (0, 1], found {self.step!r}")
        if self.max_knots is not None and self.max_knots < 3:
            raise UsageError(f"rbig: max_knots must be at least 3, found {self.max_knots!r}")

    def fit(
        self,
        train: Tensor,
        heldout: Tensor,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[Gaussianization, FitReport]:
        started = time.monotonic()
        require_finite_draws(self.kind, train, heldout)
        whitening = Whitening.fit(train)
        z = whitening.forward(train).to(device).T.contiguous()
        h = whitening.forward(heldout).to(device).T.contiguous()
        z_log_det, h_log_det = z.new_zeros(z.shape[1]), h.new_zeros(h.shape[1])
        scores = _normal_scores(z.shape[1], z)

        def checkpoint(step: int) -> Checkpoint:
            return Checkpoint(
                step=step,
                train_nll=_nll(z, z_log_det) - whitening.log_det,
                heldout_nll=_nll(h, h_log_det) - whitening.log_det,
            )

        history = [checkpoint(0)]
        if not math.isfinite(history[0].heldout_nll):
            raise FitError("rbig: no finite held-out density at the start")
        layers: list[Layer] = []
        best_step, best_nll = 0, history[0].heldout_nll
        stopped_by, converged = "max_layers", False
        for step in range(1, self.max_layers + 1):
            layer = self._next_layer(z, scores, generator)
            z, term = layer.forward(z)
            z_log_det = z_log_det + term
            h, term = layer.forward(h)
            h_log_det = h_log_det + term
            layers.append(layer)
            history.append(checkpoint(step))
            if history[-1].heldout_nll < best_nll:
                best_step, best_nll = step, history[-1].heldout_nll
            if progress is not None:
                progress(step / self.max_layers, best_nll)
            if step - best_step >= self.patience:
                stopped_by, converged = "no further improvement on held-out draws", True
                break
            if time_limit is not None and time.monotonic() - started > time_limit:
                stopped_by = "timeout"
                break
        expert = Gaussianization(self, whitening.to(device), layers[:best_step])
        expert.verify(heldout[:1000].to(device))
        return expert, FitReport(
            history=tuple(history),
            best_step=best_step,
            converged=converged,
            stopped_by=stopped_by,
            seconds=time.monotonic() - started,
        )

    def _next_layer(self, z: Tensor, scores: Tensor, generator: torch.Generator) -> Layer:
        """The best candidate rotation of z (d, n) with its marginal maps."""
        subset = z[:, :SCORING_DRAWS]
        subset_scores = _normal_scores(subset.shape[1], z)
        candidates = [_random_rotation(len(z), generator).to(z) for _ in range(self.rotations)]
        distances = [
            ((r @ subset).sort(dim=1).values - subset_scores).square().mean() for r in candidates
        ]
        rotation = candidates[int(torch.stack(distances).argmax())]
        marginals = (rotation @ z).sort(dim=1).values
        return Layer(rotation, self._marginal_maps(marginals, scores, generator))

    def _marginal_maps(
        self, marginals: Tensor, scores: Tensor, generator: torch.Generator
    ) -> MonotoneSpline:
        """Splines from sorted coordinates (d, n) part of the way to normal scores (n,).

        A knot is the mean of a block of neighbouring order statistics against the
        mean of their normal scores: quantiles smoothed by averaging.
        """
        n = marginals.shape[1]
        most = self.max_knots or min(max(12, round(0.45 * math.sqrt(n))), 100)
        blocks = int(torch.randint(max(3, most // 3), most + 1, (1,), generator=generator))
        phase = 0.1 + 0.8 * float(torch.rand(1, generator=generator))
        inner = (torch.arange(blocks) + phase) * n / blocks
        edges = torch.cat([torch.zeros(1), inner, torch.full((1,), float(n))])
        edges = edges.round().long().unique().to(marginals.device)
        x, y = _block_means(marginals, edges), _block_means(scores[None], edges)
        x_gap = x.diff(dim=1).clamp(min=MIN_KNOT_GAP)
        secant = (y.diff(dim=1) / x_gap).clamp(math.exp(-MAX_LOG_SECANT), math.exp(MAX_LOG_SECANT))
        y_gap = x_gap * (1 + self.step * (secant - 1))
        first_x = x[:, :1]
        first_y = first_x + self.step * (y[:, :1] - first_x)
        return MonotoneSpline.through(_accumulate(first_x, x_gap), _accumulate(first_y, y_gap))

    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> Gaussianization:
        knots = tensors.get("knots", torch.empty(0, dtype=torch.int64))
        if knots.ndim != 1 or knots.dtype != torch.int64 or bool((knots < 2).any()):
            raise InputError("rbig: tensor 'knots' must hold the knot count of each layer")
        shape = torch.Size
        joined = shape([dim, int(knots.sum())])
        expected = {"mean": shape([dim]), "factor": shape([dim, dim]), "knots": knots.shape}
        expected |= {"rotations": shape([dim, dim * len(knots)])}
        expected |= {"x": joined, "y": joined, "slope": joined}
        match_tensors(self.kind, expected, tensors)
        rotations = tensors["rotations"].double().split(dim, dim=1)
        counts = [int(k) for k in knots]
        parts = (tensors[name].double().split(counts, dim=1) for name in ("x", "y", "slope"))
        splines = [
            MonotoneSpline(*(p.contiguous() for p in knot)) for knot in zip(*parts, strict=True)
        ]
        for number, (rotation, spline) in enumerate(zip(rotations, splines, strict=True)):
            increasing = all(bool((t.diff(dim=1) > 0).all()) for t in (spline.x, spline.y))
            if not increasing or not bool((spline.slope > 0).all()):
                raise InputError(f"rbig: layer {number} of the saved model is not increasing")
            if not torch.allclose(rotation @ rotation.T, torch.eye(dim, dtype=rotation.dtype)):
                raise InputError(f"rbig: layer {number} of the saved model has no rotation")
        layers = [Layer(r.contiguous(), s) for r, s in zip(rotations, splines, strict=True)]
        return Gaussianization(self, Whitening.of(tensors["mean"], tensors["factor"]), layers)


def _nll(z: Tensor, log_det: Tensor) -> float:
    """Mean negative log density of z (d, n) mapped with these log-determinants, nats."""
    return float((0.5 * (z.square().sum(dim=0) + len(z) * LOG_2PI) - log_det).mean())


def _normal_scores(n: int, like: Tensor) -> Tensor:
    """Φ⁻¹((i + ½)/n) for i = 0 … n−1."""
    ranks = torch.arange(n, dtype=like.dtype, device=like.device)
    return torch.special.ndtri((ranks + 0.5) / n)


def _random_rotation(d: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal (d, d) matrix, float64."""
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q


def _block_means(values: Tensor, edges: Tensor) -> Tensor:
    """Means of values (d, n) over the column blocks between consecutive edges."""
    sums = torch.cat([values.new_zeros(len(values), 1), values.cumsum(dim=1)], dim=1)
    return sums[:, edges].diff(dim=1) / edges.diff()


def _accumulate(first: Tensor, gaps: Tensor) -> Tensor:
    """(d, 1) and (d, K−1) gaps to (d, K) positions."""
    return torch.cat([first, first + gaps.cumsum(dim=1)], dim=1)
