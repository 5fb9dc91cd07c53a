"""The contract that every density estimator of the mixture keeps.

An *expert config* is a frozen dataclass of settings. ``config.fit(x)`` returns a
fitted, frozen :class:`Expert`; :meth:`ExpertConfig.fit_folds`, which the two stages of
the mixture use, takes draws that are already assigned to folds and returns the expert
with its :class:`FitReport`. There is no unfitted expert, so nothing can be called too
early.

An expert is an ensemble: F members of one family, fitted to F overlapping parts of
the draws, whose densities are averaged. With one member it is a plain estimator.

To write one: subclass :class:`ExpertConfig` (``kind``, ``fit_folds``, ``restore``) and
:class:`Expert` (``_log_prob``, ``_sample``, ``tensors``), then add a line to
``amfvi.experts.EXPERTS``. The public methods check shapes once; the private ones
may rely on that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.experts.checks import check_points
from amfvi.experts.folds import Folds, select_member
from amfvi.experts.optimism import average_members, correct_optimism
from amfvi.experts.reports import FitReport
from amfvi.experts.settings import Settings

__all__ = ["Expert"]


class Expert(ABC):
    """A fitted, frozen, normalized density on R^dim: ``∫ exp(log_prob) = 1``.

    Its density is the mean of the densities of its ``n_members`` members. It may be
    conditional, q(y | c): points are then rows (c, y), the condition in front.

    :meth:`log_prob` is differentiable in its points. There is no ``rsample``: the
    parameters are frozen, so a draw depends on nothing that a gradient could be taken
    with respect to.

    Attributes:
        config: the settings it was fitted with.
        dim: number of coordinates d.
        n_members: number of members F.
        given: number of coordinates of the condition; 0 if there is none.
        report: the report of the fit where :meth:`ExpertConfig.fit` made the expert;
            otherwise None.
        spread: how many times wider than trained the base of a flow is, or a conditional expert,
            where that is kept apart from its other numbers.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = RBIG(max_layers=5).fit(x, folds=2)
        >>> expert
        Gaussianization(RBIG(...max_layers=5...), dim=2)
        >>> expert.log_prob(x).shape, expert.sample((3, 4)).shape
        (torch.Size([100]), torch.Size([3, 4, 2]))
    """

    report: FitReport | None = None
    spread: float = 1.0

    def __init__(self, config: Settings, dim: int, n_members: int, given: int = 0) -> None:
        self.config = config
        self.dim = dim
        self.n_members = n_members
        self.given = given

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats at points ``x`` of shape (..., given + dim); shape (...).

        The dtype of ``x`` is that of the result and of the computation, which is
        never below float32. Gradients reach ``x`` where it requires them; otherwise
        no graph is built.

        Raises:
            InputError: wrong last dimension or not a floating tensor.
        """
        columns = self.given + self.dim
        x = check_points(x, columns)
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            points = x.reshape(-1, columns)
            if x.dtype not in (torch.float32, torch.float64):  # half precision is for storage
                points = points.float()
            log_q = self._log_prob(points.expand(self.n_members, *points.shape))
            return average_members(log_q).to(x.dtype).reshape(x.shape[:-1])

    @torch.no_grad()
    def log_prob_out_of_fold(self, folds: Folds) -> Tensor:
        """Log densities in nats of the held-out draws, each by its out-of-fold member.

        Shape (m,), in the order of ``folds.draws[folds.is_heldout]``.
        """
        points = folds.draws[folds.is_heldout].to(self.device)
        member = folds.fold[folds.is_heldout].to(self.device)
        return select_member(self._log_prob, points, member, self.n_members)

    @torch.no_grad()
    def log_prob_optimism_corrected(self, folds: Folds) -> Tensor:
        """Log densities in nats of the held-out draws, corrected for training on them.

        The density of the whole ensemble, lowered by its optimism (see
        :func:`amfvi.experts.optimism.correct_optimism`); with one member its plain
        density. Shape (m,), as :meth:`log_prob_out_of_fold`.
        """
        points = folds.draws[folds.is_heldout].to(self.device)
        log_q = self._log_prob(points.expand(self.n_members, *points.shape))
        member = folds.fold[folds.is_heldout].to(self.device)
        return correct_optimism(log_q, member, folds.heldout_sample_weight)

    @torch.no_grad()
    def sample(
        self,
        shape: int | Sequence[int] = (),
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Independent draws, shape ``(*shape, dim)``; ``shape`` may be one number.

        All randomness comes from the CPU ``generator``, or without one from torch's
        global generator, which ``torch.manual_seed`` seeds. A seed therefore means the
        same draws (up to rounding) on every device.

        Raises:
            UsageError: a conditional density, which :meth:`sample_given` draws from.
        """
        if self.given:
            raise UsageError(
                f"a density of {self.dim} parameters given {self.given} has no draws without a "
                "condition: use sample_given"
            )
        size = torch.Size([shape] if isinstance(shape, int) else shape)
        n = size.numel()
        return self._sample_flat(n, generator, dtype).reshape(*size, self.dim)

    @torch.no_grad()
    def sample_given(
        self,
        given: Tensor,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """One draw for each condition (n, given); shape (n, dim).

        Randomness as in :meth:`sample`.
        """
        given = check_points(given, self.given).to(dtype)
        n = len(given)
        member = torch.zeros(n, dtype=torch.long)
        if self.n_members > 1:
            member = torch.randint(self.n_members, (n,), generator=generator)
        one_hot = torch.nn.functional.one_hot(member, self.n_members)
        position = one_hot.cumsum(dim=0).gather(1, member[:, None]).squeeze(1) - 1
        n_per_member = int(one_hot.sum(dim=0).max()) if n else 0
        of_member = given.new_zeros(self.n_members, n_per_member, self.given)
        of_member[member, position] = given
        draws = self._sample(n_per_member, generator, dtype, of_member.to(self.device))
        return draws[member.to(draws.device), position.to(draws.device)]

    def widened(self, factor: float) -> Self:
        """The same conditional density, ``factor`` times wider around its branches.

        An expert that has no such form is returned as it is.
        """
        return self

    def _sample_flat(self, n: int, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
        """Draws (n, dim) of members chosen at random."""
        if self.n_members == 1:
            return self._sample(n, generator, dtype)[0]
        member = torch.randint(self.n_members, (n,), generator=generator)
        one_hot = torch.nn.functional.one_hot(member, self.n_members)
        position = one_hot.cumsum(dim=0).gather(1, member[:, None]).squeeze(1) - 1
        n_per_member = int(one_hot.sum(dim=0).max()) if n else 0
        draws = self._sample(n_per_member, generator, dtype)
        return draws[member.to(draws.device), position.to(draws.device)]

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor:
        """Log densities (members, n) of each member at its own points (members, n, given + d)."""

    @abstractmethod
    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        """``n`` draws of every member, (members, n, d); each for its condition, if there is one.

        Args:
            given: conditions (members, n, given); None without a condition.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All fitted numbers by name, on the CPU; with ``config`` they restore it."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the fitted numbers."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r}, dim={self.dim})"
