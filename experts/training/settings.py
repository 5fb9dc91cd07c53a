"""Settings of the training of flows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from amfvi.errors import UsageError

__all__ = ["POSITIVE", "Training"]

POSITIVE = (
    "learning_rate", "hidden_learning_rate", "batch_size", "epoch_steps", "max_batch_size",
    "max_steps", "check_every", "patience", "clip_norm",
)  # fmt: skip
"""Names of the settings that must be positive."""

MIN_COOLDOWN_STEPS = 150
"""Fewest steps over which the learning rates fall to zero."""

MIN_BATCHES_PER_EPOCH = 3
"""Fewest batches that an epoch is cut into, if they keep ``MIN_BATCH_SIZE`` rows."""

MIN_BATCH_SIZE = 64
"""Rows per batch below which an epoch is not cut into more batches."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How an ensemble of flows is trained, all members in the same steps.

    Shuffled minibatches; Muon for the square weights (of hidden layers and of the maps before
    layers), Adam for the rest. An exponential moving average (EMA) of the parameters is
    scored, each member on the draws it does not train on. When the mean score has not improved
    for ``patience`` checks, or after ``max_steps``, training goes on from the best state with
    learning rates that fall to zero, the cooldown.

    Attributes:
        learning_rate: of Adam.
        hidden_learning_rate: of Muon.
        batch_size: smallest number of rows per step and member; in small samples at
            most a third of the training draws.
        epoch_steps: steps per epoch for many draws. Batches grow with the number of
            draws, since the gain from more draws is lost in the gradient's noise
            otherwise.
        max_batch_size: largest batch that ``epoch_steps`` leads to.
        max_steps: most steps at full learning rates.
        check_every: steps between two checks of the held-out draws.
        patience: checks without improvement before the cooldown.
        cooldown: steps of the cooldown, as a multiple of the steps to the best state;
            at least 150 steps.
        clip_norm: largest norm of a member's gradient.
        ema_decay: share of the parameter average that a step keeps, in [0, 1).

    Examples:
        >>> settings = Training(max_steps=100)
        >>> settings.batch_size_for(300), settings.batch_size_for(40_000)
        (100, 500)
        >>> settings.cooldown_steps(best_step=1000)
        400
    """

    learning_rate: float = 1e-2
    hidden_learning_rate: float = 2e-2
    batch_size: int = 128
    epoch_steps: int = 80
    max_batch_size: int = 1024
    max_steps: int = 1300
    check_every: int = 25
    patience: int = 6
    cooldown: float = 0.4
    clip_norm: float = 5.0
    ema_decay: float = 0.99

    def require_valid(self, kind: str) -> None:
        """Reject settings out of their range, but for those in ``POSITIVE``.

        Raises:
            UsageError: one is; the message begins with ``kind``.
        """
        if not self.cooldown >= 0:
            raise UsageError(f"{kind}: cooldown cannot be negative, found {self.cooldown!r}")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"{kind}: ema_decay must be in [0, 1), found {self.ema_decay!r}")

    def batch_size_for(self, n_train: int) -> int:
        """Number of rows per step for ``n_train`` training draws."""
        epoch_share = min(n_train // self.epoch_steps, self.max_batch_size)
        small_sample = max(n_train // MIN_BATCHES_PER_EPOCH, MIN_BATCH_SIZE)
        return min(max(self.batch_size, epoch_share), small_sample, n_train)

    def cooldown_steps(self, best_step: int) -> int:
        """Number of steps of the cooldown, a whole number of checks."""
        checks = max(MIN_COOLDOWN_STEPS, self.cooldown * best_step) / self.check_every
        return math.ceil(checks) * self.check_every
