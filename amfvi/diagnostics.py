"""What is known of a mixture whose posterior has a log density: numbers and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amfvi.errors import InputError

__all__ = ["DO_NOT_TRUST", "TRUST", "USE_WITH_WEIGHTS", "Diagnostics"]

TRUST = "trust"
USE_WITH_WEIGHTS = "use with importance weights"
DO_NOT_TRUST = "do not trust"


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How a mixture q compares with the density p̃ it was fitted to, p = p̃/Z.

    All logarithms in nats; each ``_se`` is a standard error, None where unknown.

    Attributes:
        verdict: "trust", "use with importance weights" or "do not trust".
        reasons: why, one sentence each.
        log_z, log_z_se: log Z by importance sampling from the mixture.
        log_z_sampler, log_z_sampler_se: the same by the sampler, as a cross-check.
        elbo, elbo_se: E_q[log p̃ − log q] ≤ log Z; the difference is KL(q‖p).
        eubo, eubo_se: E_p[log p̃ − log q] ≥ log Z; the difference is KL(p‖q). From test
            draws of the sampler.
        ess: effective sample size of ``draws`` weighted draws of the mixture.
        khat: Pareto k̂ of their weights, or of those of a guard, which bound them; below
            ``khat_threshold`` they can be relied on.
        draws: of the mixture, behind these numbers.
        calls: of the log density, in all.
        start: where the sampler started: modes that it cannot reach from there, and the
            mixture therefore lacks, no number here can show.
    """

    verdict: str
    reasons: tuple[str, ...]
    log_z: float
    log_z_se: float
    log_z_sampler: float
    log_z_sampler_se: float
    elbo: float
    elbo_se: float
    eubo: float | None
    eubo_se: float | None
    ess: float
    khat: float
    khat_threshold: float
    draws: int
    calls: int
    start: str

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Diagnostics:
        """What :meth:`to_json` described; null numbers come back as NaN.

        Raises:
            InputError: a field is missing or not known.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if known != set(fields):
            odd = sorted(known ^ set(fields))[0]
            raise InputError(f"diagnostics: field {odd!r} is missing or unknown")
        numbers: dict[str, Any] = {
            name: float("nan") if value is None and not name.startswith("eubo") else value
            for name, value in fields.items()
        }
        return cls(**{**numbers, "reasons": tuple(fields["reasons"])})

    def __str__(self) -> str:
        return f"{self.verdict}: " + "; ".join(self.reasons)
