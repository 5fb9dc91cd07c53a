"""Mixtures of Gaussians and of Student-t distributions, as experts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts.base import Expert
from amfvi.experts.checks import check_tensors, count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.elliptical.components import Components, MixtureDensity
from amfvi.experts.elliptical.em import maximize_expectation
from amfvi.experts.folds import Folds
from amfvi.experts.parallel import map_chunked
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.settings import Settings
from amfvi.experts.training.early_stopping import EarlyStopping
from amfvi.experts.whitening import Whitening

__all__ = ["COMPONENT_COUNTS", "EllipticalConfig", "EllipticalMixture"]

COMPONENT_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 64)
"""Numbers of components that are tried in turn."""

MAX_ROWS = 200_000
"""Most draws, by folds, that components are fitted to."""

CPU_CHUNK_NUMBERS = 2**18
"""Numbers held at a time while densities are evaluated on a CPU, so that they stay in cache."""

ACCELERATOR_CHUNK_NUMBERS = 2**26
"""Numbers held at a time while densities are evaluated on an accelerator."""


class EllipticalMixture(Expert):
    """Fitted components behind a whitening that all members share.

    Given a condition, the components are those of the joint density of condition and
    parameters, which is conditioned in closed form.

    Examples:
        >>> import math
        >>> components = Components(
        ...     log_weights=torch.zeros(1, 1), means=torch.zeros(1, 1, 1),
        ...     factors=torch.ones(1, 1, 1, 1), freedom=torch.tensor([math.inf]))
        >>> whitening = Whitening.from_factor(torch.ones(1, 1), 2 * torch.ones(1, 1, 1))
        >>> from amfvi.experts import GMM
        >>> normal = EllipticalMixture(GMM(), whitening, components)
        >>> normal.log_prob(torch.tensor([1.0]))  # of N(1, 2²)
        tensor(-1.6121)
    """

    def __init__(self, config: Settings, whitening: Whitening, components: Components) -> None:
        members, count, dim = components.means.shape
        super().__init__(config, dim - whitening.given, members, whitening.given)
        self.whitening = whitening
        self.components = components
        self.density = MixtureDensity(components)
        self._numbers_per_point = count * dim

    @classmethod
    def single(
        cls, config: ExpertConfig, mean: Tensor, factor: Tensor, freedom: float = math.inf
    ) -> EllipticalMixture:
        """One component with a given mean (d,) and lower triangular factor (d, d).

        Args:
            freedom: degrees of freedom of a Student-t; infinite for a Gaussian.
        """
        d = len(mean)
        components = Components(
            log_weights=torch.zeros(1, 1, dtype=torch.float64),
            means=torch.zeros(1, 1, d, dtype=torch.float64),
            factors=torch.eye(d, dtype=torch.float64)[None, None],
            freedom=torch.tensor([freedom], dtype=torch.float64),
        )
        return cls(config, Whitening.from_factor(mean[None], factor[None]), components)

    def widened(self, factor: float) -> Self:
        """The same components, ``factor`` times wider given a condition."""
        if factor == 1 or not self.given:
            return self
        factors = self.components.factors.clone()
        factors[..., self.given :, self.given :] *= factor
        wider = type(self)(self.config, self.whitening, replace(self.components, factors=factors))
        wider.report = self.report
        return wider

    def chunk_rows(self, device: torch.device) -> int:
        """Rows of all members that are evaluated at a time on ``device``."""
        numbers = CPU_CHUNK_NUMBERS if device.type == "cpu" else ACCELERATOR_CHUNK_NUMBERS
        return max(1, numbers // self._numbers_per_point)

    def _log_prob(self, x: Tensor) -> Tensor:
        return map_chunked(self._density, x, self.chunk_rows(x.device))

    def _density(self, x: Tensor) -> Tensor:
        z = self.whitening.forward(x).to(x.dtype)
        log_det = float(self.whitening.log_det)
        if not self.given:
            return self.density.log_prob(z) + log_det
        squares, is_gaussian = self.density.squares(z), self.components.is_gaussian
        joint = self.components.log_joint(squares.sum(dim=2), is_gaussian)
        # Factors are lower triangular: the first rows are those of the condition alone.
        of_condition = squares[:, :, : self.given].sum(dim=2)
        marginal = self.components.marginal(self.given).log_joint(of_condition, is_gaussian)
        return joint.logsumexp(dim=1) + log_det - marginal.logsumexp(dim=1)

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        parts = self.components.to("cpu")
        if given is None:
            z = parts.sample(n, generator)
        else:
            whitened = self.whitening.forward(given.to(self.device)).mT.cpu()
            z = torch.cat([whitened, parts.sample_given(whitened, generator)], dim=2)
        return self.whitening.inverse(z.mT.to(self.device))[..., self.given :].to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Whitening and components by name, on the CPU."""
        parts = self.components
        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "log_weights": parts.log_weights.cpu(),
            "means": parts.means.cpu(),
            "factors": parts.factors.cpu(),
            # Infinity is saved as zero: saved numbers are finite.
            "freedom": torch.where(parts.freedom.isinf(), 0.0, parts.freedom).cpu(),
        }

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        moved = type(self)(self.config, self.whitening.to(device), self.components.to(device))
        moved.report = self.report
        return moved

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.whitening.mean.device


