"""What a mixture is known to lack: modes of the density, and mass in its tails."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.thresholds import LOG_UNDETECTED_RATIO
from amfvi.mixture import Mixture
from amfvi.sampler.modes import Mode

__all__ = ["CoverageReport", "UndetectedMode", "lacks_mode"]


@dataclass(frozen=True, kw_only=True)
class UndetectedMode:
    """A mode of the density that a mixture lacks.

    Attributes:
        mode: in unconstrained space.
        x: its location in the user's parameters, (d,).
        share: mass found around it, relative to the mass that the mixture covers.

    Examples:
        >>> mode = Mode(point=torch.zeros(1), log_density=0.0, covariance=torch.eye(1))
        >>> UndetectedMode(mode=mode, x=torch.zeros(1), share=0.2).share
        0.2
    """

    mode: Mode
    x: Tensor
    share: float


@dataclass(frozen=True, kw_only=True)
class CoverageReport:
    """What a mixture is known to lack.

    Attributes:
        modes: modes that hold more than a reportable share of the mass.
        tail_mass: mass far from the mixture, relative to what it covers; 0 below the
            reportable share;
            None if it was not measured.
        searched: whether modes were searched for.
        unmentioned_mass: mass of all modes and tails that are too small to be reported,
            which the error of log Z allows for.

    Examples:
        >>> CoverageReport(tail_mass=0.1).merge(CoverageReport(searched=True)).tail_mass
        0.1
    """

    modes: tuple[UndetectedMode, ...] = ()
    tail_mass: float | None = None
    searched: bool = False
    unmentioned_mass: float = 0.0

    def merge(self, other: CoverageReport) -> CoverageReport:
        """Combine two reports on one mixture; nothing that either found is forgotten."""
        known = [undetected.mode.point for undetected in self.modes]
        new = [u for u in other.modes if not any(torch.equal(u.mode.point, p) for p in known)]
        masses = [mass for mass in (self.tail_mass, other.tail_mass) if mass is not None]
        return CoverageReport(
            modes=(*self.modes, *new),
            tail_mass=max(masses, default=None),
            searched=self.searched or other.searched,
            unmentioned_mass=max(self.unmentioned_mass, other.unmentioned_mass),
        )

    def carry_to(
        self, mixture: Mixture, density: UnconstrainedDensity, log_z: float
    ) -> CoverageReport:
        """What of this report still holds for another mixture, without an evaluation.

        Modes that the other mixture covers are dropped; the tail mass stays as measured,
        and no search has been made.
        """
        lacking = [
            undetected
            for undetected in self.modes
            if lacks_mode(mixture, density, undetected.mode, log_z)
        ]
        return CoverageReport(
            modes=tuple(lacking),
            tail_mass=self.tail_mass,
            unmentioned_mass=self.unmentioned_mass,
        )


def lacks_mode(mixture: Mixture, density: UnconstrainedDensity, mode: Mode, log_z: float) -> bool:
    """Whether a mixture has next to no density at a mode; no evaluation is made.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1))
        >>> draws = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> mode = Mode(point=torch.zeros(1), log_density=0.0, covariance=torch.eye(1))
        >>> lacks_mode(mixture, normal, mode, log_z=0.92)
        False
    """
    log_q = float(mixture.log_prob_unconstrained(mode.point[None], density.transform)[0])
    return mode.log_density - log_z - log_q >= LOG_UNDETECTED_RATIO
