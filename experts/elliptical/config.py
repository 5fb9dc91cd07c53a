"""Settings of mixtures of elliptical components, and the search for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts.attempts import Attempts
from amfvi.experts.checks import check_tensors, count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.em import maximize_expectation
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.elliptical.problem import FEW_ROWS, MixtureProblem
from amfvi.experts.folds import Folds
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.early_stopping import EarlyStopping
from amfvi.experts.whitening import Whitening

__all__ = ["COMPONENT_COUNTS", "EllipticalConfig"]

COMPONENT_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 64)
"""Numbers of components that are tried in turn."""

MAX_ROWS = 200_000
"""Most draws, by folds, that components are fitted to."""


@dataclass(frozen=True, kw_only=True)
class EllipticalConfig(ExpertConfig):
    """Settings of a mixture of elliptical components with full scatter matrices.

    The numbers of components in ``COMPONENT_COUNTS`` (1, 2, 3, 4, 5, 6, 8, …) are tried
    in turn until ``patience`` of them have not improved the held-out density; the best is
    kept. Of more than 20,000 draws the best number is found on that many first, and only it
    and larger ones are tried on all.

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
        return self.fit_mixture(
            folds, generator=generator, device=device, progress=progress, timeout=timeout
        )

    def fit_mixture(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        rival_nll: float | None = None,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[EllipticalMixture, FitReport]:
        """Fit more and more components.

        Args:
            rival_nll: held-out NLL of another fit; what cannot reach it ends early.
        """
        folds.require_fittable(self.kind)
        folds = folds.at_most(MAX_ROWS)
        counts = self._component_counts(folds)
        attempts = Attempts(progress, timeout)
        is_large = len(folds) > FEW_ROWS
        if is_large:  # more draws pay for more components, not for fewer
            few, report = self.fit_mixture(
                folds.at_most(FEW_ROWS), generator=generator, rival_nll=rival_nll, device=device,
                progress=attempts.progress(0.0, 0.5), timeout=timeout,
            )  # fmt: skip
            if rival_nll is not None and report.heldout_nll - _gain_of_more_draws(few) > rival_nll:
                return few, attempts.report(report)
            counts = [k for k in counts if k >= few.n_components]
        stopping = EarlyStopping(
            patience=self.patience,
            max_steps=counts[-1],
            limit_name="max_components",
            progress=attempts.progress(0.5 * is_large, 1.0),
            timeout=attempts.seconds_left,
            rival_nll=rival_nll,
            by_doublings=True,
        )
        # For numerical reasons only: EM is invariant under affine maps.
        whitening = Whitening.fit_pooled(folds.draws, folds.sample_weight, folds.given)
        z = whitening.forward(folds.draws[None])[0].T.to(device)
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        whitening, offset = whitening.to(device), -float(whitening.log_det)
        best: EllipticalMixture | None = None
        problem = self._problem(z, folds)
        for count in counts:
            components, train_nll, heldout_nll = self._fit_components(problem, count, random)
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
        return best, attempts.report(stopping.report())

    def _problem(self, z: Tensor, folds: Folds) -> MixtureProblem:
        """Whitened rows (n, d), as EM needs them for any number of components."""
        return MixtureProblem(z, folds, self.gaussian)

    def _fit_components(
        self, problem: MixtureProblem, count: int, random: np.random.Generator
    ) -> tuple[Components, float, float]:
        """As :func:`~amfvi.experts.elliptical.em.maximize_expectation`."""
        return maximize_expectation(
            problem,
            count,
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


def _gain_of_more_draws(mixture: EllipticalMixture) -> float:
    """Nats that as many components may gain from draws without end; twice what is expected."""
    columns = mixture.given + mixture.dim
    n_parameters = mixture.n_components * (columns + 1) * (columns + 2) / 2
    return n_parameters / FEW_ROWS


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
