"""One step of expectation maximization, for all members of an ensemble at once.

Gaussian components (Dempster, Laird & Rubin 1977) or Student-t components of one
common number of degrees of freedom (Peel & McLachlan 2000). Squared distances and
moments are matrix products with the monomials 1, zᵢ, zᵢzⱼ of the points, computed
once. A member's held-out points are included with weight zero, so that their score
costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.seeding import seed_points
from amfvi.experts.folds import Folds
from amfvi.experts.whitening import Whitening

__all__ = ["FEW_ROWS", "MixtureProblem"]

RIDGE = 1e-6
"""Variance added to the diagonal of every scatter matrix, in whitened units."""

CPU_ELEMENTS = 2**16
"""Responsibilities of all members that are computed at a time on a CPU, so that they stay in its
cache; all at once they are read from memory ten times over."""

ACCELERATOR_ELEMENTS = 2**27
"""The same on an accelerator."""

FEW_ROWS = 20_000
"""Most rows that are climbed from the seeds; more of them are begun with where these end."""

MIN_FREEDOM = 0.5
"""Smallest number of degrees of freedom that is fitted."""

MAX_FREEDOM = 200.0
"""Largest number of degrees of freedom that is fitted."""

START_FREEDOM = 8.0
"""Degrees of freedom before the first iteration."""

MIN_MASS = 1e-10
"""Smallest total responsibility of a component that is divided by."""

MAX_DISAGREEMENT = 0.05
"""Difference in nats between the mean log densities of members above which EM is thought to have
ended in a poor optimum for one of them."""

BISECTIONS = 40
"""Halvings of the interval that holds the log degrees of freedom."""


class MixtureProblem:
    """Points with their monomials and each member's training and held-out weights.

    Examples:
        >>> z = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> problem = MixtureProblem(z, Folds(z, torch.arange(100) % 2), gaussian=True)
        >>> problem.train_mass
        tensor([50., 50.], dtype=torch.float64)
    """

    def __init__(self, z: Tensor, folds: Folds, gaussian: bool) -> None:
        self.z = z
        self.folds = folds
        self.gaussian = gaussian
        d = z.shape[1]
        self.rows, self.columns = torch.triu_indices(d, d, device=z.device)
        self.monomials = _monomials(z)
        fold = folds.fold.to(z.device)
        members = torch.arange(folds.n_members, device=z.device)[:, None]
        self.is_heldout = fold == members
        weights = folds.normalized_weights.to(z)
        self.train_weights = (~self.is_heldout).to(z.dtype) * weights
        self.train_mass = self.train_weights.sum(dim=1)
        self.log_marginal: Tensor | float = 0.0
        self.validation_weights = weights.expand(folds.n_members, -1)[self.is_heldout]

    @cached_property
    def few(self) -> MixtureProblem:
        """The same of ``FEW_ROWS`` rows, of those spread evenly over the folds; itself of fewer."""
        rows = self.folds.spread_rows(FEW_ROWS)
        if len(rows) == len(self.z):
            return self
        return MixtureProblem(self.z[rows], self.folds.subset(rows), self.gaussian)

    def seed_components(self, k: int, random: np.random.Generator) -> Components:
        """Components of the points nearest to k-means++ seeds, chosen for each member."""
        mass, moments, folds = [], [], self.folds
        for member, rows in enumerate(folds.train_rows):
            # Distances in the member's own whitened units, which held-out draws do not enter.
            weights = None if folds.sample_weight is None else folds.normalized_weights[rows]
            z = Whitening.fit_pooled(self.z[rows], weights).forward(self.z[None])[0].T
            state = np.random.RandomState(random.integers(2**32))
            seeds = seed_points(
                z[rows].cpu().numpy(), k, state, None if weights is None else weights.numpy()
            )
            nearest = torch.cdist(z, torch.from_numpy(seeds).to(z)).argmin(dim=1)
            is_nearest = torch.nn.functional.one_hot(nearest, k).T.to(self.z)
            is_nearest *= self.train_weights[member]
            mass.append(is_nearest.sum(dim=1))
            moments.append(is_nearest @ self.monomials)
        freedom = torch.full_like(self.train_mass, math.inf if self.gaussian else START_FREEDOM)
        return self._maximize(torch.stack(mass), torch.stack(moments), freedom)

    def share_starts(self, components: Components) -> Components | None:
        """For each member the components of that member which are the likeliest on its own draws.

        Where EM ended in poor optima for some members, they can start again from there; None
        where no member has much to gain. Members share most of their draws.
        """
        members = torch.arange(len(components.log_weights), device=self.z.device)
        own = self.step(components)[1]
        if own.max() - own.min() < MAX_DISAGREEMENT:
            return None
        others = [members.roll(-shift) for shift in members[1:].tolist()]
        likelihoods = torch.stack([own, *(self.step(components.of_members(m))[1] for m in others)])
        best = likelihoods.argmax(dim=0)
        gained = likelihoods.max(dim=0).values - own
        if gained.max() < MAX_DISAGREEMENT:
            return None
        return components.of_members((members + best) % len(members))

    def step(self, components: Components) -> tuple[Components, Tensor, Tensor]:
        """Take one EM step.

        Also the mean log densities before it, training (F,) and held-out (scalar), nats.
        """
        coefficients = self._coefficients(components)
        if self.gaussian:  # log densities are polynomials themselves
            at_mean = components.log_joint(coefficients.new_zeros(1), freedom_is_infinite=True)
            coefficients *= -0.5
            coefficients[..., :1] += at_mean
        mass = torch.zeros_like(components.log_weights)
        moments = torch.zeros_like(coefficients)
        tail = torch.zeros_like(self.train_mass)
        log_q_of_chunks = []
        for rows in self._chunks(mass.numel()):
            monomials = self.monomials[rows]
            values = coefficients @ monomials.T
            joint = values if self.gaussian else components.log_joint(values.clamp_(min=0), False)
            top = joint.amax(dim=1, keepdim=True)
            weights = joint.sub_(top).exp_()
            total = weights.sum(dim=1, keepdim=True)
            log_q_of_chunks.append((top + total.log()).squeeze(1))
            weights *= self.train_weights[:, None, rows] / total
            mass += weights.sum(dim=2)
            if not self.gaussian:
                nu = components.freedom[:, None, None]
                shrink = (nu + self.z.shape[1]) / (nu + values)
                tail += (weights * (shrink.log() - shrink)).sum(dim=(1, 2))
                weights *= shrink
            moments += weights @ monomials
        log_q = torch.cat(log_q_of_chunks, dim=1) - self.log_marginal
        train = (log_q * self.train_weights).sum(dim=1) / self.train_mass
        heldout = (
            log_q[self.is_heldout] * self.validation_weights
        ).sum() / self.validation_weights.sum()
        freedom = components.freedom
        if not self.gaussian:
            freedom = _freedom(tail / self.train_mass, freedom, self.z.shape[1])
        return self._maximize(mass, moments, freedom), train, heldout

    def _chunks(self, components: int) -> Iterator[slice]:
        """Slices of the rows whose responsibilities of that many components are one chunk."""
        elements = CPU_ELEMENTS if self.z.device.type == "cpu" else ACCELERATOR_ELEMENTS
        size = max(1, elements // components)
        return (slice(start, start + size) for start in range(0, len(self.z), size))

    def _coefficients(self, components: Components) -> Tensor:
        """What squared Mahalanobis distances (F, K, n) are in the monomials, (F, K, m)."""
        inverse = torch.cholesky_inverse(components.factors)
        linear = (inverse @ components.means[..., None]).squeeze(-1)
        constant = (linear * components.means).sum(dim=-1, keepdim=True)
        # Off-diagonal products are listed once but counted twice.
        twice = torch.where(self.rows == self.columns, 1.0, 2.0).to(self.z)
        quadratic = inverse[..., self.rows, self.columns] * twice
        return torch.cat([constant, -2 * linear, quadratic], dim=-1)

    def _maximize(self, mass: Tensor, moments: Tensor, freedom: Tensor) -> Components:
        """The components that maximize the likelihood.

        Args:
            mass: sums of the responsibilities, (F, K).
            moments: sums of the monomials, each times its responsibility and, for a Student-t,
                its shrinkage, (F, K, m).
        """
        mass = mass.clamp(min=MIN_MASS)
        d = self.z.shape[1]
        pull = moments[..., :1].clamp(min=MIN_MASS)
        means = moments[..., 1 : d + 1] / pull
        second = means.new_zeros(*means.shape, d)
        second[..., self.rows, self.columns] = moments[..., d + 1 :]
        second[..., self.columns, self.rows] = moments[..., d + 1 :]
        scatter = second - pull[..., None] * means[..., :, None] * means[..., None, :]
        scatter = scatter / mass[..., None, None]
        identity = torch.eye(d, dtype=means.dtype, device=means.device)
        factors, info = torch.linalg.cholesky_ex(scatter + RIDGE * identity)
        # A component without points, or with a scatter lost to rounding, is reset to a sphere.
        is_degenerate = (info != 0)[..., None, None]
        factors = torch.where(
            is_degenerate, torch.eye(d, dtype=means.dtype, device=means.device), factors
        )
        log_weights = mass.log() - mass.sum(dim=-1, keepdim=True).log()
        return Components(log_weights=log_weights, means=means, factors=factors, freedom=freedom)


def _monomials(z: Tensor) -> Tensor:
    """1, zᵢ and zᵢzⱼ for i ≤ j of points (n, d), row by row of the products: (n, m)."""
    n, d = z.shape
    monomials = z.new_empty(n, 1 + d + d * (d + 1) // 2)
    monomials[:, 0] = 1
    monomials[:, 1 : d + 1] = z
    start = d + 1
    for i in range(d):
        torch.mul(z[:, i:], z[:, i : i + 1], out=monomials[:, start : start + d - i])
        start += d - i
    return monomials


def _freedom(tail: Tensor, freedom: Tensor, d: int) -> Tensor:
    """The next ν of each member: the root of its EM equation, over-relaxed.

    The root is found by bisection of log ν. EM converges slowly in ν; steps of twice
    the length halve their number.
    """
    half = (freedom + d) / 2
    # In numpy: these are a few numbers, and digamma is called forty times.
    target = (1 + tail + torch.digamma(half) - half.log()).cpu().numpy()
    low = np.full_like(target, math.log(MIN_FREEDOM))
    high = np.full_like(target, math.log(MAX_FREEDOM))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        half_nu = np.exp(middle) / 2
        too_low = np.log(half_nu) - digamma(half_nu) + target > 0
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    root = torch.from_numpy((low + high) / 2).to(freedom)
    return (2 * root - freedom.log()).clamp(math.log(MIN_FREEDOM), math.log(MAX_FREEDOM)).exp()
