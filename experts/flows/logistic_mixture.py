"""The distribution function of a mixture of logistics, on the scale of its logit.

Ho, Chen, Srinivas, Duan & Abbeel 2019 (Flow++, arXiv:1902.00275), section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LogisticMixture"]

MAX_ITERATIONS = 100
"""Most steps of the search for a root; bisection alone takes some 60 in double precision."""

CLOSED_SHARE = 0.5
"""Share of the points still searched for, below which the others are laid aside."""

Parts = tuple[Tensor, Tensor, Tensor]
"""Log weights, locations and log scales of the logistics, (members, K, d, n) each."""


@dataclass(frozen=True, kw_only=True)
class LogisticMixture:
    """logit Σₖ wₖ σ((v − μₖ)/sₖ): affine with one component, with more any number of steps.

    The inverse has no closed form: a safeguarded Newton's method finds it between the
    inverses of the components, which lie around it.

    Attributes:
        components: number of logistics K.

    Examples:
        >>> family = LogisticMixture(components=1)
        >>> raw = family.identity().view(1, -1, 1, 1)
        >>> value, log_slope = family.forward(torch.tensor([[[-2.0, 3.0]]]), raw)
        >>> [round(v, 4) for v in value.flatten().tolist()], bool(log_slope.abs().max() < 1e-5)
        ([-2.0, 3.0], True)
    """

    components: int

    max_log_scale: ClassVar[float] = 5.0
    start_width: ClassVar[float] = 1.0

    @property
    def parameters(self) -> int:
        return 3 * self.components

    def identity(self) -> Tensor:
        """Components side by side, as wide together as the logistic that is the identity."""
        k = self.components
        raw = torch.zeros(3 * k)
        if k > 1:
            locations = torch.linspace(-self.start_width, self.start_width, k)
            raw[k : 2 * k] = locations
            variance_of_logistic = math.pi**2 / 3
            spread = float(locations.square().mean()) / variance_of_logistic
            raw[2 * k :] = 0.5 * math.log1p(-spread)
        return raw

    def forward(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return _logit(v, self._parts(raw))

    def inverse(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        parts = self._parts(raw)
        with torch.no_grad():
            x = _root(v, parts)
        value, log_slope = _logit(x, parts)
        # Changes nothing but the last digits of x, and gives it its derivatives.
        x = x - (value - v) * torch.exp(-log_slope.detach())
        return x, -_logit(x, parts)[1]

    def _parts(self, raw: Tensor) -> Parts:
        logits, locations, scales = raw.chunk(3, dim=1)
        bound = self.max_log_scale
        return logits.log_softmax(dim=1), locations, bound * torch.tanh(scales / bound)


def _logit(v: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    """The logit of the distribution function, and the log of its derivative."""
    log_weights, locations, log_scales = parts
    z = (v.unsqueeze(1) - locations) * torch.exp(-log_scales)
    log_below = F.logsigmoid(z)
    log_above = log_below - z
    below = (log_weights + log_below).logsumexp(dim=1)
    above = (log_weights + log_above).logsumexp(dim=1)
    density = (log_weights + log_below + log_above - log_scales).logsumexp(dim=1)
    return below - above, density - below - above


def _root(v: Tensor, parts: Parts) -> Tensor:
    """The points (members, d, n) whose values are ``v``."""
    log_weights, locations, log_scales = parts
    of_components = locations + v.unsqueeze(1) * log_scales.exp()
    low, high = of_components.amin(dim=1), of_components.amax(dim=1)
    search = _Search(
        v=v, weights=log_weights.exp(), locations=locations, rates=(-log_scales).exp(),
        low=low, high=high, x=0.5 * (low + high), step=high - low,
    )  # fmt: skip
    x = search.x.clone()
    searched = torch.ones_like(x, dtype=torch.bool)
    for _ in range(MAX_ITERATIONS):
        is_off = search.advance()
        x[searched] = search.x.flatten()
        n_off = int(is_off.sum())
        if n_off == 0:
            break
        if n_off < CLOSED_SHARE * is_off.numel():
            search = search.of(is_off)
            searched[searched.clone()] = is_off.flatten()
    return x


@dataclass(kw_only=True)
class _Search:
    """Intervals that hold the roots of some points, halved or better in each step.

    Attributes:
        v: the values sought, (members, d, n).
        weights, locations, rates: of the logistics, (members, K, d, n).
        low, high: ends of the intervals, as ``v``.
        x: the points so far.
        step: the last one of each.
    """

    v: Tensor
    weights: Tensor
    locations: Tensor
    rates: Tensor
    low: Tensor
    high: Tensor
    x: Tensor
    step: Tensor

    def advance(self) -> Tensor:
        """Take a step; whether each point was off before it."""
        v, x = self.v, self.x
        tolerance = 8 * torch.finfo(v.dtype).eps
        value, slope = self._logit()
        is_low = value < v
        low = self.low = torch.where(is_low, x, self.low)
        high = self.high = torch.where(is_low, self.high, x)
        newton = (v - value) / slope
        # Steps that do not get shorter go to and fro across a bend: halve the interval then.
        is_good = (x + newton > low) & (x + newton < high) & (newton.abs() < 0.5 * self.step.abs())
        self.step = torch.where(is_good, newton, 0.5 * (low + high) - x)
        is_off = (value - v).abs() > tolerance * v.abs().clamp(min=1)
        is_off &= self.step.abs() > tolerance * x.abs().clamp(min=1)
        self.x = torch.where(is_off, x + self.step, x)
        return is_off

    def _logit(self) -> tuple[Tensor, Tensor]:
        """As the function of that name, without logarithms: infinite far out, but quicker."""
        z = (self.x.unsqueeze(1) - self.locations) * self.rates
        below, above = torch.sigmoid(z), torch.sigmoid(-z)
        density = (self.weights * self.rates * below * above).sum(dim=1)
        below, above = (self.weights * below).sum(dim=1), (self.weights * above).sum(dim=1)
        return below.log() - above.log(), density / (below * above)

    def of(self, chosen: Tensor) -> _Search:
        """The search for some of the points (members, d, n) alone, in one row."""
        shape = chosen.shape

        def some(values: Tensor) -> Tensor:
            return values[chosen].view(1, 1, -1)

        def of_components(values: Tensor) -> Tensor:
            wide = values.expand(shape[0], -1, *shape[1:]).movedim(1, -1)
            return wide[chosen].T[None, :, None].contiguous()

        return _Search(
            v=some(self.v), weights=of_components(self.weights),
            locations=of_components(self.locations), rates=of_components(self.rates),
            low=some(self.low), high=some(self.high), x=some(self.x), step=some(self.step),
        )  # fmt: skip
