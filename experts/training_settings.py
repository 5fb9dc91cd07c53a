"""How flows are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Training"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How an ensemble of flows is trained, all members in the same steps.

    Shuffled minibatches; Muon for the hidden weights, Adam for the rest. An
    exponential moving average of the parameters is what is scored, each member on
    the draws it does not train on. When the mean score has not improved for
    ``patience`` checks, or after ``max_steps``, training goes on from the best state
    with learning rates that fall to zero over ``decay`` of the steps it took.

    Attributes:
        learning_rate: of Adam.
        hidden_learning_rate: of Muon.
        batch_size: rows a step and member; at most a third of the training draws.
        epoch_steps: of many draws a step takes more, so that these are the steps of an
            epoch: what more draws have to tell is else lost in the noise of the gradient.
        largest_batch_size: where that ends.
        max_steps: most steps at full learning rates.
        check_every: steps between two looks at the held-out draws.
        patience: looks without improvement before the rates fall.
        decay: length of the last phase in steps to the best state; at least 150 steps.
        clip_norm: largest norm of a member's gradient.
        averaging: decay a step of the parameter average, in [0, 1).
    """

    learning_rate: float = 1e-2
    hidden_learning_rate: float = 2e-2
    batch_size: int = 128
    epoch_steps: int = 80
    largest_batch_size: int = 1024
    max_steps: int = 1300
    check_every: int = 25
    patience: int = 6
    decay: float = 0.4
    clip_norm: float = 5.0
    averaging: float = 0.99

    def rows_a_step(self, rows: int) -> int:
        """Size of a batch of so many training draws; in small samples still a few an epoch."""
        of_many = min(rows // self.epoch_steps, self.largest_batch_size)
        return min(max(self.batch_size, of_many), max(rows // 3, 64), rows)

    def decay_steps(self, best_step: int) -> int:
        """Length of the last phase, a whole number of checks."""
        checks = max(150, self.decay * best_step) / self.check_every
        return math.ceil(checks) * self.check_every
