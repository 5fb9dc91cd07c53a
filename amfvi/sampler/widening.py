"""References that reach beyond the draws they are made from, along the posterior's own shape.

A flow maps a ridge, however bent, to one direction of a standard normal. The same flow with
a wider normal therefore extends the ridge at both ends, where a wider Gaussian around the
draws would mostly miss it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.constraints.tails import TailCompression
from amfvi.experts import GMM, MAF, TMM, Folds
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.sampler.factors import robust_shape
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.schedule import HIGH_DIM, PROPOSAL, PROPOSAL_IN_HIGH_DIM

__all__ = ["WidenedFlow", "WidenedReference"]

SCALES = (1.0, 1.3, 1.8)
"""Standard deviations of the normal distributions that a widened flow maps to."""

SCALE_WEIGHTS = (0.4, 0.4, 0.2)
"""Weights of these normal distributions."""

PART_WEIGHTS = (0.5, 0.4, 0.1)
"""Weights of the widened flow, the Gaussian mixture and the Student-t in a reference."""

FREEDOM = 3.0
"""Degrees of freedom of the Student-t, which bounds weights far out."""

MAX_FITTED = 5_000
"""Draws that a reference is fitted to at most."""


REACH = 10.0
"""Distance from the median, relative to the farthest draw, where a widened flow is cut off."""

N_TRIED = 2_000
"""Draws from which it is estimated how much of it is left."""

MAX_REDRAWS = 20
"""Times that draws beyond reach are drawn again."""

MAX_STEPS = 500
"""Most training steps of the flow, which only has to reach what its draws almost show."""


class WidenedFlow:
    """A fitted flow whose normal base is replaced by a mixture of wider normals.

    Cut off far from the draws, where a flow may map a wide normal to any place and its
    density is not to be relied on.

    Args:
        flow: a bijective expert; each of its members is widened.
        draws: what it was fitted to, (n, d).

    Examples:
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> flow = MAF(layers=1, max_steps=25).fit(draws, folds=2)
        >>> wide = WidenedFlow(flow, draws)
        >>> sd = float(wide.sample(4000, torch.Generator().manual_seed(0)).std())
        >>> 1.2 < sd < 1.5
        True
    """

    def __init__(self, flow: BijectiveExpert, draws: Tensor) -> None:
        self.flow = flow
        self._center = draws.median(dim=0).values
        self._reach = REACH * (draws - self._center).abs().amax(dim=0)
        tried = self._sample_all(N_TRIED, torch.Generator().manual_seed(0))
        self._log_kept = math.log(max(float(self._is_near(tried).double().mean()), 1 / N_TRIED))

    def _is_near(self, y: Tensor) -> Tensor:
        """Which points (n, d) are within reach of the draws; (n,)."""
        return ((y - self._center).abs() <= self._reach).all(dim=1)

    @torch.no_grad()
    def log_prob(self, y: Tensor) -> Tensor:
        """Log density in nats at points (n, d); (n,)."""
        members, d = self.flow.n_members, self.flow.dim
        u, log_det = self.flow.forward(y.expand(members, *y.shape))
        squared = u.square().sum(dim=2)
        terms = [
            math.log(weight) - 0.5 * squared / scale**2 - d * math.log(scale)
            for weight, scale in zip(SCALE_WEIGHTS, SCALES, strict=True)
        ]
        log_base = torch.stack(terms).logsumexp(dim=0) - 0.5 * d * math.log(2 * math.pi)
        log_q = (log_base + log_det).logsumexp(dim=0) - math.log(members)
        return torch.where(self._is_near(y), log_q - self._log_kept, -math.inf)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` points (n, d), float64."""
        y = self._sample_all(n, generator)
        for _ in range(MAX_REDRAWS):
            far = (~self._is_near(y)).nonzero().squeeze(1)
            if not len(far):
                return y
            y[far] = self._sample_all(len(far), generator)
        return torch.where(self._is_near(y)[:, None], y, self._center)

    def _sample_all(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws (n, d) that may be far."""
        members, d = self.flow.n_members, self.flow.dim
        per_member = math.ceil(n / members)
        weights = torch.tensor(SCALE_WEIGHTS, dtype=torch.float64)
        which = torch.multinomial(weights, members * per_member, True, generator=generator)
        scale = torch.tensor(SCALES, dtype=torch.float64)[which].view(members, per_member, 1)
        u = torch.randn(members, per_member, d, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            y = self.flow.inverse((scale * u).to(self.flow.device))[0].cpu().reshape(-1, d)
        return y[torch.randperm(len(y), generator=generator)[:n]]


@dataclass(frozen=True, kw_only=True)
class WidenedReference:
    """A flow and a Gaussian mixture fitted to draws, both widened, with a Student-t.

    Attributes:
        flow: a masked autoregressive flow with one member, which follows ridges; from
            compressed space.
        mixture: Gaussians, which follow separate modes.
        tails: a Student-t distribution, which bounds weights far out.
        compression: of heavy tails, before all three.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(300, 2, generator=generator).double()
        >>> reference = WidenedReference.fit(draws, generator).as_reference()
        >>> reference.sample(5, generator).shape, reference.near_posterior
        (torch.Size([5, 2]), True)
    """

    flow: WidenedFlow
    mixture: EllipticalMixture
    tails: EllipticalMixture
    compression: TailCompression

    @classmethod
    def fit(cls, y: Tensor, generator: torch.Generator) -> WidenedReference:
        """Fit to draws (n, d) in unconstrained space.

        Raises:
            FitError: the draws do not vary in some coordinate.
        """
        y = y[torch.randperm(len(y), generator=generator)[:MAX_FITTED]]
        compression = TailCompression.fit(y)
        y = compression.compress(y)[0]
        folds = Folds(y, torch.where(torch.arange(len(y)) % 5 == 4, 0, -1))
        config: GMM = PROPOSAL if y.shape[1] <= HIGH_DIM else PROPOSAL_IN_HIGH_DIM
        flow = MAF(max_steps=MAX_STEPS).fit_flow(folds, generator=generator)[0]
        mixture = config.fit_folds(folds, generator=generator)[0]
        center, factor = robust_shape(y)
        tails = EllipticalMixture.single(TMM(), center, factor, freedom=FREEDOM)
        return cls(flow=WidenedFlow(flow, y), mixture=mixture, tails=tails, compression=compression)

    def as_reference(self) -> ReferenceDistribution:
        """The mixture of the three parts, as where the sampler starts."""
        parts: tuple[WidenedFlow | EllipticalMixture, ...] = (self.flow, self.mixture, self.tails)
        log_weights = torch.tensor(PART_WEIGHTS, dtype=torch.float64).log()

        def log_prob(y: Tensor) -> Tensor:
            v, log_det = self.compression.compress(y)
            columns = torch.stack([part.log_prob(v) for part in parts], dim=1)
            # Far out, a flow may overflow; the tails always have a density.
            columns = torch.nan_to_num(columns, nan=-math.inf, posinf=-math.inf)
            return torch.logsumexp(columns + log_weights, dim=1) + log_det

        def sample(n: int, generator: torch.Generator) -> Tensor:
            which = torch.multinomial(log_weights.exp(), n, True, generator=generator)
            v = torch.empty(n, self.flow.flow.dim, dtype=torch.float64)
            for number, part in enumerate(parts):
                rows = (which == number).nonzero().squeeze(1)
                if len(rows):
                    v[rows] = part.sample(len(rows), generator)
            return self.compression.expand(v)[0]

        return ReferenceDistribution(
            log_prob=log_prob,
            sample=sample,
            differentiable=False,
            description="a widened fit to earlier draws",
            near_posterior=True,
        )
