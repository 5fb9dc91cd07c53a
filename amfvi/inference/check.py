"""Judge a mixture by a log density, however the mixture came about."""

from __future__ import annotations

from dataclasses import replace

from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.evidence import Evidence
from amfvi.diagnostics.report import Diagnostics
from amfvi.diagnostics.verdict import diagnose
from amfvi.inference.attempt import Assessment
from amfvi.inference.confirmation import confirm
from amfvi.inference.infer import require_no_noise
from amfvi.inference.session import Session
from amfvi.mixture import Mixture
from amfvi.reporting import Reporter
from amfvi.two_stage.options import FitOptions

__all__ = ["check_mixture"]


def check_mixture(
    mixture: Mixture,
    log_density: LogDensity,
    options: FitOptions,
    *,
    reporter: Reporter | None = None,
) -> tuple[Diagnostics, WeightedDraws]:
    """Compare a mixture with a log density; nothing is sampled and nothing fitted.

    Draws of the mixture are weighted, modes and tails that it lacks are searched for, and
    chains start from its draws.

    Args:
        options: of which ``seed``, ``device``, ``timeout`` and ``max_evaluations`` count.

    Raises:
        InputError: a broken density.

    Examples:
        >>> import torch
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> shifted = LogDensity(lambda x: -0.5 * ((x - 3)**2).sum(dim=1), dim=1)
        >>> print(check_mixture(mixture, shifted, FitOptions())[0].verdict)
        do not trust
    """
    session = Session(log_density, options, reporter or Reporter(), None)
    session.budget.release()
    assessment = Assessment(mixture=mixture, weighted=session.compare(mixture, 0))
    require_no_noise(session, assessment)
    report = session.search(assessment, [])
    if report is not None:
        assessment = replace(assessment, coverage=report)
    assessment = confirm(session, session.challenge(assessment), 0)
    diagnostics = diagnose(
        Evidence(
            weighted=assessment.weighted,
            shift=assessment.shift,
            sample=None,
            refinement=None,
            coverage=assessment.coverage,
            departure=assessment.departure,
            eubo=None,
            n_evaluations=session.budget.spent,
            describe=session.density.describe,
            caveat=session.density.log_density.caveat,
        )
    )
    return diagnostics, assessment.weighted
