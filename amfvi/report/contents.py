"""What a report shows of a run, read from its directory by whoever asks for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RunContents"]


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """What a report shows of a run.

    Attributes:
        path: of the run directory, as the user wrote it.
        config, metrics, environment: what the files of these names hold.
        parameters: statistics of each parameter by name, as ``amfvi summary`` has them; none
            for a run of pairs, whose posterior depends on the condition.
        figures: PNG files by name.

    Examples:
        >>> contents = RunContents(path="runs/a", config={"target": "banana"}, metrics={})
        >>> contents.kind
        'exact draws of a target'
    """

    path: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.metrics.get("name") or self.path)

    @property
    def is_of_pairs(self) -> bool:
        """Whether the fit is to pairs of a condition and parameters."""
        return "given_names" in self.metrics

    @property
    def kind(self) -> str:
        """What was fitted, in words."""
        if self.is_of_pairs:
            return "pairs of conditions and parameters"
        if self.config.get("draws") and self.config.get("log_density"):
            return "given draws with their log density"
        if self.config.get("log_density"):
            return "a log density"
        if self.config.get("by_density"):
            return "the log density of a target"
        return "given draws" if self.config.get("draws") else "exact draws of a target"

    @property
    def density(self) -> Mapping[str, Any] | None:
        """The diagnostics against a log density; None without one."""
        return self.metrics.get("density")

    @property
    def verdict(self) -> str | None:
        """The verdict on the fit, or on the calibration of a fit to pairs; None without one."""
        judged = self.metrics.get("calibration") if self.is_of_pairs else self.density
        return None if judged is None else str(judged["verdict"])
