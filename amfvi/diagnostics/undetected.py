"""Search for what a posterior has and a mixture lacks: modes, and mass in the tails.

Draws of a mixture cannot show what it never visits, so the searches start elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.special import gammaincinv
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.coverage import CoverageReport, UndetectedMode, lacks_mode
from amfvi.diagnostics.thresholds import (
    FAR_RADIUS,
    LOG_UNDETECTED_RATIO,
    MIN_LAPLACE_LOG_SHARE,
    MIN_PROBE_ESS,
    MIN_SHARE,
    SIGNIFICANT,
)
from amfvi.experts import GMM, TMM
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.mixture import Mixture
from amfvi.sampler.factors import robust_shape
from amfvi.sampler.gaussians import gaussians_at
from amfvi.sampler.modes import Mode, find_modes
from amfvi.sampler.reference import candidate_points
from amfvi.sampler.resolution import evaluate_where_possible
from amfvi.statistics import effective_sample_size

__all__ = ["measure_tail_mass", "search_undetected_modes"]

N_CANDIDATES = 64
"""Random points from which the best starts of an optimization are chosen."""

N_STARTS = 4
"""Optimizations per round of the search."""

MAX_ROUNDS = 3
"""Rounds of optimization, the first from random points."""

N_PROBES = 1000
"""Draws that estimate the mass around a mode, or in the tails."""

PROBE_FACTOR = 10
"""How many times as many draws are added where an estimate rests on too few."""

MAX_SEEN = 20_000
"""Points that the sampler passed at which the mixture is evaluated; of more, every k-th is."""

NEAR_QUANTILE = 0.999
"""Share of the draws of a Gaussian around a mode within which others count as near it."""

N_SHAPE_DRAWS = 2000
"""Draws of the mixture that locate its tails."""


def search_undetected_modes(
    mixture: Mixture,
    density: UnconstrainedDensity,
    weighted: WeightedDraws,
    history: tuple[Tensor, Tensor],
    generator: torch.Generator,
    known: Sequence[Mode] = (),
) -> CoverageReport:
    """Find modes and tails that have mass and that the mixture lacks.

    Optimization starts from random points, and from the densest of all points seen that
    neither the mixture nor the modes found explain: those that the sampler passed on its
    way (a mode may be lost between two tempering steps when few particles were in it),
    the draws of the mixture, and those in the tails.

    Args:
        weighted: draws of the mixture with their weights.
        history: points (k, m) in unconstrained space that the sampler passed, and their
            log densities (k,).
        known: modes found before, which are probed again.

    Raises:
        OutOfBudgetError: too few evaluations are left.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.diagnostics.comparison import importance_sample
        >>> from amfvi.experts import GMM
        >>> two = LogDensity(lambda x: -0.5 * (x[:, 0].abs() - 9.0) ** 2, 1)
        >>> density, generator = UnconstrainedDensity(two), torch.Generator().manual_seed(0)
        >>> draws = 9 + torch.randn(300, 1, generator=generator)
        >>> mixture = Mixture({"gmm": GMM(max_components=1).fit(draws)}, [1.0])
        >>> weighted = importance_sample(mixture, density, 500, generator)
        >>> seen = torch.tensor([[-8.0]]).double()
        >>> history = (seen, density.log_prob(seen))
        >>> report = search_undetected_modes(mixture, density, weighted, history, generator)
        >>> [round(float(undetected.x)) for undetected in report.modes]
        [-9]
    """
    search = _Search(mixture, density, weighted.importance.log_z.mean, generator)
    tails = search.probe_tails()
    modes = search.find_modes(search.points_seen(weighted, history, tails), known)
    shares = [(mode, search.probe_mode(mode, weighted)) for mode in modes]
    undetected = tuple(
        UndetectedMode(
            mode=mode, x=density.transform.from_unconstrained(mode.point[None])[0], share=share
        )
        for mode, share in shares
        if share >= MIN_SHARE
    )
    small = [share for share in (tails.share, *(share for _, share in shares)) if share < MIN_SHARE]
    return CoverageReport(
        modes=undetected,
        tail_mass=_reportable(tails.share),
        searched=True,
        unmentioned_mass=sum(small),
    )


def measure_tail_mass(
    mixture: Mixture, density: UnconstrainedDensity, log_z: float, generator: torch.Generator
) -> float:
    """Share of the mass far from the mixture, 0 below the reportable share.

    Raises:
        OutOfBudgetError: too few evaluations are left.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1))
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> measure_tail_mass(mixture, normal, 0.92, torch.Generator().manual_seed(0))
        0.0
    """
    return _reportable(_Search(mixture, density, log_z, generator).probe_tails().share)


def _reportable(share: float) -> float:
    """A share of the mass, 0 below what is reported."""
    return share if share >= MIN_SHARE else 0.0


@dataclass(frozen=True)
class _Probe:
    """Points (k, m), their log densities (k,), and the share of the mass they found."""

    y: Tensor
    log_p: Tensor
    share: float


@dataclass(frozen=True)
class _Search:
    """One search: a mixture, the density it should equal, and log Z."""

    mixture: Mixture
    density: UnconstrainedDensity
    log_z: float
    generator: torch.Generator = field(repr=False)

    def probe_tails(self) -> _Probe:
        """Draw from a Cauchy distribution with the mixture's location and shape."""
        draws = self.mixture.sample((N_SHAPE_DRAWS,), self.generator)
        y = self.density.transform.to_unconstrained(draws)[0]
        y = y[y.isfinite().all(dim=1)]
        center, factor = robust_shape(y)
        largest = FAR_RADIUS**2 * float(draws.abs().quantile(0.99))
        return self._probe(EllipticalMixture.single(TMM(), center, factor, freedom=1.0), largest)

    def find_modes(self, seen: tuple[Tensor, Tensor, Tensor], known: Sequence[Mode]) -> list[Mode]:
        """Optimize from random points, then from the densest that no mode explains."""
        log_p, log_q, y = seen
        start = candidate_points(self.density, self.generator, N_CANDIDATES)[0][:N_STARTS]
        modes = find_modes(self.density, start, known)
        for _ in range(MAX_ROUNDS - 1):
            n_known = len(modes)
            unexplained = self.unexplained(log_p, log_q, y, modes)
            modes = find_modes(self.density, y[unexplained][:N_STARTS], modes)
            if len(modes) == n_known:
                break
        return modes

    def probe_mode(self, mode: Mode, weighted: WeightedDraws) -> float:
        """The share of the mass around a mode; 0 if the mixture covers it.

        Less what the mixture's own draws show there by their weights, which in many dimensions
        are large for draws of a mode that is covered.
        """
        if not lacks_mode(self.mixture, self.density, mode, self.log_z):
            return 0.0
        if mode.log_mass - self.log_z < MIN_LAPLACE_LOG_SHARE:
            return 0.0
        gaussian = EllipticalMixture.single(
            GMM(), mode.point, torch.linalg.cholesky(mode.covariance)
        )
        share = self._probe(gaussian).share
        if not share:
            return 0.0
        y = self.density.transform.to_unconstrained(weighted.x)[0]
        squared = gaussian.whitening.forward(y[None])[0].square().sum(dim=0)
        is_near = squared <= 2 * gammaincinv(self.density.dim / 2, NEAR_QUANTILE)  # χ²
        known = weighted.unlikely_share(is_near)
        excess = share - known.mean
        return excess if excess > SIGNIFICANT * known.se else 0.0

    def points_seen(
        self, weighted: WeightedDraws, history: tuple[Tensor, Tensor], tails: _Probe
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log p̃ (n,), log q (n,) and points (n, m), the densest points first."""
        drawn = self.density.transform.to_unconstrained(weighted.x)[0]
        usable = drawn.isfinite().all(dim=1)
        stride = max(1, math.ceil(len(history[0]) / MAX_SEEN))
        y = torch.cat([history[0][::stride], tails.y, drawn[usable]])
        log_q = self.mixture.log_prob_unconstrained(y, self.density.transform)
        log_p = torch.cat([history[1][::stride], tails.log_p])
        log_p = torch.cat([log_p, weighted.log_weights[usable] + log_q[len(log_p) :]])
        densest = log_p.argsort(descending=True)
        return log_p[densest], log_q[densest], y[densest]

    def unexplained(self, log_p: Tensor, log_q: Tensor, y: Tensor, modes: Sequence[Mode]) -> Tensor:
        """Points (n, m) that are denser than the mixture and the known modes say; (n,)."""
        unexplained = log_p - self.log_z - log_q > LOG_UNDETECTED_RATIO
        if modes:
            near = gaussians_at(modes, self.density.dim, broad=False).log_prob(y)
            unexplained &= log_p - self.log_z - near > LOG_UNDETECTED_RATIO
        return unexplained

    def _probe(self, proposal: EllipticalMixture, largest: float = math.inf) -> _Probe:
        """Estimate by importance sampling the mass where the mixture has next to none.

        A point of high density alone may hold no mass, so an estimate that rests on a few
        draws is repeated with more.
        """
        n = N_PROBES
        y, log_p, mass = self._draw(proposal, largest, n)
        if mass.sum() > MIN_SHARE * n and effective_sample_size(mass) < MIN_PROBE_ESS:
            more = self._draw(proposal, largest, PROBE_FACTOR * n)
            y, log_p, mass = (torch.cat(pair) for pair in zip((y, log_p, mass), more, strict=True))
            n += PROBE_FACTOR * n
        share = float(mass.sum()) / n
        return _Probe(y, log_p, share)

    def _draw(
        self, proposal: EllipticalMixture, largest: float, n: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points, their log densities, and n times what each adds to the undetected share.

        Points with a parameter above ``largest`` in size are left out.
        """
        y = proposal.sample(n, self.generator)
        log_g = proposal.log_prob(y)
        noise = proposal.whitening.forward(y[None])[0].T
        x = self.density.transform.from_unconstrained(y)
        # Where exponentials of far points overflow, a density has no meaningful value.
        usable = (noise.abs() <= FAR_RADIUS).all(dim=1) & (x.abs() <= largest).all(dim=1)
        y, log_g = y[usable], log_g[usable]
        log_p = evaluate_where_possible(self.density, y, gradient=False)[0]
        log_q = self.mixture.log_prob_unconstrained(y, self.density.transform)
        lacking = log_p - self.log_z - log_q > LOG_UNDETECTED_RATIO
        return y, log_p, torch.where(lacking, (log_p - self.log_z - log_g).exp(), 0.0)
