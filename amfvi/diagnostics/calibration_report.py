"""The calibration of a conditional density: ranks, coverage, and a verdict with its reasons."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from amfvi.diagnostics.rank_dependence import RankDependence
from amfvi.diagnostics.thresholds import CALIBRATION_FALSE_ALARMS, SIGNIFICANT
from amfvi.diagnostics.uniformity import Uniformity, ks_band
from amfvi.errors import UsageError
from amfvi.json_files import without_nonfinite
from amfvi.statistics import Estimate

__all__ = ["Calibration", "CalibrationVerdict", "Confidence"]

LEVELS = (0.1, 0.25, 0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
"""Levels at which :meth:`Calibration.to_json` lists the coverage."""

SHARE = CALIBRATION_FALSE_ALARMS / 4
"""Rate of false alarms of each of the four tests, by Bonferroni's rule."""

MAX_LISTED = 6
"""Most parameters in the printed summary, those with the least p-values."""


class CalibrationVerdict(enum.StrEnum):
    """Whether anything contradicts the calibration of a conditional density.

    Examples:
        >>> CalibrationVerdict.CALIBRATED == "calibrated"
        True
    """

    CALIBRATED = "calibrated"
    """No test rejects; errors too small for this many pairs cannot be seen."""

    MISCALIBRATED = "miscalibrated"
    """At least one test rejects; the reasons say which."""


