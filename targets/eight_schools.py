"""Eight schools: effects of coaching in eight schools, and how much they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from amfvi.targets.base import Target

__all__ = ["EightSchools", "EightSchoolsCentered"]

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
"""Estimated effect of coaching in each school, in points."""

ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
"""Standard error of each effect, in points."""

PRIOR_SD = 5.0
"""Scale of the priors of mu and tau, in points."""


def _log_normal(x: Tensor, mean: Tensor | float, sd: Tensor | float) -> Tensor:
    sd = torch.as_tensor(sd, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)


def _log_joint(theta: Tensor, mu: Tensor, tau: Tensor) -> Tensor:
    """Log density of the data, mu and tau, without the prior of theta; (n,)."""
    effects, errors = theta.new_tensor(EFFECTS), theta.new_tensor(ERRORS)
    half_cauchy = math.log(2 / math.pi / PRIOR_SD) - torch.log1p((tau / PRIOR_SD).square())
    likelihood = _log_normal(effects, theta, errors).sum(dim=1)
    return likelihood + _log_normal(mu, 0.0, PRIOR_SD) + half_cauchy


@dataclass(frozen=True, repr=False)
class EightSchools(Target):
    """y ~ N(μ + τ ηⱼ, σⱼ), ηⱼ ~ N(0, 1), μ ~ N(0, 5), τ ~ half-Cauchy(0, 5): not centered.

    Examples:
        >>> EightSchools().names[-2:]
        ('mu', 'tau')
    """

    name = "eight_schools"
    dim = 10
    names = (*(f"eta[{j}]" for j in range(1, 9)), "mu", "tau")
    constraints = {"tau": constraints.positive}  # noqa: RUF012
    log_z = -31.311347  # by quadrature over tau; mu and the effects integrate in closed form
    source = "Rubin 1981; posteriordb eight_schools-eight_schools_noncentered"

    def log_density(self, x: Tensor) -> Tensor:
        eta, mu, tau = x[:, :8], x[:, 8], x[:, 9]
        theta = mu[:, None] + tau[:, None] * eta
        return _log_joint(theta, mu, tau) + _log_normal(eta, 0.0, 1.0).sum(dim=1)


@dataclass(frozen=True, repr=False)
class EightSchoolsCentered(EightSchools):
    """y ~ N(θⱼ, σⱼ), θⱼ ~ N(μ, τ), μ ~ N(0, 5), τ ~ half-Cauchy(0, 5): a funnel.

    Examples:
        >>> EightSchoolsCentered().names[:2]
        ('theta[1]', 'theta[2]')
    """

    name = "eight_schools_centered"
    names = (*(f"theta[{j}]" for j in range(1, 9)), "mu", "tau")
    source = "Rubin 1981; posteriordb eight_schools-eight_schools_centered"

    def log_density(self, x: Tensor) -> Tensor:
        theta, mu, tau = x[:, :8], x[:, 8], x[:, 9]
        prior = _log_normal(theta, mu[:, None], tau[:, None]).sum(dim=1)
        return _log_joint(theta, mu, tau) + prior
