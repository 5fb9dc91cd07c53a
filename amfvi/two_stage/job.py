"""The fit of one expert as a message to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

    from amfvi.experts import ExpertConfig, Folds

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """The arguments of :meth:`ExpertConfig.fit_folds`, all of which can be pickled.

    Attributes:
        config: of the expert.
        data: arguments of :class:`~amfvi.experts.Folds`, in their order.
        generator_state: of the random generator.
        timeout: seconds; None for no limit.

    Examples:
        >>> import torch
        >>> from amfvi.experts import GMM, Folds
        >>> folds = Folds(torch.zeros(4, 1).double(), torch.arange(4) % 2)
        >>> Job.of(GMM(), folds, torch.Generator(), timeout=5.0).timeout
        5.0
    """

    config: ExpertConfig
    data: Any
    generator_state: torch.Tensor
    timeout: float | None

    @classmethod
    def of(
        cls,
        config: ExpertConfig,
        folds: Folds,
        generator: torch.Generator,
        timeout: float | None,
    ) -> Self:
        """The job of fitting ``config`` to ``folds``."""
        data = (folds.draws, folds.fold, folds.sample_weight, folds.given)
        return cls(config, data, generator.get_state(), timeout)
