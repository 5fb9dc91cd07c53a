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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts.checks import check_tensors, count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.flows.bijection import normal_nll
from amfvi.experts.flows.gaussianization import Gaussianization, Layer
from amfvi.experts.flows.marginals import (
    choose_rotation,
    equally_weighted_quantiles,
    marginal_knots,
    sort_rows,
)
from amfvi.experts.flows.spline import MonotoneSpline
from amfvi.experts.folds import Folds
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.early_stopping import EarlyStopping
from amfvi.experts.whitening import Whitening
from amfvi.statistics import effective_sample_size

__all__ = ["RBIG"]

MIN_ROWS = 10_000
"""Draws that are used in any case."""

MAX_NUMBERS = 300_000
"""Most numbers, draws times parameters, that layers are fitted to, draws chosen by folds: with
``MAX_KNOTS_RANGE`` knots, more of them change little but the time that a layer
takes. Where ``MIN_ROWS`` draws are more, layers are fitted in single precision."""

KNOTS_PER_ROOT_DRAW = 0.45
"""Most knots of a marginal map, as a multiple of the square root of the number of draws."""

MAX_KNOTS_RANGE = (12, 100)
"""Smallest and largest value of ``max_knots`` that the number of draws leads to."""

FIRST_KNOTS = 8
"""Most knots of the first layers: what is smooth is learned without the noise of details."""

KNOTS_GROWTH = 1.5
"""Factor of the most knots after every ``LAYERS_OF_A_GRAIN`` layers, up to ``max_knots``."""

LAYERS_OF_A_GRAIN = 10
"""Layers with the same most knots, before there are more."""


