"""What every density estimator of the mixture has in common.

An *expert config* is a frozen dataclass of settings. Its :meth:`ExpertConfig.fit`
takes draws and returns a fitted, frozen :class:`Expert` and a :class:`FitReport`.
There is no unfitted expert, so nothing can be called too early.

An expert is an ensemble: F members of one family, fitted to F overlapping parts of
the draws, whose densities are averaged. With one member it is a plain estimator.

To write one: subclass :class:`ExpertConfig` (``kind``, ``fit``, ``restore``) and
:class:`Expert` (``_log_prob``, ``_sample``, ``tensors``), then add a line to
``amfvi.experts.EXPERTS``. The public methods check shapes once; the private ones
may rely on that.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from amfvi.experts.folds import Folds, by_member
from torch import Tensor

from amfvi.errors import InputError, UsageError

__all__ = ["Checkpoint", "Expert", "ExpertConfig", "FitReport", "Progress", "check_points"]

FURTHEST = 3.0  # nats that a member may fall short of its ensemble


class Progress(Protocol):
    """Called now and then while an expert is fitted; ``fraction`` is in [0, 1]."""

    def __call__(self, fraction: float, heldout_nll: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One look at a fit in progress: mean negative log densities in nats."""

    step: int
    train_nll: float
    heldout_nll: float


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """How one expert was fitted.

    Attributes:
        history: training curve, one entry a check (a layer, for RBIG; a number of
            components, for mixtures); means over members and their draws.
        best_step: the step whose state was kept, the lowest held-out NLL.
        converged: whether the fit ended because the held-out NLL had stopped
            improving, not because steps, time or finite numbers ran out.
        stopped_by: that reason in words.
        seconds: wall-clock time.
    """

    history: tuple[Checkpoint, ...]
    best_step: int
    converged: bool
    stopped_by: str
    seconds: float

    @property
    def heldout_nll(self) -> float:
        """Held-out negative log density of the kept state, nats."""
        return min(c.heldout_nll for c in self.history if c.step == self.best_step)


