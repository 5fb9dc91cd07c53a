"""Expectation maximisation of elliptical mixtures, for all members of an ensemble at once.

Gaussian components (Dempster, Laird & Rubin 1977) or Student-t components of one
common number of degrees of freedom (Peel & McLachlan 2000). Squared distances and
moments are matrix products with the monomials 1, zᵢ, zᵢzⱼ of the points, computed
once; a member's held-out points ride along with no weight, so that its score on them
costs nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from amfvi.experts.folds import Folds
from amfvi.experts.whitening import Whitening
from torch import Tensor

__all__ = ["Components", "expectation_maximisation"]

RIDGE = 1e-6  # added to covariances, in whitened units
FEWEST_FREEDOM, MOST_FREEDOM = 0.5, 200.0
START_FREEDOM = 8.0


@dataclass(frozen=True)
class Components:
    """K components of each of F members, in whitened units.

    Attributes:
        log_weights: shape (F, K).
        means: shape (F, K, d).
        factors: lower Cholesky factors of the scatter matrices, (F, K, d, d).
        freedom: degrees of freedom of each member, (F,); infinite for Gaussians.
    """

    log_weights: Tensor
    means: Tensor
    factors: Tensor
    freedom: Tensor

    def log_joint(self, squared: Tensor, freedom_is_infinite: bool) -> Tensor:
        """log wₖ qₖ from squared Mahalanobis distances (F, K, n), nats."""
        d = self.means.shape[-1]
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        level = (self.log_weights - log_det).to(squared)
        if freedom_is_infinite:
            return (level - 0.5 * d * math.log(2 * math.pi))[..., None] - 0.5 * squared
        nu = self.freedom.to(squared)[:, None]
        level = level + torch.lgamma((nu + d) / 2) - torch.lgamma(nu / 2)
        level = level - 0.5 * d * torch.log(nu * math.pi)
        nu = nu[..., None]
        return level[..., None] - 0.5 * (nu + d) * torch.log1p(squared / nu)


class _Problem:
    """Points with their monomials, and which member may learn from which."""

    def __init__(self, z: Tensor, folds: Folds, gaussian: bool) -> None:
        self.z = z
        self.gaussian = gaussian
        d = z.shape[1]
        self.rows, self.columns = torch.triu_indices(d, d, device=z.device)
        products = z[:, self.rows] * z[:, self.columns]
        self.monomials = torch.cat([torch.ones_like(z[:, :1]), z, products], dim=1)
        fold = folds.fold.to(z.device)
        members = torch.arange(folds.members, device=z.device)[:, None]
        self.is_heldout = fold == members
        weights = folds.weights.to(z)
        self.learns = (~self.is_heldout).to(z.dtype) * weights
        self.n_train = self.learns.sum(dim=1)
        self.judges = weights.expand(folds.members, -1)[self.is_heldout]

    def seeded(self, k: int, folds: Folds, random: np.random.Generator) -> Components:
        """Components of the nearest points to k-means++ seeds, chosen for each member."""
        from sklearn.cluster import kmeans_plusplus  # imports slowly, and only mixtures need it

        responsibilities = []
        for rows in folds.train_rows:
            # Distances in the member's own whitened units: all are blind to other draws.
            weights = None if folds.weight is None else folds.weights[rows]
            z = Whitening.pooled(self.z[rows], weights).forward(self.z[None])[0].T
            state = np.random.RandomState(random.integers(2**32))
            seeds, _ = kmeans_plusplus(
                z[rows].cpu().numpy(), k, random_state=state,
                sample_weight=None if weights is None else weights.numpy(),
            )  # fmt: skip
            nearest = torch.cdist(z, torch.from_numpy(seeds).to(z)).argmin(dim=1)
            responsibilities.append(torch.nn.functional.one_hot(nearest, k).T.to(self.z))
        weights = torch.stack(responsibilities) * self.learns[:, None]
        freedom = torch.full_like(self.n_train, math.inf if self.gaussian else START_FREEDOM)
        return self._maximised(weights, torch.ones_like(weights), freedom)

    def step(self, components: Components) -> tuple[Components, Tensor, Tensor]:
        """One EM step; mean log densities before it, training (F,) and held out (scalar)."""
        squared = self._squared_distances(components)
        joint = components.log_joint(squared, self.gaussian)
        log_q = joint.logsumexp(dim=1)
        train = (log_q * self.learns).sum(dim=1) / self.n_train
        heldout = (log_q[self.is_heldout] * self.judges).sum() / self.judges.sum()
        weights = joint.sub_(log_q[:, None]).exp_().mul_(self.learns[:, None])
        if self.gaussian:
            return self._maximised(weights, None, components.freedom), train, heldout
        d = self.z.shape[1]
        nu = components.freedom[:, None, None]
        shrink = (nu + d) / (nu + squared)
        tail = (weights * (shrink.log() - shrink)).sum(dim=(1, 2)) / self.n_train
        freedom = _freedom(tail, components.freedom, d)
        return self._maximised(weights, shrink, freedom), train, heldout

    def _squared_distances(self, components: Components) -> Tensor:
        """(F, K, n)."""
        inverse = torch.cholesky_inverse(components.factors)
        towards = (inverse @ components.means[..., None]).squeeze(-1)
        constant = (towards * components.means).sum(dim=-1, keepdim=True)
        # Off-diagonal products are listed once but counted twice.
        twice = torch.where(self.rows == self.columns, 1.0, 2.0).to(self.z)
        quadratic = inverse[..., self.rows, self.columns] * twice
        coefficients = torch.cat([constant, -2 * towards, quadratic], dim=-1)
        return (coefficients @ self.monomials.T).clamp_(min=0)

    def _maximised(self, weights: Tensor, shrink: Tensor | None, freedom: Tensor) -> Components:
        """The components that responsibilities (F, K, n) call for."""
        mass = weights.sum(dim=-1).clamp(min=1e-10)
        moments = (weights if shrink is None else weights * shrink) @ self.monomials
        d = self.z.shape[1]
        pull = moments[..., :1].clamp(min=1e-10)
        means = moments[..., 1 : d + 1] / pull
        second = means.new_zeros(*means.shape, d)
        second[..., self.rows, self.columns] = moments[..., d + 1 :]
        second[..., self.columns, self.rows] = moments[..., d + 1 :]
        scatter = second - pull[..., None] * means[..., :, None] * means[..., None, :]
        scatter = scatter / mass[..., None, None]
        ridge = RIDGE * torch.eye(d, dtype=means.dtype, device=means.device)
        factors, info = torch.linalg.cholesky_ex(scatter + ridge)
        # A component that lost its points, or to rounding its shape, goes back to a round one.
        lost = (info != 0)[..., None, None]
        factors = torch.where(lost, torch.eye(d, dtype=means.dtype, device=means.device), factors)
        log_weights = mass.log() - mass.sum(dim=-1, keepdim=True).log()
        return Components(log_weights, means, factors, freedom)


def expectation_maximisation(
    z: Tensor,
    folds: Folds,
    k: int,
    *,
    gaussian: bool,
    random: np.random.Generator,
    tolerance: float,
    max_iterations: int,
) -> tuple[Components, float, float]:
    """Fit k components to the training rows of each member.

    Args:
        z: whitened draws, (n, d), float64.
        tolerance: the gain in mean training log density, nats, of an iteration that
            is the last.

    Returns:
        The components, and the mean training and held-out negative log densities.
    """
    problem = _Problem(z, folds, gaussian)
    components = problem.seeded(k, folds, random)
    before = -math.inf
    for _ in range(max_iterations):
        following, train, heldout = problem.step(components)
        now = float(train.mean())
        if now - before < tolerance:
            break
        before, components = now, following
    return components, -now, -float(heldout)


def _freedom(tail: Tensor, freedom: Tensor, d: int) -> Tensor:
    """The next ν of each member: the root of its EM equation, overstepped.

    The root is found by bisection of log ν. EM comes near its end in ever smaller
    steps here; going twice as far halves their number.
    """
    half = (freedom + d) / 2
    target = 1 + tail + torch.digamma(half) - half.log()
    low = torch.full_like(freedom, math.log(FEWEST_FREEDOM))
    high = torch.full_like(freedom, math.log(MOST_FREEDOM))
    for _ in range(40):
        middle = (low + high) / 2
        half_nu = middle.exp() / 2
        too_low = half_nu.log() - torch.digamma(half_nu) + target > 0
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    root = (low + high) / 2
    return (2 * root - freedom.log()).clamp(math.log(FEWEST_FREEDOM), math.log(MOST_FREEDOM)).exp()
