"""Experts that map draws to a standard normal by an invertible function."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from amfvi.experts.base import Expert, ExpertConfig
from amfvi.experts.folds import Folds
from amfvi.experts.pieces import in_pieces
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import FitError

__all__ = ["BijectiveExpert", "normal_nll"]

LOG_2PI = math.log(2 * math.pi)

# Whitened units beyond which a point is as far: its density is zero to any precision, and
# what layers make of it overflows.
FARTHEST = 1e9

# Rows of all members at a time, on a CPU so that what a layer makes of them stays in cache.
CPU_ROWS = 2**14
ACCELERATOR_ROWS = 2**20


def normal_nll(u: Tensor, log_det: Tensor) -> Tensor:
    """−log density of points mapped to ``u`` (…, d, n) with ``log_det`` (…, n), nats."""
    return 0.5 * (u.square().sum(dim=-2) + u.shape[-2] * LOG_2PI) - log_det


class BijectiveExpert(Expert):
    """log q(x) = log N(u; 0, I) + log |det du/dx| with u = f(L⁻¹(x − mean)).

    Subclasses supply f in whitened space as :meth:`_flow` and :meth:`_unflow`, for
    all members at once; the whitening and its Jacobian are added here, in float64.
    """

    def __init__(self, config: ExpertConfig, whitening: Whitening) -> None:
        super().__init__(config, whitening.dim, whitening.members)
        self.whitening = whitening

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points of each member (members, n, d) to normal scores (members, n, d).

        Also log |det du/dx|, (members, n), nats.
        """
        return in_pieces(self._forward, x, self._rows)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Normal scores (members, n, d) to points (members, n, d).

        Also log |det dx/du|, (members, n), nats.
        """
        return in_pieces(self._inverse, u, self._rows)

    def _log_prob(self, x: Tensor) -> Tensor:
        return in_pieces(self._density, x, self._rows)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.whitening.forward(x).clamp(-FARTHEST, FARTHEST)
        u, log_det = self._flow(z.to(x.dtype))
        return u.mT, log_det + self.whitening.log_det[:, None].to(x.dtype)

    def _inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self._unflow(u.mT.contiguous())
        log_det = log_det - self.whitening.log_det[:, None].to(u.dtype)
        return self.whitening.inverse(z).to(u.dtype), log_det

    def _density(self, x: Tensor) -> Tensor:
        u, log_det = self._forward(x)
        return -normal_nll(u.mT, log_det)

    @property
    def _rows(self) -> int:
        return CPU_ROWS if self.device.type == "cpu" else ACCELERATOR_ROWS

    def _sample(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        u = torch.randn(self.members, n, self.dim, generator=generator, dtype=torch.float64)
        return self.inverse(u.to(self.device, dtype))[0]

    @property
    def device(self) -> torch.device:
        return self.whitening.mean.device

    @abstractmethod
    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened points (members, d, n) to normal scores and log |det du/dz| (members, n)."""

    @abstractmethod
    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`_flow` and its own log-determinant."""

    def verify(self, folds: Folds, tolerance: float = 1e-6) -> None:
        """Check that the inverse undoes the map and that the log-determinants cancel.

        Errors are measured at held-out draws in float64 and in whitened units,
        relative to a point's distance from the centre where that exceeds 1.

        Raises:
            FitError: an error above ``tolerance``.
        """
        x = folds.draws[folds.is_heldout][:1000].to(self.device)
        x = x.expand(self.members, *x.shape)
        u, log_det = self.forward(x)
        back, inverse_log_det = self.inverse(u)
        z, z_back = self.whitening.forward(x), self.whitening.forward(back)
        distance = float(((z - z_back).abs() / z.abs().clamp(min=1)).max())
        discrepancy = float((log_det + inverse_log_det).abs().max())
        # Written so that a NaN fails too.
        if not (distance <= tolerance and discrepancy <= tolerance):
            raise FitError(
                f"{self.config.kind}: the fitted map is not invertible to {tolerance:g} "
                f"(round trip off by {distance:.2g}, log-determinant by {discrepancy:.2g})"
            )
