"""A fitted Gaussianization: alternating rotations and marginal maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.flows.spline import MonotoneSpline
from amfvi.experts.settings import Settings
from amfvi.experts.whitening import Whitening

__all__ = ["Gaussianization", "Layer"]


class Layer(NamedTuple):
    """z ← spline(rotation · z), member by member, on z of shape (members, d, n).

    Examples:
        >>> knots = torch.linspace(-1, 1, 5).double().repeat(1, 2, 1)
        >>> spline = MonotoneSpline.through(knots, 2 * knots)
        >>> layer = Layer(torch.eye(2).double()[None], spline)
        >>> z, log_det = layer.forward(torch.ones(1, 2, 1).double())
        >>> z.flatten().tolist(), round(float(log_det.exp()), 6)
        ([2.0, 2.0], 4.0)
    """

    rotation: Tensor
    spline: MonotoneSpline

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (members, d, n) and log-determinants (members, n)."""
        value, log_slope = self.spline.forward(self.rotation @ z)
        return value, log_slope.sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose values are ``z``, and log-determinants of the inverse."""
        value, log_slope = self.spline.inverse(z)
        return self.rotation.mT @ value, log_slope.sum(dim=1)

    def of_first_member(self) -> Layer:
        """That of the first member alone."""
        s = self.spline
        return Layer(self.rotation[:1], MonotoneSpline(s.x[:1], s.y[:1], s.slope[:1]))

    def to(self, target: torch.device | str | torch.dtype) -> Layer:
        """The same layer on another device or in another precision."""
        s = self.spline
        return Layer(
            self.rotation.to(target),
            MonotoneSpline(s.x.to(target), s.y.to(target), s.slope.to(target)),
        )


class Gaussianization(BijectiveExpert):
    """A fitted RBIG: layers in float64, with a copy for each other precision used.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = RBIG(max_layers=5).fit(x, folds=1)
        >>> len(expert.layers()) == expert.report.best_step
        True
    """

    def __init__(self, config: Settings, whitening: Whitening, layers: Sequence[Layer]) -> None:
        super().__init__(config, whitening)
        self._layers = {torch.float64: list(layers)}

    def layers(self, dtype: torch.dtype = torch.float64) -> list[Layer]:
        """The layers, first to last."""
        if dtype not in self._layers:
            self._layers[dtype] = [layer.to(dtype) for layer in self._layers[torch.float64]]
        return self._layers[dtype]

    def tensors(self) -> dict[str, Tensor]:
        """Whitening, rotations and knots by name, on the CPU, layer after layer."""
        layers = self.layers()
        splines = [layer.spline for layer in layers]
        empty = torch.empty(self.n_members, self.dim, 0, dtype=torch.float64)

        def join(parts: list[Tensor]) -> Tensor:
            return torch.cat([empty, *(p.cpu() for p in parts)], dim=2)

        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "rotations": join([layer.rotation for layer in layers]),
            "knots": torch.tensor([s.x.shape[2] for s in splines], dtype=torch.int64),
            "x": join([s.x for s in splines]),
            "y": join([s.y for s in splines]),
            "slope": join([s.slope for s in splines]),
        }

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        layers = [layer.to(device) for layer in self.layers()]
        moved = type(self)(self.config, self.whitening.to(device), layers)
        moved.report = self.report
        return moved

    def _keep_first_member(self) -> None:
        self._layers = {
            dtype: [layer.of_first_member() for layer in layers]
            for dtype, layers in self._layers.items()
        }

    def _to_normal(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0], z.shape[2])
        for layer in self.layers(z.dtype):
            z, term = layer.forward(z)
            log_det = log_det + term
        return z, log_det

    def _from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_det = u.new_zeros(u.shape[0], u.shape[2])
        for layer in reversed(self.layers(u.dtype)):
            u, term = layer.inverse(u)
            log_det = log_det + term
        return u, log_det
