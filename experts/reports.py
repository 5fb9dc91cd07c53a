"""What the fit of an expert reports: progress, training curve, reason for its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["FitReport", "Progress", "TrainingRecord"]


class Progress(Protocol):
    """Callback during a fit; ``fraction`` is in [0, 1], ``heldout_nll`` in nats.

    Examples:
        >>> fractions = []
        >>> def progress(fraction: float, heldout_nll: float) -> None:
        ...     fractions.append(fraction)
        >>> import torch
        >>> from amfvi.experts import RBIG, Folds
        >>> x = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> fit = RBIG(max_layers=4).fit_folds(
        ...     Folds.holdout(x[:40], x[40:]), generator=torch.Generator(), progress=progress)
        >>> fractions
        [0.25, 0.5, 0.75, 1.0]
    """

    def __call__(self, fraction: float, heldout_nll: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One point of a training curve: mean negative log densities in nats.

    Examples:
        >>> TrainingRecord(step=25, train_nll=1.2, heldout_nll=1.3).heldout_nll
        1.3
    """

    step: int
    train_nll: float
    heldout_nll: float


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """Report of one expert's fit.

    Attributes:
        history: training curve, one entry per check (per layer, for RBIG; per number
            of components, for mixtures); means over members and their draws.
        best_step: the step whose state was kept, the lowest held-out NLL.
        converged: whether the fit ended because the held-out NLL had stopped
            improving, not because steps, time or finite numbers ran out.
        stopped_by: the reason for the end, for display.
        seconds: wall-clock time.

    Examples:
        >>> history = (TrainingRecord(step=0, train_nll=2.0, heldout_nll=2.1),
        ...            TrainingRecord(step=1, train_nll=1.5, heldout_nll=1.7))
        >>> FitReport(history=history, best_step=1, converged=False,
        ...           stopped_by="timeout", seconds=0.1).heldout_nll
        1.7
    """

    history: tuple[TrainingRecord, ...]
    best_step: int
    converged: bool
    stopped_by: str
    seconds: float

    @property
    def heldout_nll(self) -> float:
        """Held-out negative log density of the kept state, nats."""
        return min(r.heldout_nll for r in self.history if r.step == self.best_step)
