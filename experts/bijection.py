"""Experts that map draws to a standard normal by an invertible function."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from amfvi.experts.base import Expert, ExpertConfig
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import FitError

__all__ = ["BijectiveExpert"]

LOG_2PI = math.log(2 * math.pi)


class BijectiveExpert(Expert):
    """log q(x) = log N(u; 0, I) + log |det du/dx| with u = f(L⁻¹(x − mean)).

    Subclasses supply f in whitened space as :meth:`_flow` and :meth:`_unflow`;
    the whitening and its Jacobian are added here, in float64.
    """

    def __init__(self, config: ExpertConfig, whitening: Whitening) -> None:
        super().__init__(config, len(whitening.mean))
        self.whitening = whitening

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, d) to normal scores (n, d) and log |det du/dx| (n,), nats."""
        u, log_det = self._flow(self.whitening.forward(x).to(x.dtype))
        return u, log_det + self.whitening.log_det

    @torch.no_grad()
    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Normal scores (n, d) to points (n, d) and log |det dx/du| (n,), nats."""
        z, log_det = self._unflow(u)
        return self.whitening.inverse(z).to(u.dtype), log_det - self.whitening.log_det

    def _log_prob(self, x: Tensor) -> Tensor:
        u, log_det = self.forward(x)
        return log_det - 0.5 * (u.square().sum(dim=1) + self.dim * LOG_2PI)

    def _sample(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        u = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return self.inverse(u.to(self.device, dtype))[0]

    @property
    def device(self) -> torch.device:
        return self.whitening.mean.device

    @abstractmethod
    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened points to normal scores and log |det du/dz|, dtype of ``z``."""

    @abstractmethod
    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`_flow` and its own log-determinant."""

    def verify(self, x: Tensor, tolerance: float = 1e-6) -> None:
        """Check that the inverse undoes the map and that the log-determinants cancel.

        Errors are measured at points ``x`` (n, d) in float64 and in whitened
        units, relative to a point's distance from the centre where that exceeds 1.

        Raises:
            FitError: an error above ``tolerance``.
        """
        x = x.double()
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