@dataclass(frozen=True, kw_only=True)
class RBIG(ExpertConfig):
    """Settings of a rotation-based iterative Gaussianization.

    Attributes:
        step_size: how far each layer goes from the identity to the estimated marginal
            map, in (0, 1].
        max_knots: most knots in a marginal map; None for one that grows as the
            square root of the number of draws. The first layers have fewer. Each layer
            takes a random number from a third of the most up, at random positions, so
            that no two layers round off the same detail.
        rotations: random candidates a layer chooses from, by the largest sliced
            Wasserstein-2 distance of their axes to the normal (Dai & Seljak 2021).
        max_layers: most layers.
        patience: layers without held-out improvement before the fit stops; it is
            then cut back to the best layer.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).exp()
        >>> expert = RBIG(max_layers=20).fit(x)
        >>> expert.log_prob(x).shape, expert.sample(1000).shape
        (torch.Size([200]), torch.Size([1000, 2]))
    """

    kind: ClassVar[str] = "rbig"
    step_name: ClassVar[str] = "layer"
    step_size: float = 0.5
    max_knots: int | None = None
    rotations: int = 1
    max_layers: int = 400
    patience: int = 20

    def __post_init__(self) -> None:
        self._require_positive("rotations", "max_layers", "patience")
        if not 0 < self.step_size <= 1:
            raise UsageError(f"rbig: step_size must be in (0, 1], found {self.step_size!r}")
        if self.max_knots is not None and self.max_knots < 3:
            raise UsageError(f"rbig: max_knots must be at least 3, found {self.max_knots!r}")

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Gaussianization, FitReport]:
        """Add layers until the held-out NLL stops improving; see :class:`ExpertConfig`."""
        if folds.given:
            raise UsageError(
                "rbig has no conditional form, its layers are fitted to draws of one density: "
                "leave it out"
            )
        folds.require_fittable(self.kind)
        folds = folds.at_most(max(MAX_NUMBERS // folds.dim, MIN_ROWS))
        stopping = EarlyStopping(
            patience=self.patience,
            max_steps=self.max_layers,
            limit_name="max_layers",
            progress=progress,
            timeout=timeout,
        )
        whitening = Whitening.fit(folds)
        points = _Points(folds, whitening, device)
        train_nll, heldout_nll = points.mean_nll()
        if not math.isfinite(heldout_nll):
            raise FitError("rbig: no finite held-out density at the start")
        stopping.record(0, train_nll, heldout_nll)
        layers: list[Layer] = []
        while stopping.reason is None:
            layers.append(self._next_layer(points, len(layers), generator))
            points.apply(layers[-1])
            stopping.record(len(layers), *points.mean_nll())
            stopping.should_stop()
        expert = Gaussianization(self, whitening.to(device), layers[: stopping.best_step])
        expert.verify(folds)
        return expert, stopping.report()

    def _most_knots(self, n_draws: int, number: int) -> int:
        """Most knots of a layer by its number, fitted to ``n_draws`` effective draws."""
        lowest, highest = MAX_KNOTS_RANGE
        by_draws = round(KNOTS_PER_ROOT_DRAW * math.sqrt(n_draws))
        most = self.max_knots or min(max(lowest, by_draws), highest)
        return round(min(most, FIRST_KNOTS * KNOTS_GROWTH ** (number // LAYERS_OF_A_GRAIN)))

    def _next_layer(self, points: _Points, number: int, generator: torch.Generator) -> Layer:
        """For each member a rotation of its training draws, with its marginal maps."""
        weights = points.row_weights
        fewest = min(len(rows) for rows in points.train_rows)
        if weights is not None:
            fewest = min(int(effective_sample_size(weights[rows])) for rows in points.train_rows)
        most = self._most_knots(fewest, number)
        blocks = int(torch.randint(max(3, most // 3), most + 1, (1,), generator=generator))
        blocks = max(1, min(blocks, fewest // 2))
        maps = []
        for z, rows in zip(points.z, points.train_rows, strict=True):
            draws = z[:, rows]
            rotation = choose_rotation(draws, self.rotations, generator)
            turned = rotation.to(draws) @ draws
            if weights is None:
                marginals = sort_rows(turned).double()
            else:
                marginals, order = turned.double().sort(dim=1)
                marginals = equally_weighted_quantiles(marginals, weights[rows][order])
            maps.append(
                (rotation, *marginal_knots(marginals, blocks, self.step_size, generator, fewest))
            )
        rotations, x, y = (torch.stack(parts) for parts in zip(*maps, strict=True))
        return Layer(rotations, MonotoneSpline.through(x, y))

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> Gaussianization:
        """Rebuild the expert whose :meth:`Gaussianization.tensors` these are."""
        knots = tensors.get("knots", torch.empty(0, dtype=torch.int64))
        if knots.ndim != 1 or knots.dtype != torch.int64 or bool((knots < 2).any()):
            raise InputError("rbig: tensor 'knots' must hold the knot count of each layer")
        members = count_members(tensors)
        shape = torch.Size
        joined = shape([members, dim, int(knots.sum())])
        expected = {"mean": shape([members, dim]), "factor": shape([members, dim, dim])}
        expected |= {"knots": knots.shape, "rotations": shape([members, dim, dim * len(knots)])}
        expected |= {"x": joined, "y": joined, "slope": joined}
        check_tensors(self.kind, expected, tensors)
        # Sizes are given in full: a split of nothing by one size is one part, not none.
        rotations = tensors["rotations"].double().split([dim] * len(knots), dim=2)
        counts = [int(k) for k in knots]
        x, y, slope = (tensors[name].double().split(counts, dim=2) for name in ("x", "y", "slope"))
        layers = [
            Layer(rotation.contiguous(), MonotoneSpline(*(part.contiguous() for part in spline)))
            for rotation, *spline in zip(rotations, x, y, slope, strict=True)
        ]
        for number, layer in enumerate(layers):
            _check_layer(number, layer)
        whitening = Whitening.from_factor(tensors["mean"], tensors["factor"])
        return Gaussianization(self, whitening, layers)


class _Points:
    """The draws under each member's layers so far, with their log-determinants."""

    def __init__(self, folds: Folds, whitening: Whitening, device: torch.device | str) -> None:
        members = range(folds.n_members)
        fold = folds.fold.to(device)
        z = whitening.forward(folds.draws.expand(folds.n_members, -1, -1)).to(device)
        self.z = z.float() if folds.draws.numel() > MAX_NUMBERS else z
        self.train_rows = [rows.to(device) for rows in folds.train_rows]
        weights = folds.normalized_weights.to(device)
        self.row_weights = None if folds.sample_weight is None else weights
        self._member_weights = weights.expand(folds.n_members, -1)
        self._log_det = whitening.log_det[:, None].to(device).expand(-1, len(folds))
        self._is_train = torch.stack([fold != f for f in members])
        self._is_heldout = torch.stack([fold == f for f in members])

    def apply(self, layer: Layer) -> None:
        """Map the points through one more layer."""
        self.z, log_det = layer.to(self.z.dtype).forward(self.z)
        self._log_det = self._log_det + log_det

    def mean_nll(self) -> tuple[float, float]:
        """Weighted mean NLL of training and held-out draws, nats."""
        nll = normal_nll(self.z, self._log_det)
        train, heldout = (
            (nll[chosen] * self._member_weights[chosen]).sum() / self._member_weights[chosen].sum()
            for chosen in (self._is_train, self._is_heldout)
        )
        return float(train), float(heldout)


def _check_layer(number: int, layer: Layer) -> None:
    """Reject a saved layer that is not an increasing map after a rotation."""
    spline, rotation = layer.spline, layer.rotation
    is_increasing = all(bool((t.diff(dim=2) > 0).all()) for t in (spline.x, spline.y))
    if not is_increasing or not bool((spline.slope > 0).all()):
        raise InputError(f"rbig: layer {number} of the saved model is not increasing")
    identity = torch.eye(rotation.shape[-1], dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.mT, identity.expand_as(rotation)):
        raise InputError(f"rbig: layer {number} of the saved model has no rotation")
