"""Scores from log densities: negative log-likelihood and exact Kullback–Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Estimate", "kl", "nll"]


@dataclass(frozen=True)
class Estimate:
    """A mean over independent draws with its standard error."""

    mean: float
    se: float

    @classmethod
    def of(cls, terms: Tensor, weight: Tensor | None = None) -> Estimate:
        """From independent terms (n,), with importance weights if there are any."""
        terms = terms.double()
        if weight is not None:
            share = weight / weight.sum()
            mean = (share * terms).sum()
            return cls(float(mean), float((share * (terms - mean)).square().sum().sqrt()))
        se = terms.std() / len(terms) ** 0.5 if len(terms) > 1 else terms.new_tensor(float("nan"))
        return cls(float(terms.mean()), float(se))


def nll(log_q: Tensor, weight: Tensor | None = None) -> Estimate:
    """−E_p[log q] in nats from log q at draws of p with their weights, shape (n,)."""
    return Estimate.of(-log_q, weight)


def kl(log_p: Tensor, log_q: Tensor) -> Estimate:
    """KL(p‖q) = E_p[log p − log q] in nats, paired at the same draws of p, (n,) each.

    Pairing cancels most of the noise that log p and log q share, so the standard
    error is far smaller than that of NLL − entropy.
    """
    return Estimate.of(log_p.double() - log_q.double())
