"""Settings of a family of experts, which fit one and restore one that was saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from amfvi.errors import InputError
from amfvi.experts.base import Expert
from amfvi.experts.folds import Folds
from amfvi.experts.parallel import one_thread
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.settings import Settings
from amfvi.randomness import generator_for

__all__ = ["ExpertConfig"]


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(Settings):
    """Settings of one family of experts, which fit one.

    Attributes:
        max_dim: most parameters d that the family can be fitted to; None for any number.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> x = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> expert = RBIG(max_layers=5).fit(x)
        >>> expert.dim, expert.n_members, len(expert.report.history)
        (1, 5, 6)
        >>> RBIG.from_json(RBIG(max_layers=5).to_json())
        RBIG(step_size=0.5, max_knots=None, rotations=1, max_layers=5, patience=20)
    """

    max_dim: ClassVar[int | None] = None

    def fit(
        self,
        x: Tensor | ArrayLike,
        *,
        sample_weight: Tensor | ArrayLike | None = None,
        given: int = 0,
        folds: int = 5,
        seed: int = 0,
        device: torch.device | str = "cpu",
        timeout: float | None = None,
    ) -> Expert:
        """Fit an expert to draws; its ``report`` attribute says how the fit went.

        Global random state is neither read nor written: equal arguments give equal
        experts.

        Args:
            x: finite real draws (n, d); one dimension is taken for one column.
            sample_weight: importance weights (n,), non-negative; only their ratios
                matter.
            given: number of leading columns of ``x`` that are a condition c: the expert is
                then a density q(y | c) of the others.
            folds: number of members, each stopped early by the fold it does not train
                on; 1 for a single member that 20% of the draws are held out from.
            seed: of the assignment to folds and of the fit.
            device: torch device of the fit and of the expert.
            timeout: seconds after which training stops with the best state so far.

        Raises:
            InputError: ``x`` or ``sample_weight`` is not as described.
            UsageError: fewer draws than folds, or no fold.
            FitError: no usable state was found.
        """
        if isinstance(x, Folds):
            raise InputError("fit takes plain draws, found Folds: pass them to fit_folds")
        assigned = Folds.from_array(
            x,
            n_folds=folds,
            generator=generator_for(seed, "folds"),
            sample_weight=sample_weight,
            given=given,
        )
        with one_thread():
            expert, report = self.fit_folds(
                assigned,
                generator=generator_for(seed, "expert", self.kind),
                device=device,
                timeout=timeout,
            )
        expert.report = report
        return expert

    @abstractmethod
    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Expert, FitReport]:
        """Fit one member per fold, each stopped by the draws it does not train on.

        A pure function of its arguments: global random state is neither read nor
        written. ``timeout`` in seconds stops training early and keeps the best
        state so far.

        Raises:
            FitError: no usable state was found; the message names the expert.
        """

    @abstractmethod
    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> Expert:
        """Rebuild the expert whose :meth:`Expert.tensors` these are.

        Args:
            dim: number of coordinates d.
            given: number of coordinates of the condition.

        Raises:
            InputError: a tensor is missing, unexpected, or has the wrong shape.
        """
