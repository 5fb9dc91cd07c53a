"""The diagnostics of a fit to a log density: numbers, and a verdict with its reasons."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amfvi.errors import InputError

if TYPE_CHECKING:
    from amfvi.statistics import Estimate

__all__ = ["GIVEN_DRAWS", "Diagnostics", "Verdict"]

GIVEN_DRAWS = "the given draws"
"""The start of a fit to draws that a user gave with their density."""


class Verdict(enum.StrEnum):
    """Whether a fit can be relied on.

    Examples:
        >>> Verdict.TRUST == "trust"
        True
    """

    TRUST = "trust"
    """Plain draws of the mixture can be used."""

    USE_WITH_IMPORTANCE_WEIGHTS = "use with importance weights"
    """Draws can be used with their importance weights."""

    DO_NOT_TRUST = "do not trust"
    """Something contradicts the fit; the reasons say what."""


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How a mixture q compares with the density p̃ it was fitted to, p = p̃/Z.

    All logarithms in nats; each ``_se`` is a standard error, None where unknown.

    Attributes:
        verdict: whether to rely on the fit.
        reasons: why, one sentence each.
        log_z, log_z_se: log Z by importance sampling from the mixture.
        log_z_sampler, log_z_sampler_se: the same by the sampler from its broad start,
            independent of the mixture; or from given draws and the mixture, by bridge sampling;
            None without either.
        log_z_refinement, log_z_refinement_se: the same by the last refinement, a sampler
            that started from a mixture; None if there was none.
        elbo, elbo_se: E_q[log p̃ − log q] ≤ log Z; the difference is KL(q‖p).
        eubo, eubo_se: E_p[log p̃ − log q] ≥ log Z; the difference is KL(p‖q). From test
            draws of the sampler, or given ones.
        ess: effective sample size of ``n_draws`` weighted draws of the mixture.
        khat: Pareto k̂ of their weights, or of those of a defensive component, which bound
            them; the weights are reliable below ``khat_threshold``.
        n_draws: draws of the mixture behind these numbers.
        n_evaluations: evaluations of the log density, in all.
        start: where the sampler started: modes that it cannot reach from there, and the
            mixture therefore lacks, no number here can show. "the given draws" for those;
            None for a mixture that was checked without.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> posterior = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> posterior.diagnostics.verdict
        <Verdict.TRUST: 'trust'>
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    log_z: float
    log_z_se: float
    log_z_sampler: float | None
    log_z_sampler_se: float | None
    log_z_refinement: float | None
    log_z_refinement_se: float | None
    elbo: float
    elbo_se: float
    eubo: float | None
    eubo_se: float | None
    ess: float
    khat: float
    khat_threshold: float
    n_draws: int
    n_evaluations: int
    start: str | None

    @property
    def evidence(self) -> Estimate:
        """log Z with its standard error, nats: for given draws the surer of two estimates.

        Bridge sampling stands beside importance sampling there, and needs less of the
        mixture: it takes from each of the two densities what the other lacks. A sampler's
        evidence is a check and is not taken.
        """
        from amfvi.statistics import Estimate  # imports torch, which a verdict does without

        by_mixture = Estimate(self.log_z, self.log_z_se)
        if self.start != GIVEN_DRAWS or self.log_z_sampler is None or not self.log_z_sampler_se:
            return by_mixture
        by_bridge = Estimate(self.log_z_sampler, self.log_z_sampler_se)
        return by_mixture if by_mixture.se <= by_bridge.se else by_bridge

    def to_json(self) -> dict[str, Any]:
        """Describe the diagnostics in JSON values."""
        return {
            **dataclasses.asdict(self),
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Diagnostics:
        """Restore what :meth:`to_json` described; numbers that were null become NaN.

        Raises:
            InputError: a field is missing or not known.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if known != set(fields):
            odd = sorted(known ^ set(fields))[0]
            raise InputError(f"diagnostics: field {odd!r} is missing or unknown")
        numbers: dict[str, Any] = {
            name: float("nan") if value is None and name not in OPTIONAL else value
            for name, value in fields.items()
        }
        numbers |= {"verdict": Verdict(fields["verdict"]), "reasons": tuple(fields["reasons"])}
        return cls(**numbers)

    def __str__(self) -> str:
        return f"{self.verdict}: " + "; ".join(self.reasons)


OPTIONAL = (
    "eubo", "eubo_se", "log_z_sampler", "log_z_sampler_se", "log_z_refinement",
    "log_z_refinement_se", "start",
)  # fmt: skip
"""Fields that may be None."""
