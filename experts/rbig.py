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
    members_of,
)
from amfvi.experts.bijection import BijectiveExpert, normal_nll
from amfvi.experts.folds import Folds
from amfvi.experts.spline import MonotoneSpline
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.weighting import effective_sample_size

__all__ = ["RBIG", "Gaussianization"]

SCORING_DRAWS = 2000  # enough to rank candidate rotations
MIN_KNOT_GAP = 1e-4  # whitened units; tied draws would make knots coincide
MAX_LOG_SECANT = 4.0  # a secant of e⁴ or e⁻⁴ is noise or a tie, not a density


class Layer(NamedTuple):
    """z ← spline(rotation · z), member by member, on z of shape (members, d, n)."""

    rotation: Tensor
    spline: MonotoneSpline

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = self.spline.forward(self.rotation @ z)
        return value, log_slope.sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = self.spline.inverse(z)
        return self.rotation.mT @ value, log_slope.sum(dim=1)

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

    def layers(self, dtype: torch.dtype = torch.float64) -> list[Layer]:
        """The layers, first to last."""
        if dtype not in self._layers:
            self._layers[dtype] = [layer.to(dtype) for layer in self._layers[torch.float64]]
        return self._layers[dtype]

    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0], z.shape[2])
        for layer in self.layers(z.dtype):
            z, term = layer.forward(z)
            log_det = log_det + term
        return z, log_det

    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_det = u.new_zeros(u.shape[0], u.shape[2])
        for layer in reversed(self.layers(u.dtype)):
            u, term = layer.inverse(u)
            log_det = log_det + term
        return u, log_det

    def tensors(self) -> dict[str, Tensor]:
        layers = self.layers()
        splines = [layer.spline for layer in layers]
        empty = torch.empty(self.members, self.dim, 0, dtype=torch.float64)

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat([empty, *(p.cpu() for p in parts)], dim=2)

        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "rotations": joined([layer.rotation for layer in layers]),
            "knots": torch.tensor([s.x.shape[2] for s in splines], dtype=torch.int64),
            "x": joined([s.x for s in splines]),
            "y": joined([s.y for s in splines]),
            "slope": joined([s.slope for s in splines]),
        }

    def to(self, device: torch.device | str) -> Self:
        layers = [layer.to(device) for layer in self.layers()]
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
        rotations: random candidates a layer chooses from, by the largest sliced
            Wasserstein-2 distance of their axes to the normal (Dai & Seljak 2021).
        max_layers: most layers.
        patience: layers without held-out improvement before the fit stops; it is
            then cut back to the best layer.
    """

    kind: ClassVar[str] = "rbig"
    step: float = 0.5
    max_knots: int | None = None
    rotations: int = 1
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
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[Gaussianization, FitReport]:
        started = time.monotonic()
        folds.require_fittable(self.kind)
        whitening = Whitening.fit(folds)
        z = whitening.forward(folds.draws.expand(folds.members, -1, -1)).to(device)
        log_det = whitening.log_det[:, None].to(device).expand(-1, len(folds))
        fold = folds.fold.to(device)
        train_rows = [rows.to(device) for rows in folds.train_rows]
        is_train = torch.stack([fold != f for f in range(folds.members)])
        is_heldout = torch.stack([fold == f for f in range(folds.members)])
        each_weight = folds.weights.to(device).expand(folds.members, -1)
        row_weights = None if folds.weight is None else folds.weights.to(device)

        def checkpoint(step: int) -> Checkpoint:
            nll = normal_nll(z, log_det)
            return Checkpoint(
                step=step,
                train_nll=_mean(nll[is_train], each_weight[is_train]),
                heldout_nll=_mean(nll[is_heldout], each_weight[is_heldout]),
            )

        history = [checkpoint(0)]
        if not math.isfinite(history[0].heldout_nll):
            raise FitError("rbig: no finite held-out density at the start")
        layers: list[Layer] = []
        best_step, best_nll = 0, history[0].heldout_nll
        stopped_by, converged = "max_layers", False
        for step in range(1, self.max_layers + 1):
            layer = self._next_layer(z, train_rows, row_weights, generator)
            z, term = layer.forward(z)
            log_det = log_det + term
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
        expert.verify(folds)
        return expert, FitReport(
            history=tuple(history),
            best_step=best_step,
            converged=converged,
            stopped_by=stopped_by,
            seconds=time.monotonic() - started,
        )

    def _next_layer(
        self,
        z: Tensor,
        train_rows: list[Tensor],
        weights: Tensor | None,
        generator: torch.Generator,
    ) -> Layer:
        """For each member a rotation of its training draws, with its marginal maps."""
        fewest = min(len(rows) for rows in train_rows)
        if weights is not None:
            fewest = min(int(effective_sample_size(weights[rows])) for rows in train_rows)
        most = self.max_knots or min(max(12, round(0.45 * math.sqrt(fewest))), 100)
        blocks = int(torch.randint(max(3, most // 3), most + 1, (1,), generator=generator))
        blocks = max(1, min(blocks, fewest // 2))
        parts = []
        for one, rows in zip(z, train_rows, strict=True):
            draws = one[:, rows]
            rotation = self._rotation(draws, generator)
            marginals, order = (rotation @ draws).sort(dim=1)
            if weights is not None:
                marginals = _equally_weighted(marginals, weights[rows][order])
            parts.append((rotation, *self._knots(marginals, blocks, generator)))
        rotations, x, y = (torch.stack(part) for part in zip(*parts, strict=True))
        return Layer(rotations, MonotoneSpline.through(x, y))

    def _rotation(self, draws: Tensor, generator: torch.Generator) -> Tensor:
        """The candidate along whose axes ``draws`` (d, n) look least normal, (d, d)."""
        d = len(draws)
        candidates = [_random_rotation(d, generator).to(draws) for _ in range(self.rotations)]
        if len(candidates) == 1:
            return candidates[0]
        subset = draws[:, :SCORING_DRAWS]
        scores = _normal_scores(subset.shape[1], subset)
        distances = [((r @ subset).sort(dim=1).values - scores).square().mean() for r in candidates]
        return candidates[int(torch.stack(distances).argmax())]

    def _knots(
        self, marginals: Tensor, blocks: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Knots of maps from sorted coordinates (d, n) part of the way to normal scores.

        A knot is the mean of a block of neighbouring order statistics against the
        mean of their normal scores: quantiles smoothed by averaging.
        """
        n = marginals.shape[1]
        scores = _normal_scores(n, marginals)
        phase = 0.1 + 0.8 * float(torch.rand(1, generator=generator))
        inner = ((torch.arange(blocks) + phase) * n / blocks).round().long().clamp(1, n - 1)
        edges = torch.cat([torch.tensor([0]), inner, torch.tensor([n])]).to(marginals.device)
        x, y = _block_means(marginals, edges), _block_means(scores[None], edges)
        x_gap = x.diff(dim=1).clamp(min=MIN_KNOT_GAP)
        secant = (y.diff(dim=1) / x_gap).clamp(math.exp(-MAX_LOG_SECANT), math.exp(MAX_LOG_SECANT))
        y_gap = x_gap * (1 + self.step * (secant - 1))
        first_x = x[:, :1]
        first_y = first_x + self.step * (y[:, :1] - first_x)
        return _accumulate(first_x, x_gap), _accumulate(first_y, y_gap)

    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> Gaussianization:
        knots = tensors.get("knots", torch.empty(0, dtype=torch.int64))
        if knots.ndim != 1 or knots.dtype != torch.int64 or bool((knots < 2).any()):
            raise InputError("rbig: tensor 'knots' must hold the knot count of each layer")
        members = members_of(tensors)
        shape = torch.Size
        joined = shape([members, dim, int(knots.sum())])
        expected = {"mean": shape([members, dim]), "factor": shape([members, dim, dim])}
        expected |= {"knots": knots.shape, "rotations": shape([members, dim, dim * len(knots)])}
        expected |= {"x": joined, "y": joined, "slope": joined}
        match_tensors(self.kind, expected, tensors)
        rotations = tensors["rotations"].double().split(dim, dim=2)
        counts = [int(k) for k in knots]
        parts = (tensors[name].double().split(counts, dim=2) for name in ("x", "y", "slope"))
        splines = [
            MonotoneSpline(*(p.contiguous() for p in knot)) for knot in zip(*parts, strict=True)
        ]
        identity = torch.eye(dim, dtype=torch.float64)
        for number, (rotation, spline) in enumerate(zip(rotations, splines, strict=True)):
            increasing = all(bool((t.diff(dim=2) > 0).all()) for t in (spline.x, spline.y))
            if not increasing or not bool((spline.slope > 0).all()):
                raise InputError(f"rbig: layer {number} of the saved model is not increasing")
            if not torch.allclose(rotation @ rotation.mT, identity.expand_as(rotation)):
                raise InputError(f"rbig: layer {number} of the saved model has no rotation")
        layers = [Layer(r.contiguous(), s) for r, s in zip(rotations, splines, strict=True)]
        return Gaussianization(self, Whitening.of(tensors["mean"], tensors["factor"]), layers)


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


def _equally_weighted(ordered: Tensor, weights: Tensor) -> Tensor:
    """As many quantiles, of equal weight, of sorted values with weights, (d, n) each."""
    middles = (weights.cumsum(dim=1) - weights / 2) / weights.sum(dim=1, keepdim=True)
    n = ordered.shape[1]
    wanted = (torch.arange(n, device=ordered.device) + 0.5).to(middles) / n
    wanted = wanted.expand_as(middles).contiguous()
    right = torch.searchsorted(middles, wanted).clamp(1, n - 1)
    from_left, from_right = middles.gather(1, right - 1), middles.gather(1, right)
    share = ((wanted - from_left) / (from_right - from_left).clamp(min=1e-300)).clamp(0, 1)
    return torch.lerp(ordered.gather(1, right - 1), ordered.gather(1, right), share)


def _mean(values: Tensor, weights: Tensor) -> float:
    return float((values * weights).sum() / weights.sum())


def _accumulate(first: Tensor, gaps: Tensor) -> Tensor:
    """(d, 1) and (d, K−1) gaps to (d, K) positions."""
    return torch.cat([first, first + gaps.cumsum(dim=1)], dim=1)
