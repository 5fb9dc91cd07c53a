"""Experts that map draws to a standard normal by an invertible function."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor

from amfvi.errors import FitError
from amfvi.experts.base import Expert
from amfvi.experts.folds import Folds
from amfvi.experts.parallel import map_chunked
from amfvi.experts.settings import Settings
from amfvi.experts.whitening import Whitening

__all__ = ["BijectiveExpert", "normal_nll"]

LOG_2PI = math.log(2 * math.pi)
"""Twice the normalizing constant of the standard normal in one dimension, nats."""

MAX_DISTANCE = 1e9
"""Whitened coordinates are clamped here: the density is zero to any precision long before,
and what layers make of larger numbers overflows."""

CPU_ROWS = 2**14
"""Rows of all members per chunk on a CPU, so that a layer's results stay in cache."""

ACCELERATOR_ROWS = 2**20
"""Most rows of all members per chunk on an accelerator."""

ACCELERATOR_NUMBERS = 2**23
"""Most coordinates of these rows: a spline has 23 parameters for each, and several tensors of them
at a time, so that a million rows of a hundred coordinates would take tens of gigabytes."""

MAX_VERIFIED_DRAWS = 1000
"""Most held-out draws at which a fitted map is checked to be invertible."""

MAX_ILL_CONDITIONED = 0.01
"""Share of them at which rounding may spoil the inverse: outliers that no sample comes near."""


def normal_nll(u: Tensor, log_det: Tensor) -> Tensor:
    """−log density of points mapped to ``u`` (…, d, n) with ``log_det`` (…, n), nats.

    Examples:
        >>> normal_nll(torch.zeros(1, 2), torch.zeros(2))
        tensor([0.9189, 0.9189])
    """
    return 0.5 * (u.square().sum(dim=-2) + u.shape[-2] * LOG_2PI) - log_det


