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

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from amfvi.errors import InputError, UsageError
from amfvi.experts.checks import check_points
from amfvi.experts.folds import Folds, select_member
from amfvi.experts.optimism import average_members, correct_optimism
from amfvi.experts.parallel import one_thread
from amfvi.experts.reports import FitReport, Progress, TrainingRecord
from amfvi.randomness import generator_for

__all__ = [
    "Expert",
    "ExpertConfig",
    "FitReport",
    "Progress",
    "TrainingRecord",
    "check_points",
]


class Expert(ABC):
    """A fitted, frozen, normalized density on R^dim: ``∫ exp(log_prob) = 1``.

    Its density is the mean of the densities of its ``n_members`` members.
    :meth:`log_prob` is differentiable in its points. There is no ``rsample``: the
    parameters are frozen, so a draw depends on nothing that a gradient could be taken
    with respect to.

    Attributes:
        config: the settings it was fitted with.
        dim: number of coordinates d.
        n_members: number of members F.
        report: the report of the fit where :meth:`ExpertConfig.fit` made the expert;
            otherwise None.

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

    def __init__(self, config: ExpertConfig, dim: int, n_members: int) -> None:
        self.config = config
        self.dim = dim
        self.n_members = n_members

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats at points ``x`` of shape (..., dim); shape (...).

        The dtype of ``x`` is that of the result and of the computation, which is
        never below float32. Gradients reach ``x`` where it requires them; otherwise
        no graph is built.

        Raises:
            InputError: wrong last dimension or not a floating tensor.
        """
        x = check_points(x, self.dim)
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            points = x.reshape(-1, self.dim)
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
        """Independent draws, shape (*shape, dim); ``shape`` may be one number.

        All randomness comes from the CPU ``generator``, or without one from torch's
        global generator, which ``torch.manual_seed`` seeds. A seed therefore means the
        same draws (up to rounding) on every device.
        """
        size = torch.Size([shape] if isinstance(shape, int) else shape)
        n = size.numel()
        return self._sample_flat(n, generator, dtype).reshape(*size, self.dim)

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
        """Log densities (members, n) of each member at its own points (members, n, d)."""

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
        """``n`` draws of every member, (members, n, d)."""

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


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(ABC):
    """Settings of one family of experts; every field is JSON-serializable.

    Attributes:
        kind: name of the family.
        step_name: what one step of its training curve is, for axis labels.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> x = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> expert = RBIG(max_layers=5).fit(x)
        >>> expert.dim, expert.n_members, len(expert.report.history)
        (1, 5, 6)
        >>> RBIG.from_json(RBIG(max_layers=5).to_json())
        RBIG(step_size=0.5, max_knots=None, rotations=1, max_layers=5, patience=20)
    """

    kind: ClassVar[str]
    step_name: ClassVar[str] = "step"

    def fit(
        self,
        x: Tensor | ArrayLike,
        *,
        sample_weight: Tensor | ArrayLike | None = None,
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
    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> Expert:
        """Rebuild the expert whose :meth:`Expert.tensors` these are.

        Raises:
            InputError: a tensor is missing, unexpected, or has the wrong shape.
        """

    def to_json(self) -> dict[str, Any]:
        """The kind and every setting, as plain JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild the config that :meth:`to_json` described.

        Raises:
            UsageError: a field this family does not have.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        settings = {name: value for name, value in fields.items() if name != "kind"}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise UsageError(
                f"{cls.kind} has no setting {unknown[0]!r} (known: {', '.join(sorted(known))})"
            )
        return cls(**settings)

    def _require_positive(self, *names: str) -> None:
        """Reject settings that are not positive, or not whole where the default is."""
        for name in names:
            value = getattr(self, name)
            is_whole = not isinstance(getattr(type(self), name), int) or isinstance(value, int)
            if not value > 0 or not is_whole:
                expected = "positive" if is_whole else "a positive whole number"
                raise UsageError(f"{self.kind}: {name} must be {expected}, found {value!r}")