@dataclass(frozen=True, kw_only=True)
class EllipticalConfig(ExpertConfig):
    """Settings of a mixture of elliptical components with full scatter matrices.

    The numbers of components in ``COMPONENT_COUNTS`` (1, 2, 3, 4, 5, 6, 8, …) are tried
    in turn until ``patience`` of them have not improved the held-out density; the best is
    kept.

    Attributes:
        max_components: most components.
        patience: component counts without improvement before the fit stops.
        tolerance: gain in nats of the mean training log density below which EM ends.
        max_iterations: most EM iterations per component count.

    Examples:
        >>> from amfvi.experts import GMM, TMM
        >>> GMM.gaussian, TMM.gaussian, GMM(max_components=3).max_components
        (True, False, 3)
    """

    step_name: ClassVar[str] = "components"
    gaussian: ClassVar[bool]

    max_components: int = 64
    patience: int = 2
    tolerance: float = 3e-4
    max_iterations: int = 500

    def __post_init__(self) -> None:
        self._require_positive("max_components", "patience", "tolerance", "max_iterations")
        if self.max_components > COMPONENT_COUNTS[-1]:
            raise UsageError(
                f"{self.kind}: max_components must be at most {COMPONENT_COUNTS[-1]}, "
                f"found {self.max_components}"
            )

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[EllipticalMixture, FitReport]:
        """Fit more and more components; see :meth:`ExpertConfig.fit_folds`."""
        folds.require_fittable(self.kind)
        folds = folds.at_most(MAX_ROWS)
        counts = self._component_counts(folds)
        stopping = EarlyStopping(
            patience=self.patience,
            max_steps=counts[-1],
            limit_name="max_components",
            progress=progress,
            timeout=timeout,
        )
        # For numerical reasons only: EM is invariant under affine maps.
        whitening = Whitening.fit_pooled(folds.draws, folds.sample_weight, folds.given)
        z = whitening.forward(folds.draws[None])[0].T.to(device)
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        whitening, offset = whitening.to(device), -float(whitening.log_det)
        best: EllipticalMixture | None = None
        for count in counts:
            components, train_nll, heldout_nll = self._fit_components(z, folds, count, random)
            mixture = EllipticalMixture(self, whitening, components)
            if folds.given:  # EM fits the joint density, but it is the conditional that counts
                train_nll, heldout_nll = _conditional_scores(mixture, folds)
            else:
                train_nll, heldout_nll = train_nll + offset, heldout_nll + offset
            if stopping.record(count, train_nll, heldout_nll):
                best = mixture
            if stopping.should_stop():
                break
        if best is None:
            raise FitError(f"{self.kind}: no mixture has a finite held-out density")
        return best, stopping.report()

    def _fit_components(
        self, z: Tensor, folds: Folds, count: int, random: np.random.Generator
    ) -> tuple[Components, float, float]:
        """As :func:`~amfvi.experts.elliptical.em.maximize_expectation`, of whitened rows."""
        return maximize_expectation(
            z,
            folds,
            count,
            gaussian=self.gaussian,
            random=random,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )

    def _component_counts(self, folds: Folds) -> list[int]:
        """The counts to try: those with d + 1 training draws per component, at least one."""
        most = min(len(rows) for rows in folds.train_rows) // (folds.given + folds.dim + 1)
        return [k for k in COMPONENT_COUNTS if k <= min(self.max_components, max(most, 1))]

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> EllipticalMixture:
        """Rebuild the mixture whose :meth:`EllipticalMixture.tensors` these are."""
        columns = given + dim
        log_weights = tensors.get("log_weights", torch.zeros(1, 1))
        members, count = log_weights.shape if log_weights.ndim == 2 else (count_members(tensors), 1)
        shape = torch.Size
        check_tensors(
            self.kind,
            {
                "mean": shape([1, columns]),
                "factor": shape([1, columns, columns]),
                "log_weights": shape([members, count]),
                "means": shape([members, count, columns]),
                "factors": shape([members, count, columns, columns]),
                "freedom": shape([members]),
            },
            tensors,
        )
        factors = tensors["factors"].double()
        is_lower = not bool(factors.triu(1).any())
        if not is_lower or not bool((factors.diagonal(dim1=-2, dim2=-1) > 0).all()):
            raise InputError(f"{self.kind}: a factor is not lower triangular and positive")
        if not torch.allclose(log_weights.double().exp().sum(dim=1), torch.ones(()).double()):
            raise InputError(f"{self.kind}: the component weights do not sum to one")
        freedom = tensors["freedom"].double()
        freedom = torch.where(freedom == 0, math.inf, freedom)
        if bool((freedom < 0).any()) or bool(torch.isinf(freedom).all()) != self.gaussian:
            raise InputError(f"{self.kind}: the degrees of freedom are not those of a {self.kind}")
        components = Components(
            log_weights=log_weights.double(),
            means=tensors["means"].double(),
            factors=factors,
            freedom=freedom,
        )
        whitening = Whitening.from_factor(tensors["mean"], tensors["factor"], given)
        return EllipticalMixture(self, whitening, components)


def _conditional_scores(mixture: EllipticalMixture, folds: Folds) -> tuple[float, float]:
    """Mean conditional negative log densities at the training and the held-out rows, nats."""
    rows = folds.draws.to(mixture.device).expand(mixture.n_members, -1, -1)
    nll = -mixture._log_prob(rows).cpu()
    weights = folds.normalized_weights.expand(len(nll), -1)
    is_heldout = folds.fold == torch.arange(len(nll))[:, None]
    return tuple(  # type: ignore[return-value]
        float((nll * weights)[chosen].sum() / weights[chosen].sum())
        for chosen in (~is_heldout, is_heldout)
    )