class BijectiveExpert(Expert):
    """log q(x) = log N(u; 0, I) + log |det du/dx| with u = f(L⁻¹(x − mean)).

    Subclasses supply f in whitened space as :meth:`_to_normal` and
    :meth:`_from_normal`, for all members at once; the whitening and its Jacobian are
    added here, in float64.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> expert = RBIG(max_layers=5).fit(x, folds=1)
        >>> u, log_det = expert.forward(x[None])
        >>> back, inverse_log_det = expert.inverse(u)
        >>> torch.allclose(back[0], x), torch.allclose(log_det, -inverse_log_det)
        (True, True)
    """

    def __init__(self, config: Settings, whitening: Whitening) -> None:
        super().__init__(config, whitening.dim, whitening.n_members, whitening.given)
        self.whitening = whitening

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map points of each member (members, n, given + d) to normal scores (members, n, d).

        Also log |det du/dx|, (members, n), nats.
        """
        return map_chunked(self._forward, x, self.chunk_rows)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map normal scores to points (members, n, d).

        Also log |det dx/du|, (members, n), nats.

        Args:
            u: (members, n, given + d), the condition in front of the scores.
        """
        return map_chunked(self._inverse, u, self.chunk_rows)

    def of_first_member(self) -> Self:
        """The map of the first member alone, at a share of the cost.

        Examples:
            >>> from amfvi.experts import RBIG
            >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
            >>> expert = RBIG(max_layers=5).fit(x, folds=2)
            >>> one = expert.of_first_member()
            >>> torch.allclose(one.forward(x[None])[0], expert.forward(x.expand(2, -1, -1))[0][:1])
            True
        """
        one = copy.copy(self)
        one.n_members = 1
        one.whitening = self.whitening.of_first_member()
        one._keep_first_member()
        return one

    def _keep_first_member(self) -> None:
        """Drop the numbers of the other members, but for the whitening; there are none here."""

    def verify(self, folds: Folds, tolerance: float = 1e-6) -> None:
        """Check that the inverse undoes the map and that the log-determinants cancel.

        Errors are measured at held-out draws in float64 and in whitened units,
        relative to a point's distance from the center where that exceeds 1. A few outliers
        may lie where the map is too steep for float64; a wrong inverse is wrong everywhere.

        Raises:
            FitError: errors above ``tolerance`` at more than ``MAX_ILL_CONDITIONED`` of the
                draws of a member.
        """
        x = folds.draws[folds.is_heldout][:MAX_VERIFIED_DRAWS].to(self.device)
        x = x.expand(self.n_members, *x.shape)
        u, log_det = self.forward(x)
        condition = x[..., : self.given]
        back, inverse_log_det = self.inverse(torch.cat([condition, u], dim=-1))
        back = torch.cat([condition, back], dim=-1)
        z, z_back = self.whitening.forward(x), self.whitening.forward(back)
        distance = ((z - z_back).abs() / z.abs().clamp(min=1)).amax(dim=1)
        discrepancy = (log_det + inverse_log_det).abs()
        # Written so that a NaN fails too.
        is_wrong = ~((distance <= tolerance) & (discrepancy <= tolerance))
        if float(is_wrong.double().mean(dim=1).max()) > MAX_ILL_CONDITIONED:
            raise FitError(
                f"{self.config.kind}: the fitted map is not invertible to {tolerance:g} at "
                f"{float(is_wrong.double().mean()):.1%} of held-out draws (round trip off by "
                f"{float(distance.max()):.2g}, log-determinant by {float(discrepancy.max()):.2g})"
            )

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.whitening.mean.device

    def _log_prob(self, x: Tensor) -> Tensor:
        return map_chunked(self._density, x, self.chunk_rows)

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        def normal(n: int) -> Tensor:
            size = (self.n_members, n, self.dim)
            u = torch.randn(size, generator=generator, dtype=torch.float64)
            return u.to(self.device, dtype)

        if given is None:
            return self.draw_images(normal, n)
        u = normal(n)
        # A network in single precision moves a draw by less than matters, in half the time.
        inverse = partial(self._inverse_given, precision=torch.float32)
        joint = torch.cat([given.to(u), u], dim=-1)
        return map_chunked(inverse, joint, self.chunk_rows)[0]

    def draw_images(self, draw: Callable[[int], Tensor], n: int) -> Tensor:
        """Draws (members, n, d) from as many points of the base, which ``draw`` gives."""
        return self.inverse(draw(n))[0]

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.whitening.forward(x).clamp(-MAX_DISTANCE, MAX_DISTANCE)
        u, log_det = self._to_normal(z.to(x.dtype))
        if self.spread != 1:
            u = u / self.spread
        return u.mT, log_det + self._log_det(x.dtype)

    def _inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        if self.given:
            return self._inverse_given(u, u.dtype)
        z, log_slope = self._from_normal((u.mT * self.spread).contiguous())
        return self.whitening.inverse(z).to(u.dtype), log_slope - self._log_det(u.dtype)

    def _inverse_given(self, u: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        """:meth:`inverse` with a condition in front, and networks in some precision."""
        condition, scores = u[..., : self.given], u[..., self.given :].mT * self.spread
        whitened = self.whitening.forward(condition).clamp(-MAX_DISTANCE, MAX_DISTANCE)
        z, log_slope = self._from_normal(
            torch.cat([whitened, scores.to(whitened)], 1).to(precision)
        )
        x = self.whitening.inverse(torch.cat([whitened, z.to(whitened)], dim=1))
        return x[..., self.given :].to(u.dtype), log_slope.to(u.dtype) - self._log_det(u.dtype)

    def _log_det(self, dtype: torch.dtype) -> Tensor:
        """log |det du/dx| of whitening and spread, (members, 1), nats."""
        log_det = self.whitening.log_det[:, None].to(dtype)
        return log_det if self.spread == 1 else log_det - self.dim * math.log(self.spread)

    def _density(self, x: Tensor) -> Tensor:
        u, log_det = self._forward(x)
        return -normal_nll(u.mT, log_det)

    @property
    def chunk_rows(self) -> int:
        """Rows of all members that are evaluated at a time."""
        if self.device.type == "cpu":
            return CPU_ROWS
        return min(ACCELERATOR_ROWS, ACCELERATOR_NUMBERS // self.dim)

    @abstractmethod
    def _to_normal(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened points to normal scores (members, d, n) and log |det du/dz| (members, n)."""

    @abstractmethod
    def _from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`_to_normal` and its own log-determinant."""
