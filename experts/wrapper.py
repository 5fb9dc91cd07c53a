"""Settings of experts that are made from fitted ones: at a condition, or reflected at bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amfvi.errors import UsageError
from amfvi.experts.base import Expert
from amfvi.experts.config import ExpertConfig
from amfvi.experts.folds import Folds
from amfvi.experts.reports import FitReport

__all__ = ["Wrapper", "config_of"]


@dataclass(frozen=True, kw_only=True)
class Wrapper(ExpertConfig):
    """Settings of the expert that was wrapped; they restore one, but fit none.

    Attributes:
        expert: those of the wrapped expert.
        refusal: why they fit none.

    Examples:
        >>> from amfvi.experts import GMM, Conditioned, config_from_json
        >>> config_from_json(Conditioned(expert=GMM()).to_json()).expert.kind
        'gmm'
    """

    refusal: ClassVar[str]
    expert: ExpertConfig

    def fit_folds(self, folds: Folds, **options: Any) -> tuple[Expert, FitReport]:
        """Refuse: what is wrapped has been fitted.

        Raises:
            UsageError: always.
        """
        raise UsageError(self.refusal)

    def to_json(self) -> dict[str, Any]:
        """The kind, and the wrapped expert's."""
        return {"kind": self.kind, "expert": self.expert.to_json()}


def config_of(expert: Expert) -> ExpertConfig:
    """The settings by which an expert can be restored.

    Raises:
        UsageError: it has none.

    Examples:
        >>> import torch
        >>> from amfvi.experts import GMM
        >>> config_of(GMM().fit(torch.randn(50, 1))).kind
        'gmm'
    """
    if not isinstance(expert.config, ExpertConfig):
        raise UsageError(f"{expert!r} has no settings to be restored by")
    return expert.config
