"""Linear Gaussian conditional targets: the density is a normal in closed form."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from amfvi.targets.base import normal
from amfvi.targets.conditional.simulators import SimulatorTarget

__all__ = ["Linear3", "Linear10", "LinearGaussian"]


class LinearGaussian(SimulatorTarget):
    """y ~ N(0, v I), c = A y + N(0, R); subclasses give A, v and R.

    Examples:
        >>> LinearGaussian.__subclasses__() == [Linear3, Linear10]
        True
    """

    entropy_source = "closed form"

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """A, (given_dim, d)."""

    @property
    @abstractmethod
    def prior_variance(self) -> float:
        """Variance v of each entry of y."""

    @property
    @abstractmethod
    def noise_covariance(self) -> Tensor:
        """R, (given_dim, given_dim)."""

    @property
    def entropy(self) -> float:
        prior, noise, marginal = self._distributions(torch.device("cpu"))
        return float(prior.entropy() + noise.entropy() - marginal.entropy())

    def sample_prior(self, n: int, generator: torch.Generator) -> Tensor:
        return self.prior_variance**0.5 * normal(n, self.dim, generator)

    def log_prior(self, y: Tensor) -> Tensor:
        return self._distributions(y.device)[0].log_prob(y)

    def simulate(self, y: Tensor, generator: torch.Generator) -> Tensor:
        factor = torch.linalg.cholesky(self.noise_covariance)
        return y @ self.matrix.T + normal(len(y), self.given_dim, generator) @ factor.T

    def log_likelihood(self, given: Tensor, y: Tensor) -> Tensor:
        return self._distributions(y.device)[1].log_prob(given - y @ self.matrix.to(y).T)

    def log_evidence(self, given: Tensor) -> Tensor:
        """Log N(c; 0, v A Aᵀ + R) in nats."""
        return self._distributions(given.device)[2].log_prob(given)

    def _distributions(
        self, device: torch.device
    ) -> tuple[MultivariateNormal, MultivariateNormal, MultivariateNormal]:
        """Of y, of c − A y, and of c."""
        noise = self.noise_covariance
        covariances = (
            self.prior_variance * torch.eye(self.dim, dtype=torch.float64),
            noise,
            self.prior_variance * self.matrix @ self.matrix.T + noise,
        )
        first, second, third = (
            MultivariateNormal(torch.zeros(len(s)).to(s).to(device), s.to(device))
            for s in covariances
        )
        return first, second, third


@dataclass(frozen=True, repr=False)
class Linear3(LinearGaussian):
    """y ~ N(0, I) in three dimensions, c = A y + e in four, e correlated with sd 0.5.

    A has rows (1, ½, 0), (0, 1, −½), (½, 0, 1), (1, −1, ½); the covariance of eᵢ and eⱼ is
    ¼ · 0.6^|i − j|.

    Examples:
        >>> Linear3()
        <conditional target linear3: 3 given 4, entropy 0.7621 nats>
    """

    name = "linear3"
    dim = 3
    given_dim = 4
    source = "linear regression with correlated errors; Gelman et al. 2013, chapter 14"
    prior_variance = 1.0

    @property
    def matrix(self) -> Tensor:
        rows = [[1.0, 0.5, 0.0], [0.0, 1.0, -0.5], [0.5, 0.0, 1.0], [1.0, -1.0, 0.5]]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def noise_covariance(self) -> Tensor:
        i = torch.arange(self.given_dim, dtype=torch.float64)
        return 0.25 * 0.6 ** (i[:, None] - i).abs()


@dataclass(frozen=True, repr=False)
class Linear10(LinearGaussian):
    """y ~ N(0, 0.1 I), c ~ N(y, 0.1 I) in ten dimensions, so y | c ~ N(c/2, 0.05 I).

    0.1 is a variance: sbibm calls it a scale and inverts 0.1 I to have the precision.

    Examples:
        >>> Linear10()
        <conditional target linear10: 10 given 10, entropy -0.7893 nats>
    """

    name = "linear10"
    dim = 10
    given_dim = 10
    source = "sbibm gaussian_linear; Lueckmann et al. 2021 (arXiv:2101.04653), T.1"
    prior_variance = 0.1

    @property
    def matrix(self) -> Tensor:
        return torch.eye(self.dim, dtype=torch.float64)

    @property
    def noise_covariance(self) -> Tensor:
        return 0.1 * self.matrix
