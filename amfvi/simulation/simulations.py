"""Simulations of simulated data and the parameters they were simulated from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from amfvi.constraints.constraints import Constraints
from amfvi.errors import UsageError
from amfvi.simulation.prior import Prior

__all__ = ["Simulations"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulations:
    """What a simulator made: data c beside the parameters y that they are of.

    Attributes:
        given: the data, m × k, float64, finite.
        y: the parameters, m × d, float64, inside the constraints.
        names, given_names: of the columns of ``y`` and of ``given``.
        constraints: on the parameters.
        prior: what the parameters were drawn from; None if unknown.
        n_failed: simulations besides these m that raised an error or gave NaN or infinity.
        failures: different messages of the failed ones, the first one first.

    Raises:
        UsageError: other shapes.

    Examples:
        >>> import torch
        >>> pairs = Simulations(given=torch.zeros(5, 3), y=torch.zeros(5, 1), names=("y1",),
        ...               given_names=("c1", "c2", "c3"), constraints=Constraints.unbounded(1))
        >>> pairs
        <Simulations: 5 of 3 data and 1 parameters>
    """

    given: Tensor
    y: Tensor
    names: tuple[str, ...]
    given_names: tuple[str, ...]
    constraints: Constraints
    prior: Prior | None = None
    n_failed: int = 0
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.y), len(self.given_names)), (len(self.given), len(self.names))
        if (self.given.shape, self.y.shape) != expected:
            raise UsageError(
                f"pairs of {len(self.given_names)} data and {len(self.names)} parameters cannot "
                f"have shapes {tuple(self.given.shape)} and {tuple(self.y.shape)}"
            )

    @property
    def n_simulated(self) -> int:
        """How many simulations were made, the failed ones included."""
        return len(self) + self.n_failed

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"<Simulations: {len(self)} of {self.given.shape[1]} data and {self.y.shape[1]} "
            f"parameters{failed}>"
        )