def check_points(x: Tensor, dim: int) -> Tensor:
    """``x`` as it is if it holds ``dim``-dimensional floating points (..., dim).

    Raises:
        InputError: wrong last dimension or not a floating tensor.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"points must be a floating-point tensor, found {found}")
    if x.ndim < 1 or x.shape[-1] != dim:
        raise InputError(f"points must have shape (..., {dim}), found {tuple(x.shape)}")
    return x


class Expert(ABC):
    """A fitted, frozen, normalised density on R^dim: ``∫ exp(log_prob) = 1``.

    Its density is the mean of those of its ``members``.
    """

    def __init__(self, config: ExpertConfig, dim: int, members: int) -> None:
        self.config = config
        self.dim = dim
        self.members = members

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats at points ``x`` of shape (..., dim); shape (...).

        The dtype of ``x`` is that of the result and of the computation, which is
        never below float32.
        """
        x = check_points(x, self.dim)
        points = x.reshape(-1, self.dim)
        if x.dtype not in (torch.float32, torch.float64):  # half precision is for storage
            points = points.float()
        each = self._log_prob(points.expand(self.members, *points.shape))
        mean = each.logsumexp(dim=0) - math.log(self.members) if self.members > 1 else each[0]
        return mean.to(x.dtype).reshape(x.shape[:-1])

    @torch.no_grad()
    def log_prob_out_of_fold(self, folds: Folds) -> Tensor:
        """Log densities in nats of the held-out draws, by the member blind to each.

        Shape (m,), in the order of ``folds.draws[folds.is_heldout]``.
        """
        points = folds.draws[folds.is_heldout].to(self.device)
        member = folds.fold[folds.is_heldout].to(self.device)
        return by_member(self._log_prob, points, member, self.members)

    @torch.no_grad()
    def log_prob_cross_validated(self, folds: Folds) -> Tensor:
        """Log densities in nats of the held-out draws, less what having seen them adds.

        The density of the whole ensemble, lowered by one number: by how much its
        members rate a draw higher, on average, than the member blind to it does. The
        blind member alone would not do for weights: an expert whose members disagree
        gains most by averaging them, and would be rated too low. With one member this
        is its plain density. Shape (m,), as :meth:`log_prob_out_of_fold`.
        """
        points = folds.draws[folds.is_heldout].to(self.device)
        each = self._log_prob(points.expand(self.members, *points.shape))
        if self.members == 1:
            return each[0]
        member = folds.fold[folds.is_heldout].to(self.device)
        blind = each.gather(0, member[None])[0]
        ensemble = each.logsumexp(dim=0) - math.log(self.members)
        # A member that has diverged must not make the others look as if they had seen nothing.
        floored = each.clamp(min=ensemble - FURTHEST).scatter(0, member[None], blind[None])
        excess = floored.mean(dim=0) - blind
        # One member that misses one draw by far says little of the ensemble.
        excess = excess.clamp(max=float(np.quantile(excess.cpu().numpy(), 0.99)))
        shares = folds.heldout_weights
        optimism = excess.mean() if shares is None else (shares.to(excess) * excess).sum()
        return ensemble - optimism

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """``n`` independent draws, shape (n, dim), from a CPU ``generator``.

        All randomness is drawn on the CPU, so a seed means the same draws (up to
        rounding) on every device.
        """
        if self.members == 1:
            return self._sample(n, generator, dtype)[0]
        member = torch.randint(self.members, (n,), generator=generator)
        one_hot = torch.nn.functional.one_hot(member, self.members)
        place = one_hot.cumsum(dim=0).gather(1, member[:, None]).squeeze(1) - 1
        most = int(one_hot.sum(dim=0).max()) if n else 0
        made = self._sample(most, generator, dtype)
        return made[member.to(made.device), place.to(made.device)]

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor:
        """Log densities (members, n) of each member at its own points (members, n, d)."""

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
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
        """Where the numbers are."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r}, dim={self.dim})"


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(ABC):
    """Settings of one family of experts; every field is JSON-serialisable."""

    kind: ClassVar[str]

    @abstractmethod
    def fit(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[Expert, FitReport]:
        """Fit one member per fold, each stopped by the draws it does not train on.

        A pure function of its arguments: global random state is neither read nor
        written. ``time_limit`` in seconds stops training early and keeps the best
        state so far.

        Raises:
            FitError: no usable state was found; the message names the expert.
        """

    @abstractmethod
    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> Expert:
        """The expert whose :meth:`Expert.tensors` these are.

        Raises:
            InputError: a tensor is missing, unexpected, or has the wrong shape.
        """

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The config that :meth:`to_json` described.

        Raises:
            UsageError: a field this family does not have.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        given = {k: v for k, v in fields.items() if k != "kind"}
        unknown = sorted(set(given) - known)
        if unknown:
            raise UsageError(
                f"{cls.kind} has no setting {unknown[0]!r} (known: {', '.join(sorted(known))})"
            )
        return cls(**given)

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            whole = not isinstance(getattr(type(self), name), int) or isinstance(value, int)
            if not value > 0 or not whole:
                kind = "a positive whole number" if not whole else "positive"
                raise UsageError(f"{self.kind}: {name} must be {kind}, found {value!r}")


def members_of(tensors: Mapping[str, Tensor]) -> int:
    """How many members a saved expert has, by its tensor ``mean``; 1 if that is amiss."""
    mean = tensors.get("mean")
    return len(mean) if mean is not None and mean.ndim > 1 and len(mean) else 1


def match_tensors(
    kind: str, expected: Mapping[str, torch.Size], found: Mapping[str, Tensor]
) -> None:
    """Check a saved expert's tensors against the shapes its config implies.

    Raises:
        InputError: a missing, unexpected, wrongly shaped or non-finite tensor.
    """
    for name in sorted(set(expected) - set(found)):
        raise InputError(f"{kind}: tensor {name!r} is missing from the saved model")
    for name in sorted(set(found) - set(expected)):
        raise InputError(f"{kind}: unexpected tensor {name!r} in the saved model")
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise InputError(
                f"{kind}: tensor {name!r} has shape {tuple(found[name].shape)}, "
                f"expected {tuple(shape)}"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise InputError(f"{kind}: tensor {name!r} holds NaN or infinity")
