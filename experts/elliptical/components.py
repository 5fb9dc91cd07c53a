"""Elliptical components of all members of an ensemble: densities, draws, and conditionals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["Components", "MixtureDensity"]


@dataclass(frozen=True, kw_only=True)
class Components:
    """K components of each of F members, in whitened units.

    Attributes:
        log_weights: shape (F, K).
        means: shape (F, K, d).
        factors: lower Cholesky factors of the scatter matrices, (F, K, d, d).
        freedom: degrees of freedom of each member, (F,); infinite for Gaussians.

    Examples:
        >>> standard = Components(
        ...     log_weights=torch.zeros(1, 1), means=torch.zeros(1, 1, 2),
        ...     factors=torch.eye(2)[None, None], freedom=torch.tensor([math.inf]))
        >>> standard.log_joint(torch.tensor([[[0.0, 2.0]]]), freedom_is_infinite=True)
        tensor([[[-1.8379, -2.8379]]])
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

    def of_members(self, index: Tensor) -> Components:
        """Components of the members ``index``, (F,), in its order."""
        return Components(
            log_weights=self.log_weights[index],
            means=self.means[index],
            factors=self.factors[index],
            freedom=self.freedom[index],
        )

    def marginal(self, n: int) -> Components:
        """The components of the first ``n`` coordinates alone."""
        return replace(self, means=self.means[..., :n], factors=self.factors[..., :n, :n])

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """``n`` draws of every member, (F, n, d), float64, on the CPU."""
        weights = self.log_weights.exp()
        index = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = _noise((*index.shape, self.means.shape[2]), self.freedom[:, None], generator)
        means, factors = self._chosen(index)
        return means + (factors @ noise[..., None]).squeeze(-1)

    def sample_given(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """A draw of the other coordinates for the first of each point (F, n, given).

        A component is chosen by its probability there; given the first coordinates, a
        Student-t is one with ``given`` more degrees of freedom, as wide as they are far out.
        """
        given, d = z.shape[2], self.means.shape[2]
        marginal = self.marginal(given)
        difference = z[:, None] - marginal.means[:, :, None]
        standard = torch.linalg.solve_triangular(marginal.factors, difference.mT, upper=False).mT
        squared = standard.square().sum(dim=3)
        probabilities = marginal.log_joint(squared, self.is_gaussian).softmax(dim=1)
        flat = probabilities.permute(0, 2, 1).reshape(-1, len(self.means[0]))
        index = torch.multinomial(flat, 1, generator=generator).view(z.shape[:2])
        freedom = self.freedom[:, None] + given
        noise = _noise((*z.shape[:2], d - given), freedom, generator)
        if not self.is_gaussian:
            at_index = squared.gather(1, index[:, None]).squeeze(1)
            noise = noise * ((freedom - given + at_index) / freedom).sqrt()[..., None]
        member = torch.arange(len(z))[:, None]
        standard = standard[member, index, torch.arange(z.shape[1])]
        means, factors = self._chosen(index)
        joint = torch.cat([standard, noise], dim=2)
        return (means + (factors @ joint[..., None]).squeeze(-1))[..., given:]

    @property
    def is_gaussian(self) -> bool:
        """Whether all components are Gaussians."""
        return bool(torch.isinf(self.freedom).all())

    def to(self, device: torch.device | str) -> Components:
        """The same components with their numbers on ``device``."""
        return Components(**{name: value.to(device) for name, value in vars(self).items()})

    def _chosen(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Means and factors of the components with these numbers, (F, n)."""
        member = torch.arange(len(index))[:, None]
        return self.means[member, index], self.factors[member, index]


class MixtureDensity:
    """Log densities of components and of their mixture, in any precision.

    Args:
        components: of all members.

    Examples:
        >>> components = Components(
        ...     log_weights=torch.zeros(1, 1), means=torch.ones(1, 1, 1),
        ...     factors=2 * torch.ones(1, 1, 1, 1), freedom=torch.tensor([math.inf]))
        >>> density = MixtureDensity(components)
        >>> density.squares(torch.tensor([[[5.0]]])), density.log_prob(torch.tensor([[[1.0]]]))
        (tensor([[[[4.]]]]), tensor([[-1.6121]]))
    """

    def __init__(self, components: Components) -> None:
        self.components = components
        self._is_gaussian = components.is_gaussian
        factors, means = components.factors, components.means
        members, self._count, dim = means.shape
        identity = torch.eye(dim, dtype=factors.dtype, device=factors.device)
        inverse = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
        self._scale = inverse.reshape(members, -1, dim)  # all L⁻¹ under one another
        self._shift = -(inverse @ means[..., None]).reshape(members, -1, 1)

    def squares(self, z: Tensor) -> Tensor:
        """Squares of standardized coordinates (F, K, d, n) of points (F, d, n)."""
        standard = torch.baddbmm(self._shift.to(z), self._scale.to(z), z)
        return standard.square().unflatten(1, (self._count, z.shape[1]))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log densities (F, n) of the mixture of each member at its points (F, d, n), nats."""
        distances = self.squares(z).sum(dim=2)
        return self.components.log_joint(distances, self._is_gaussian).logsumexp(dim=1)


def _noise(shape: tuple[int, ...], freedom: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normals (F, n, d), or Student-t vectors of ``freedom`` (F, 1)."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if bool(freedom.isinf().all()):
        return noise
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    degrees = freedom.numpy()
    spread = torch.from_numpy(degrees / random.chisquare(degrees, shape[:2]))
    return noise * spread.sqrt()[..., None]
