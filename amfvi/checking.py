"""Judge a mixture by a log density."""

from __future__ import annotations

from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError
from amfvi.inference.check import check_mixture
from amfvi.mixture import Mixture
from amfvi.posterior import Posterior
from amfvi.reporting import Reporter
from amfvi.sources import DensityLike
from amfvi.two_stage.options import FitOptions

__all__ = ["check"]


def check(
    mixture: Mixture,
    density: DensityLike,
    *,
    seed: int = 0,
    max_evaluations: int | None = None,
    timeout: float | None = None,
    reporter: Reporter | None = None,
) -> Posterior:
    """Judge a mixture by a log density, however it was fitted; nothing is sampled.

    Args:
        mixture: a fit to draws, a loaded model, or any :class:`~amfvi.Mixture`.
        density: of the same parameters; or a function as :class:`~amfvi.LogDensity` takes it.
        seed: of everything random.
        max_evaluations, timeout: limits on evaluations of the density, and in seconds.
        reporter: receives log lines.

    Returns:
        The same mixture with ``diagnostics`` and importance weights.

    Raises:
        UsageError: the density has other parameters.
        InputError: a broken density.

    Examples:
        >>> import amfvi
        >>> import numpy as np
        >>> draws = np.random.default_rng(0).normal(size=(2000, 2))
        >>> checked = check(amfvi.fit(draws, experts="gmm"), lambda x: -0.5 * (x**2).sum(dim=1))
        >>> print(checked.diagnostics.verdict, f"{checked.diagnostics.log_z:.2f}")
        trust 1.84
    """
    if not isinstance(density, LogDensity):
        density = LogDensity(
            density, mixture.dim, names=mixture.names, constraints=mixture.constraints
        )
    if density.dim != mixture.dim:
        raise UsageError(f"the log density has {density.dim} parameters, the mixture {mixture.dim}")
    options = FitOptions(seed=seed, max_evaluations=max_evaluations, timeout=timeout)
    with density.closing():
        diagnostics, weighted = check_mixture(mixture, density, options, reporter=reporter)
    summary = mixture.summary if isinstance(mixture, Posterior) else None
    return Posterior.from_mixture(
        mixture,
        summary=summary,
        diagnostics=diagnostics,
        log_density=density,
        weighted=weighted,
        variables=mixture.variables if isinstance(mixture, Posterior) else density.variables,
    )
