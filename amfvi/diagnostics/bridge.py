"""Bridge sampling: the evidence from draws of a posterior and draws of a mixture together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.statistics import Estimate

__all__ = ["bridge_log_z"]

MAX_ITERATIONS = 1000
"""Iterations of the fixed point at most."""

TOLERANCE = 1e-10
"""Change of log Z, in nats, at which the fixed point is reached."""


def bridge_log_z(of_posterior: Tensor, of_mixture: Tensor, n_effective: float) -> Estimate:
    """Estimate log Z by the optimal bridge (Meng & Wong 1996, Statistica Sinica 6, 831–860).

    Args:
        of_posterior: log p̃ − log q in nats at draws of the posterior that q was not fitted to,
            (m,).
        of_mixture: the same at draws of q, (n,); −∞ where p̃ is zero.
        n_effective: how many independent draws those of the posterior are worth.

    Returns:
        log Z in nats, with the standard error of Frühwirth-Schnatter (2004, Econometrics J. 7,
        143–167), in which the draws of the posterior count for ``n_effective``.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(4000, generator=generator).double()  # N(0, 1), and p̃ is e² N(0.3, 1)
        >>> ratio = lambda x: 2 + 0.3 * x - 0.045
        >>> estimate = bridge_log_z(ratio(z + 0.3), ratio(z), 4000)
        >>> abs(estimate.mean - 2) < 3 * estimate.se, estimate.se < 0.01
        (True, True)
    """
    n = len(of_mixture)
    share_p = n_effective / (n_effective + n)
    log_shares = math.log(share_p), math.log1p(-share_p)
    log_z = float(of_mixture.logsumexp(dim=0)) - math.log(n)
    for _ in range(MAX_ITERATIONS):
        f_q, f_p = _bridge_terms(of_mixture, of_posterior, log_z, log_shares)
        step = float(f_q.mean().log() - f_p.mean().log())
        log_z += step
        if not abs(step) > TOLERANCE:
            break
    f_q, f_p = _bridge_terms(of_mixture, of_posterior, log_z, log_shares)
    variance = f_q.var() / f_q.mean().square() / n
    variance += f_p.var() / f_p.mean().square() / n_effective
    return Estimate(log_z, float(variance.sqrt()))


def _bridge_terms(
    of_mixture: Tensor, of_posterior: Tensor, log_z: float, log_shares: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """p/(s p + t q) at draws of q (n,) and q/(s p + t q) at draws of p (m,)."""
    log_s, log_t = log_shares
    terms = []
    for log_ratio, of_p in ((of_mixture - log_z, True), (of_posterior - log_z, False)):
        log_bridge = torch.logaddexp(log_s + log_ratio, log_ratio.new_tensor(log_t))
        terms.append(((log_ratio if of_p else 0.0) - log_bridge).exp())
    return terms[0], terms[1]
