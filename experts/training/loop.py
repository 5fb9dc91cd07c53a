"""Maximum-likelihood training of an ensemble of flows, with early stopping."""

from __future__ import annotations

import math
import warnings

import torch

from amfvi.errors import AmfviWarning, FitError
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.early_stopping import EarlyStopping, StopReason
from amfvi.experts.training.optimizer import EnsembleOptimizer
from amfvi.experts.training.problem import TrainingProblem
from amfvi.experts.training.settings import Training

__all__ = ["train"]

WARMUP_STEPS = 20
"""Steps over which the learning rates rise."""


def train(
    problem: TrainingProblem,
    settings: Training,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
    timeout: float | None = None,
) -> tuple[Parameters, FitReport]:
    """Train an ensemble; the parameters with the lowest held-out NLL and the report.

    Raises:
        FitError: the starting state already has no finite held-out density.

    Examples:
        >>> def nll(parameters, z):
        ...     return 0.5 * (z[:, 0] - parameters["mean"]).square()
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = 1.0 + torch.randn(300, 1, generator=generator)
        >>> from amfvi.experts import Folds
        >>> problem = TrainingProblem(
        ...     name="shift", nll=nll, frozen_nll=nll,
        ...     initial={"mean": torch.zeros(1, 1)}, masks={"mean": torch.ones(1)},
        ...     draws=draws.T[None], folds=Folds.holdout(draws[:200], draws[200:]))
        >>> learned, report = train(problem, Training(), generator=generator)
        >>> bool((learned["mean"] - 1.0).abs() < 0.2)
        True
    """
    stopping = EarlyStopping(
        patience=settings.patience,
        max_steps=settings.max_steps + settings.cooldown_steps(settings.max_steps),
        progress=progress,
        timeout=timeout,
        rival_nll=problem.rival_nll,
    )
    score = problem.heldout_score()
    optimizer = EnsembleOptimizer(problem, settings, generator)
    start_nll = score(optimizer.averaged)
    if not math.isfinite(start_nll):
        raise FitError(f"{problem.name}: no finite held-out density at the start (NLL {start_nll})")
    stopping.record(0, start_nll, start_nll)
    best = _copy(optimizer.averaged)
    schedule = _Schedule(settings)
    while stopping.reason is None:
        schedule.advance(optimizer)
        train_nll = optimizer.mean_loss() + problem.mean_offset
        heldout_nll = score(optimizer.averaged)
        if not math.isfinite(train_nll):
            stopping.stop(StopReason.NONFINITE, schedule.step)
            _warn_of_nonfinite_loss(problem.name, schedule.step, stopping.best_step)
        else:
            if stopping.record(schedule.step, train_nll, heldout_nll):
                best = _copy(optimizer.averaged)
            if schedule.change_phase(stopping):
                optimizer.reset_to(best)
    return best, stopping.report()


class _Schedule:
    """Learning rates that rise, stay, and fall to zero in a last phase, the cooldown."""

    def __init__(self, settings: Training) -> None:
        self.step = 0
        self._settings = settings
        self._cooldown_start: int | None = None
        self._cooldown_steps = 1
        self._has_plateaued = False

    def advance(self, optimizer: EnsembleOptimizer) -> None:
        """Take the steps up to the next check."""
        for _ in range(self._settings.check_every):
            self.step += 1
            factor = 1.0
            if self._cooldown_start is not None:
                factor = 1 - (self.step - self._cooldown_start - 1) / self._cooldown_steps
            optimizer.step(
                min(1.0, self.step / WARMUP_STEPS) * factor,
                min(self._settings.ema_decay, self.step / (self.step + 3)),
            )

    def change_phase(self, stopping: EarlyStopping) -> bool:
        """Start the cooldown (True), or stop, if it is time to."""
        if stopping.timed_out:
            stopping.stop(StopReason.TIMEOUT)
        elif self._cooldown_start is None and stopping.out_of_reach:
            stopping.stop(StopReason.OUT_OF_REACH)
        elif self._cooldown_start is None:
            if stopping.out_of_patience or self.step >= self._settings.max_steps:
                self._has_plateaued = stopping.out_of_patience
                self._cooldown_start = self.step
                self._cooldown_steps = self._settings.cooldown_steps(stopping.best_step)
                stopping.restart_patience(2 * self._settings.patience)
                return True
        elif self.step - self._cooldown_start >= self._cooldown_steps or stopping.out_of_patience:
            # The cooldown always ends; whether the fit converged was decided before it.
            stopping.stop(StopReason.CONVERGED if self._has_plateaued else StopReason.MAX_STEPS)
        return False


def _warn_of_nonfinite_loss(name: str, step: int, best_step: int) -> None:
    warnings.warn(
        f"{name}: non-finite loss by step {step}; training stopped, the state of step "
        f"{best_step} is kept",
        AmfviWarning,
        stacklevel=3,
    )


def _copy(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}
