"""The posterior that a fit returns: a mixture with its history, diagnostics and exports."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws, importance_sample
from amfvi.diagnostics.correction import correct_draws
from amfvi.diagnostics.refined_draws import RefinedDraws, refine_draws
from amfvi.diagnostics.report import Diagnostics
from amfvi.errors import UsageError
from amfvi.experts import Expert
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.saving import save
from amfvi.transport import Transport
from amfvi.two_stage.fit import FitSummary
from amfvi.variables import Variables

__all__ = ["Posterior"]


class Posterior(Mixture):
    """A fitted mixture, and what is known of the fit.

    Made by :func:`amfvi.fit` and :func:`amfvi.load`. It is the torch distribution that
    :class:`~amfvi.Mixture` describes; its attributes are read-only.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> posterior.summary.weights.converged, posterior.diagnostics is None
        (True, True)
    """

    _summary: FitSummary | None = None
    _diagnostics: Diagnostics | None = None
    _log_density: LogDensity | None = None
    _weighted: WeightedDraws | None = None
    _variables: Variables | None = None

    @classmethod
    def from_mixture(
        cls,
        mixture: Mixture,
        *,
        summary: FitSummary | None = None,
        diagnostics: Diagnostics | None = None,
        log_density: LogDensity | None = None,
        weighted: WeightedDraws | None = None,
        variables: Variables | None = None,
    ) -> Self:
        """Add to a mixture what is known of its fit.

        Args:
            summary: how it was fitted.
            diagnostics: how it compares with the log density it was fitted to.
            log_density: the one it was fitted to.
            weighted: draws of the mixture with their importance weights.
            variables: the arrays that its parameters are entries of; left out if their
                names are others.
        """
        posterior = cls(
            mixture.experts,
            mixture.weights,
            transform=mixture.transform,
            names=mixture.names,
            scale=mixture.scale,
        )
        posterior._summary = summary
        posterior._diagnostics = diagnostics
        posterior._log_density = log_density
        posterior._weighted = weighted
        if variables is not None and variables.names == posterior.names:
            posterior._variables = variables
        return posterior

    @property
    def summary(self) -> FitSummary | None:
        """How it was fitted; None for a model that was loaded."""
        return self._summary

    @property
    def diagnostics(self) -> Diagnostics | None:
        """The verdict and its numbers; None for a fit to draws, which cannot have any."""
        return self._diagnostics

    @property
    def log_density(self) -> LogDensity | None:
        """The log density it was fitted to; None for a fit to draws or a loaded model."""
        return self._log_density

    @property
    def variables(self) -> Variables:
        """The arrays that its parameters are entries of, for ArviZ."""
        return self._variables or Variables.from_names(self.names)

    def weighted_draws(self, n: int | None = None, *, seed: int = 0) -> WeightedDraws:
        """Draws of the mixture with their importance weights towards the log density.

        Args:
            n: how many, each an evaluation of the density; if not given, those that the
                diagnostics rest on, at no cost.
            seed: seed of new draws.

        Raises:
            UsageError: the posterior was not fitted to a log density in this process; use
                :meth:`with_log_density`.
        """
        if n is None and self._weighted is not None:
            return self._weighted
        n_draws = 4000 if n is None else n
        generator = generator_for(seed, "weighted draws")
        with self._require_log_density().closing() as density:
            return importance_sample(self, UnconstrainedDensity(density), n_draws, generator)

    def corrected_draws(self, n: int = 4000, *, seed: int = 0) -> Tensor:
        """Draws of the posterior rather than of the mixture, (n, d).

        Resampled by importance weights and moved by steps that leave the posterior
        invariant; see :func:`amfvi.diagnostics.correction.correct_draws`. Right where the
        verdict is to use importance weights. Some 20 evaluations of the density per draw.

        Raises:
            UsageError: there is no log density; use :meth:`with_log_density`.
        """
        generator = generator_for(seed, "corrected draws")
        with self._require_log_density().closing() as density:
            return correct_draws(self, UnconstrainedDensity(density), n, generator)

    def refine(
        self,
        log_density: LogDensity | None = None,
        *,
        steps: int = 200,
        n_chains: int = 64,
        seed: int = 0,
    ) -> RefinedDraws:
        """Exact draws of the posterior, by Markov chains that start from the mixture's draws.

        They cost some ten evaluations of the density each, and are right where the mixture is
        not: see :func:`amfvi.diagnostics.refined_draws.refine_draws`. Chains cannot find a mode
        that neither the mixture nor any of them comes near.

        Args:
            log_density: the one that the posterior was fitted to, if not given.
            steps: of each chain; a quarter is left out.
            n_chains: chains side by side.
            seed: of the chains.

        Raises:
            UsageError: there is no log density, or it has other parameters.
        """
        density = self._require_log_density() if log_density is None else log_density
        generator = generator_for(seed, "refined draws")
        with self.with_log_density(density)._require_log_density().closing() as density:
            over = UnconstrainedDensity(density)
            return refine_draws(self, over, steps, generator, n_chains=n_chains)

    def transport(self, expert: str | None = None) -> Transport:
        """A differentiable bijection from normal scores to parameters; see :class:`Transport`.

        Raises:
            UsageError: no such expert, or one that is not a bijection.
        """
        return Transport(self, expert)

    def with_log_density(self, log_density: LogDensity) -> Self:
        """The same posterior with a log density for importance weights.

        Raises:
            UsageError: it has other parameters.
        """
        if log_density.dim != self.dim:
            raise UsageError(
                f"the log density has {log_density.dim} parameters, the posterior {self.dim}"
            )
        other = copy.copy(self)
        other._log_density = log_density
        other._weighted = None
        return other

    def _require_log_density(self) -> LogDensity:
        if self._log_density is None:
            raise UsageError(
                "importance weights need the log density: this posterior was fitted to draws "
                "or loaded; give it one with posterior.with_log_density(density)"
            )
        return self._log_density

    def _with(self, *, experts: Mapping[str, Expert], weights: Any = None) -> Self:
        other = super()._with(experts=experts, weights=weights)
        if weights is not None:  # importance weights of another mixture
            other._weighted = None
        return other

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model to a new directory, to be read by :func:`amfvi.load`.

        Experts, weights, names, constraints and diagnostics are kept; the draws it was
        fitted to and the log density are not.

        Raises:
            InputError: the directory exists and ``overwrite`` is False, or it cannot be
                written.
        """
        return save(self, path, metadata=self.metadata(), overwrite=overwrite)

    def metadata(self) -> dict[str, Any]:
        """What is saved beside the mixture, in JSON values."""
        saved: dict[str, Any] = {}
        if self._diagnostics is not None:
            saved["diagnostics"] = self._diagnostics.to_json()
        if self._variables is not None:
            saved["variables"] = self._variables.to_json()
        return saved

    def to_arviz(self, n: int = 4000, *, seed: int = 0, transformed: bool = False) -> Any:
        """Draws as ArviZ data; see :func:`amfvi.to_arviz`.

        Raises:
            UsageError: ArviZ is not installed.
        """
        from amfvi.interop.arviz import to_arviz

        return to_arviz(self, n, seed=seed, transformed=transformed)

    def to_pyro(self) -> Any:
        """The same distribution for ``pyro.sample``; see :func:`amfvi.to_pyro`.

        Raises:
            UsageError: Pyro is not installed.
        """
        from amfvi.interop.pyro import to_pyro

        return to_pyro(self)

    def to_numpyro(self) -> Any:
        """The same distribution for ``numpyro.sample``; see :func:`amfvi.to_numpyro`.

        Raises:
            UsageError: NumPyro is not installed.
        """
        from amfvi.interop.numpyro_distribution import to_numpyro

        return to_numpyro(self)