class Confidence(enum.StrEnum):
    """How regions of highest density cover what they should.

    Examples:
        >>> Confidence.OVERCONFIDENT == "overconfident"
        True
    """

    RIGHT = "as confident as it should be"
    """No significant difference between coverage and level."""

    OVERCONFIDENT = "overconfident"
    """Regions hold less than their level says."""

    UNDERCONFIDENT = "underconfident"
    """Regions hold more than their level says."""

    MIXED = "overconfident at some levels and underconfident at others"
    """Regions hold less at some levels and more at others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """How a conditional density q(y | c) agrees with n independent held-back pairs (c, y).

    All ranks are independent and exactly uniform on (0, 1) if q is right, for any number of
    draws, so that p-values are those of Kolmogorov–Smirnov tests.

    The verdict is "miscalibrated" if a test rejects or q is zero at some y. The tests share a
    rate of false alarms of 0.5% by Bonferroni's rule: a quarter each for the coverage of
    regions of highest density, for TARP, for the ranks of all parameters, and for their
    correlation with the conditions. So a right density is called miscalibrated in at most 0.5%
    of cases, however dependent the tests are.

    Attributes:
        names: of the parameters, (dim,).
        n_draws: draws for each pair.
        ranks: of each y among the draws for its c, (n, dim): simulation-based calibration
            (Talts et al. 2018, arXiv:1804.06788). Blind to a q that ignores c, and to
            wrong dependence between parameters.
        hpd_ranks: share of draws where q is higher than at y, (n,): expected coverage
            (Hermans et al. 2022, arXiv:2110.06581). Blind to a q that ignores c.
        tarp_ranks: share of draws nearer than y to a reference point that depends on c, (n,)
            (TARP, Lemos et al. 2023, arXiv:2302.03026). Sees a q that ignores c, as far as
            pairs with similar c have similar y.
        given_dependence: of ranks on conditions: sees a q that ignores a condition, or follows
            it too little on average, where its mean or width should change with it.
        log_prob: log q(y | c) in nats, (n,). To compare two densities, average the
            differences over the same pairs; calibration alone does not say which is sharper.

    Examples:
        >>> uniform = torch.linspace(0.005, 0.995, 100).double()
        >>> calibration = Calibration(
        ...     names=("a",), n_draws=99, ranks=uniform[:, None], hpd_ranks=uniform**1.7,
        ...     tarp_ranks=uniform, log_prob=torch.zeros(100), given_dependence=RankDependence(
        ...         mean_scores=torch.zeros(1, 1), width_scores=torch.zeros(1, 1)))
        >>> print(calibration.verdict, calibration.confidence, sep=", ")
        miscalibrated, underconfident
        >>> print(calibration.reasons[0].split(":")[0])
        regions of highest density that should hold 27% of all y hold 47%
    """

    names: tuple[str, ...]
    n_draws: int
    ranks: Tensor
    hpd_ranks: Tensor
    tarp_ranks: Tensor
    given_dependence: RankDependence
    log_prob: Tensor

    @property
    def n_pairs(self) -> int:
        """Number of held-back pairs n."""
        return len(self.ranks)

    @property
    def log_density(self) -> Estimate:
        """Mean log q(y | c) over the pairs, nats, with its standard error."""
        return Estimate.from_terms(self.log_prob)

    @cached_property
    def sbc(self) -> dict[str, Uniformity]:
        """Simulation-based calibration: the test of each parameter's ranks, by name."""
        tests = [Uniformity.from_ranks(column) for column in self.ranks.T]
        return dict(zip(self.names, tests, strict=True))

    @property
    def rejected_parameters(self) -> tuple[str, ...]:
        """Names of the parameters whose ranks count against the density."""
        return tuple(n for n, test in self.sbc.items() if test.p_value < SHARE / len(self.sbc))

    @cached_property
    def hpd(self) -> Uniformity:
        """The test of the coverage of regions of highest density."""
        return Uniformity.from_ranks(self.hpd_ranks)

    @cached_property
    def tarp(self) -> Uniformity:
        """The test of the coverage of balls around reference points."""
        return Uniformity.from_ranks(self.tarp_ranks)

    def coverage(self, level: float) -> Estimate:
        """Share of y in the region of highest density of q at ``level``, with binomial SE.

        Raises:
            UsageError: a level that is not between 0 and 1.
        """
        return _share_below(self.hpd_ranks, level)

    def tarp_coverage(self, level: float) -> Estimate:
        """Share of y in the ball around its reference point that has ``level`` of the draws.

        Raises:
            UsageError: a level that is not between 0 and 1.
        """
        return _share_below(self.tarp_ranks, level)

    @property
    def confidence(self) -> Confidence:
        """Whether regions of highest density hold too little or too much."""
        if self.hpd.p_value >= SHARE:
            return Confidence.RIGHT
        if abs(self.hpd.location) < SIGNIFICANT:
            return Confidence.MIXED
        return Confidence.OVERCONFIDENT if self.hpd.location > 0 else Confidence.UNDERCONFIDENT

    @property
    def verdict(self) -> CalibrationVerdict:
        """Whether anything contradicts the calibration."""
        against = self._against
        return CalibrationVerdict.MISCALIBRATED if against else CalibrationVerdict.CALIBRATED

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the verdict rests on, one line each."""
        if self._against:
            return self._against
        least = ks_band(self.n_pairs, 1 - SHARE)
        return (
            f"no test rejects; with {self.n_pairs} pairs, coverage that is off by less than "
            f"about {least:.2g} may go unseen",
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the calibration in JSON values, without ranks; null is what is not finite."""
        described: dict[str, Any] = without_nonfinite({
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
            "confidence": str(self.confidence),
            "n_pairs": self.n_pairs,
            "n_draws": self.n_draws,
            "log_density": dataclasses.asdict(self.log_density),
            "n_without_density": self._n_without_density,
            "sbc": {name: dataclasses.asdict(test) for name, test in self.sbc.items()},
            "hpd": {**dataclasses.asdict(self.hpd), "coverage": _listed(self.hpd_ranks)},
            "tarp": {**dataclasses.asdict(self.tarp), "coverage": _listed(self.tarp_ranks)},
            "given_dependence": {
                "p_value": self.given_dependence.p_value,
                "mean_scores": self.given_dependence.mean_scores.tolist(),
                "width_scores": self.given_dependence.width_scores.tolist(),
            },
        })  # fmt: skip
        return described

    def __str__(self) -> str:
        density = self.log_density
        worst = sorted(self.sbc.items(), key=lambda item: item[1].p_value)
        ranks = [f"{name} {test.p_value:.2g}" for name, test in worst[:MAX_LISTED]]
        more = [f"{len(worst) - MAX_LISTED} more above"] if len(worst) > MAX_LISTED else []
        return "\n".join([
            f"{self.verdict} ({self.n_pairs} pairs, {self.n_draws} draws each)",
            *(f"  {reason}" for reason in self.reasons),
            f"mean log density: {density.mean:.4g} ± {density.se:.2g} nats",
            f"coverage of highest-density regions: {_printed(self.hpd_ranks)}"
            f" (p = {self.hpd.p_value:.2g})",
            f"coverage of balls around reference points: {_printed(self.tarp_ranks)}"
            f" (p = {self.tarp.p_value:.2g})",
            f"ranks of parameters, p: {', '.join(ranks + more)}",
            f"dependence of ranks on conditions, p: {self.given_dependence.p_value:.2g}",
        ])  # fmt: skip

    def _dependence(self) -> str:
        parameter, condition, of_width = self.given_dependence.strongest
        return (
            f"ranks of {self.names[parameter]} depend on condition {condition + 1}: "
            f"{'the width' if of_width else 'the mean'} of its draws does not follow it "
            f"(p = {self.given_dependence.p_value:.1g})"
        )

    @property
    def _n_without_density(self) -> int:
        return int((self.log_prob == -torch.inf).sum())

    @cached_property
    def _against(self) -> tuple[str, ...]:
        """Reasons against the density, one line each."""
        against = []
        if self._n_without_density:
            against.append(f"q is zero at {self._n_without_density} of {self.n_pairs} held-back y")
        if self.hpd.p_value < SHARE:
            against.append(
                f"regions of highest density that should hold {self.hpd.level:.0%} of all y hold "
                f"{self.hpd.share:.0%}: {self.confidence} (p = {self.hpd.p_value:.1g})"
            )
        if self.tarp.p_value < SHARE:
            against.append(
                f"balls around reference points that should hold {self.tarp.level:.0%} of all y "
                f"hold {self.tarp.share:.0%} (p = {self.tarp.p_value:.1g})"
            )
        if self.given_dependence.p_value < SHARE:
            against.append(self._dependence())
        against += [
            f"ranks of {name} are off by {self.sbc[name].distance:.2g}: its draws are "
            f"{self.sbc[name].flaw} (p = {self.sbc[name].p_value:.1g})"
            for name in self.rejected_parameters
        ]
        return tuple(against)


def _share_below(ranks: Tensor, level: float) -> Estimate:
    if not 0 < level < 1:
        raise UsageError(f"level={level}: expected a number between 0 and 1")
    n, hits = len(ranks), int((ranks <= level).sum())
    # As if one more y lay inside and one outside, so that no share is without error.
    smoothed = (hits + 1) / (n + 2)
    return Estimate(mean=hits / n, se=(smoothed * (1 - smoothed) / n) ** 0.5)


def _listed(ranks: Tensor) -> list[dict[str, float]]:
    return [{"level": level, **dataclasses.asdict(_share_below(ranks, level))} for level in LEVELS]


def _printed(ranks: Tensor) -> str:
    shares = {level: _share_below(ranks, level) for level in (0.5, 0.9)}
    return ", ".join(
        f"{share.mean:.3f} ± {share.se:.3f} at {level:g}" for level, share in shares.items()
    )
