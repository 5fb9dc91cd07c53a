"""Scores from log densities: negative log-likelihood and exact Kullback–Leibler divergence."""

from __future__ import annotations

from torch import Tensor

from amfvi.statistics import Estimate

__all__ = ["kl", "nll"]


def nll(log_q: Tensor, sample_weight: Tensor | None = None) -> Estimate:
    """Estimate −E_p[log q] in nats from log q at draws of p with their weights, (n,).

    Examples:
        >>> import torch
        >>> nll(torch.tensor([-1.0, -3.0]))
        Estimate(mean=2.0, se=1.0)
    """
    return Estimate.from_terms(-log_q, sample_weight)


def kl(log_p: Tensor, log_q: Tensor) -> Estimate:
    """Estimate KL(p‖q) = E_p[log p − log q] in nats from both at the same draws of p, (n,).

    Pairing cancels most of the noise that log p and log q share, so the standard
    error is far smaller than that of NLL − entropy.

    Examples:
        >>> import torch
        >>> kl(torch.tensor([-1.0, -3.0]), torch.tensor([-1.5, -3.5]))
        Estimate(mean=0.5, se=0.0)
    """
    return Estimate.from_terms(log_p.double() - log_q.double())
