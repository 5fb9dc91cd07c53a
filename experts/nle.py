"""Neural likelihood estimation: a posterior of one parameter by Bayes' rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts.attempts import Attempts
from amfvi.experts.base import Expert
from amfvi.experts.bayes_rule import LikelihoodExpert
from amfvi.experts.config import ExpertConfig
from amfvi.experts.folds import Folds
from amfvi.experts.gmm import GMM
from amfvi.experts.logistic_maf import LogisticMAF
from amfvi.experts.mdn import NoisyMDN
from amfvi.experts.rbig import RBIG
from amfvi.experts.reflected import Reflected
from amfvi.experts.reports import FitReport, Progress

__all__ = ["NLE"]

NODES = 64
"""Nodes of the quadrature, half of them evenly spaced and half at quantiles of the parameter."""

MARGIN = 0.2
"""Share of the range of the parameter by which the nodes exceed it at either end."""

MAX_ROWS = 5_000
"""Most pairs, by folds, that nodes are placed and the density is reported by."""

PARTS = ("prior", "likelihood", "nodes")
"""Names of the tensors of an expert, before the first dot."""


@dataclass(frozen=True, kw_only=True)
class NLE(ExpertConfig):
    """Settings of a posterior by Bayes' rule; it needs a condition, and one parameter.

    Neural likelihood estimation (Papamakarios, Sterratt & Murray 2019, arXiv:1805.07226): the
    density of the condition given the parameter is often simpler than the density of the
    parameter given the condition: it has one branch where the posterior has several. It is a
    mixture density network of few components, trained with noise, or a masked autoregressive
    flow with mixtures of logistics; the density of the parameter is an RBIG or a Gaussian
    mixture; of either, the one with the larger held-out density. Their product is normalized by
    quadrature over the parameter, of which there may therefore be one only.

    Attributes:
        components: of the mixture density network.
        hidden_features: hidden units of each layer of both networks.
        max_steps: most steps at full learning rates of either training.

    Examples:
        >>> NLE().components, NLE.kind
        (2, 'nle')
    """

    kind: ClassVar[str] = "nle"
    max_dim: ClassVar[int | None] = 1

    components: int = 2
    hidden_features: int = 32
    max_steps: int = 800

    def __post_init__(self) -> None:
        self._require_positive("components", "hidden_features", "max_steps")

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[LikelihoodExpert, FitReport]:
        """Fit both densities; see :meth:`ExpertConfig.fit_folds`.

        The curve of the report is that of the likelihood, shifted so that it ends at the negative
        log density of the parameters.

        Raises:
            UsageError: there is no condition, or more than one parameter.
        """
        if not folds.given or folds.dim != 1:
            found = f"{folds.dim} parameters" if folds.given else "no condition"
            raise UsageError(f"nle is a density of one parameter given a condition, found {found}")
        folds.require_fittable(self.kind)
        attempts = Attempts(progress, timeout)
        condition, y = folds.draws[:, : folds.given], folds.draws[:, folds.given :]
        likelihood, report = _better(
            self._likelihoods(), replace(folds, draws=torch.cat([y, condition], 1), given=1),
            generator, device, attempts,
        )  # fmt: skip
        prior, _ = _better(
            self._priors(), replace(folds, draws=y, given=0), generator, device,
            Attempts(None, attempts.seconds_left),
        )  # fmt: skip
        few = folds.at_most(MAX_ROWS)
        nodes = _nodes(few.draws[:, folds.given])
        expert = LikelihoodExpert(self, prior, likelihood, nodes.to(device))
        shares = few.heldout_sample_weight
        log_q = expert.log_prob_out_of_fold(few).cpu()
        mean = log_q.mean() if shares is None else (shares * log_q).sum()
        shift = -float(mean) - report.heldout_nll
        history = tuple(
            replace(record, train_nll=record.train_nll + shift,
                    heldout_nll=record.heldout_nll + shift)
            for record in report.history
        )  # fmt: skip
        return expert, attempts.report(replace(report, history=history))

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> LikelihoodExpert:
        """Rebuild the expert whose :meth:`LikelihoodExpert.tensors` these are."""
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in PARTS}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part not in parts:
                raise InputError(f"nle: unexpected tensor {name!r} in the saved model")
            parts[part][rest] = value
        rbig, gmm = self._priors()
        mdn, flow = self._likelihoods()
        prior: ExpertConfig = gmm if "log_weights" in parts["prior"] else rbig
        if "low" in parts["prior"]:
            prior = Reflected(expert=prior)
        is_flow = any(name.startswith("flow.") for name in parts["likelihood"])
        nodes = parts["nodes"].get("", torch.empty(0)).double()
        if nodes.shape != (NODES,) or not bool((nodes.diff() >= 0).all()):
            raise InputError(f"nle: tensor 'nodes' must hold {NODES} ascending numbers")
        return LikelihoodExpert(
            self,
            prior.restore(1, parts["prior"]),
            (flow if is_flow else mdn).restore(given, parts["likelihood"], given=1),
            nodes,
        )

    def _likelihoods(self) -> tuple[NoisyMDN, LogisticMAF]:
        width, steps = self.hidden_features, self.max_steps
        return (
            NoisyMDN(components=self.components, hidden_features=width, max_steps=steps),
            LogisticMAF(hidden_features=width, max_steps=steps),
        )

    def _priors(self) -> tuple[RBIG, GMM]:
        return RBIG(), GMM()


def _better(
    configs: tuple[ExpertConfig, ExpertConfig],
    folds: Folds,
    generator: torch.Generator,
    device: torch.device | str,
    attempts: Attempts,
) -> tuple[Expert, FitReport]:
    """The fit with the larger held-out density of those that succeed."""
    fits: list[tuple[Expert, FitReport]] = []
    failures: list[FitError] = []
    for number, config in enumerate(configs):
        share = number / len(configs)
        fit_config = config.fit_folds
        if fits and isinstance(config, LogisticMAF):  # it ends early if it is out of reach
            fit_config = partial(config.fit_flow, rival_nll=fits[0][1].heldout_nll)
        try:
            fit = fit_config(
                folds, generator=generator, device=device,
                progress=attempts.progress(share, share + 1 / len(configs)),
                timeout=attempts.seconds_left,
            )  # fmt: skip
        except FitError as error:
            failures.append(error)
        else:
            fits.append(fit)
    if not fits:
        raise failures[0]
    return min(fits, key=lambda fit: fit[1].heldout_nll)


def _nodes(y: Tensor) -> Tensor:
    """Nodes (NODES,) over the range of the parameter and beyond, closer where it has draws."""
    margin = MARGIN * float(y.max() - y.min())
    even = torch.linspace(float(y.min()) - margin, float(y.max()) + margin, NODES // 2)
    dense = y.quantile((torch.arange(NODES // 2).double() + 0.5) / (NODES // 2))
    return torch.cat([even.double(), dense]).sort().values
