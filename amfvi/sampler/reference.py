"""The reference distribution: the normalized density from which tempering starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.gaussians import GaussianMixture, gaussians_at
from amfvi.sampler.mode_search import search_modes
from amfvi.sampler.modes import Mode

__all__ = [
    "ReferenceDistribution",
    "candidate_points",
    "find_reference",
    "reference_from_density",
    "zero_density_error",
]

START_SCALES = (0.3, 1.0, 3.0, 10.0)
"""Standard deviations around the origin of the points from which optimization starts."""

PILOT = "chains from random points (no optimization ends at a mode)"
"""What the sampler starts from where there is no mode."""

N_CANDIDATES = 1024
"""Points at which the density is evaluated to choose where optimization starts."""


@dataclass(frozen=True, kw_only=True)
class ReferenceDistribution:
    """A normalized density over unconstrained space.

    Attributes:
        log_prob: from points (n, d) to log densities (n,), nats.
        sample: from n and a CPU generator to points (n, d), float64.
        differentiable: whether autograd goes through ``log_prob``.
        description: what it is, as part of a sentence.
        near_posterior: whether it is near enough to the posterior to propose from.

    Examples:
        >>> reference = ReferenceDistribution.from_gaussians(gaussians_at([], dim=1))
        >>> reference.log_prob_and_gradient(torch.zeros(1, 1).double())[1]
        tensor([[0.]], dtype=torch.float64)
    """

    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int, torch.Generator], Tensor]
    differentiable: bool
    description: str
    near_posterior: bool = False

    @classmethod
    def from_gaussians(cls, gaussians: GaussianMixture) -> ReferenceDistribution:
        """Use a mixture of Gaussians around modes."""
        noun = "mode" if gaussians.n_modes == 1 else "modes"
        of_modes = f"{gaussians.n_modes} {noun} of the density"
        return cls(
            log_prob=gaussians.log_prob,
            sample=gaussians.sample,
            differentiable=True,
            description=PILOT if gaussians.has_pilot else of_modes,
        )

    def log_prob_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (n,) at points (n, d) with its gradient (n, d)."""
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            value = self.log_prob(y)
            if not value.requires_grad:  # constant
                return value, torch.zeros_like(y)
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def find_reference(
    density: UnconstrainedDensity,
    generator: torch.Generator,
    checkpoint: SamplerCheckpoint | None = None,
) -> ReferenceDistribution:
    """The user's prior or box, else wide Gaussians around the modes that a search finds.

    Args:
        generator: of the points from which the search starts.
        checkpoint: from which a finished search is loaded, and to which it is saved.

    Raises:
        InputError: the log density is −∞ at every point tried, or broken.
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(1), 2))
        >>> find_reference(density, torch.Generator().manual_seed(0)).description
        '1 mode of the density'
    """
    from_user = _reference_from_user(density.log_density)
    if from_user is not None:
        return from_user
    saved = checkpoint.load("reference") if checkpoint is not None else None
    if saved is None:
        points, log_p = candidate_points(density, generator)
        if not len(points):
            raise zero_density_error(density.log_density, N_CANDIDATES)
        gaussians = search_modes(density, points, log_p, generator)
        if checkpoint is not None:
            checkpoint.save("reference", evaluations=density.budget.spent, **asdict(gaussians))
    else:
        density.budget.spent = int(saved["evaluations"])
        gaussians = GaussianMixture(
            weights=torch.from_numpy(saved["weights"]),
            means=torch.from_numpy(saved["means"]),
            factors=torch.from_numpy(saved["factors"]),
            n_modes=int(saved["n_modes"]),
            has_pilot=bool(saved["has_pilot"]),
        )
    return ReferenceDistribution.from_gaussians(gaussians)


def reference_from_density(
    log_prob: Callable[[Tensor], Tensor],
    sample: Callable[[int, torch.Generator], Tensor],
    *,
    description: str,
    modes: Sequence[Mode] = (),
) -> ReferenceDistribution:
    """A fitted density as reference, with half of the mass around modes that it lacks.

    Args:
        log_prob: normalized, in unconstrained space, from (n, d) to (n,), nats.
        sample: from n and a CPU generator to points (n, d).
        description: what it is, such as "the fitted mixture".
        modes: known modes of the posterior that ``log_prob`` lacks; the fitted density is
            the whole reference where there are none.

    Examples:
        >>> standard = gaussians_at([], dim=1)
        >>> mode = Mode(
        ...     point=torch.full((1,), 50.0).double(),
        ...     log_density=0.0,
        ...     covariance=torch.eye(1).double(),
        ... )
        >>> reference = reference_from_density(
        ...     standard.log_prob, standard.sample, description="a fit", modes=[mode]
        ... )
        >>> reference.description
        'a fit and 1 mode of the density'
        >>> draws = reference.sample(1000, torch.Generator().manual_seed(0))
        >>> print(f"{float((draws > 40).double().mean()):.1f}")
        0.5
    """
    if not modes:
        return ReferenceDistribution(
            log_prob=log_prob,
            sample=sample,
            differentiable=False,
            description=description,
            near_posterior=True,
        )
    around_modes = gaussians_at(modes, len(modes[0].point), broad=False)

    def mean_log_prob(y: Tensor) -> Tensor:
        return torch.logaddexp(log_prob(y), around_modes.log_prob(y)) - math.log(2)

    def sample_either(n: int, generator: torch.Generator) -> Tensor:
        fitted, other = sample(n, generator), around_modes.sample(n, generator)
        choose_fitted = torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5
        return torch.where(choose_fitted, fitted, other.to(fitted))

    extra = ReferenceDistribution.from_gaussians(around_modes).description
    return ReferenceDistribution(
        log_prob=mean_log_prob,
        sample=sample_either,
        differentiable=False,
        description=f"{description} and {extra}",
        near_posterior=True,
    )


def candidate_points(
    density: UnconstrainedDensity, generator: torch.Generator, n: int = N_CANDIDATES
) -> tuple[Tensor, Tensor]:
    """Draw ``n`` points; return those of positive density, (k, d), and their log density (k,).

    They are draws of the user's prior or box, else Gaussian with several scales around the
    origin of unconstrained space.

    Examples:
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(1), 2))
        >>> candidate_points(density, torch.Generator().manual_seed(0), 10)[0].shape
        torch.Size([10, 2])
    """
    from_user = _reference_from_user(density.log_density)
    if from_user is not None:
        points = from_user.sample(n, generator)
    else:
        scales = torch.tensor(START_SCALES, dtype=torch.float64)
        scales = scales.repeat(math.ceil(n / len(START_SCALES)))
        noise = torch.randn(n, density.dim, generator=generator, dtype=torch.float64)
        points = scales[:n, None] * noise
        points[0] = 0.0
    log_p = density.log_prob(points)
    is_positive = log_p > -math.inf
    return points[is_positive], log_p[is_positive]


def zero_density_error(density: LogDensity, n_tried: int) -> InputError:
    """The error for a log density that is −∞ at every point tried.

    Examples:
        >>> str(zero_density_error(LogDensity(lambda x: x[:, 0], 1, box=(0, 1)), 9))
        'the log density is -inf at all 9 points tried; widen the prior or box'
    """
    hint = (
        "widen the prior or box"
        if density.prior is not None or density.box is not None
        else "give box=, or a LogDensity with a prior, to say where to start"
    )
    return InputError(f"the log density is -inf at all {n_tried} points tried; {hint}")


def _reference_from_user(density: LogDensity) -> ReferenceDistribution | None:
    """The user's prior or box, if there is one."""
    if density.prior is not None:
        return _reference_from_prior(density.prior, density.transform)
    if density.box is not None:
        return _reference_from_box(*density.box, density.transform)
    return None


def _reference_from_prior(
    prior: Distribution, transform: UnconstrainingTransform
) -> ReferenceDistribution:
    def log_prob(y: Tensor) -> Tensor:
        x, log_det = transform.from_unconstrained_with_log_det(y)
        return prior.log_prob(x).double() + log_det

    def sample(n: int, generator: torch.Generator) -> Tensor:
        return transform.to_unconstrained(_sample_prior(prior, n, generator))[0]

    return ReferenceDistribution(
        log_prob=log_prob, sample=sample, differentiable=True, description="the prior"
    )


def _reference_from_box(
    lower: Tensor, upper: Tensor, transform: UnconstrainingTransform
) -> ReferenceDistribution:
    level = -float((upper - lower).log().sum())

    def log_prob(y: Tensor) -> Tensor:
        x, log_det = transform.from_unconstrained_with_log_det(y)
        inside = ((x >= lower.to(x)) & (x <= upper.to(x))).all(dim=1)
        return torch.where(inside, level + log_det, -math.inf)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, len(lower), generator=generator, dtype=torch.float64)
        return transform.to_unconstrained(lower + uniform * (upper - lower))[0]

    return ReferenceDistribution(
        log_prob=log_prob, sample=sample, differentiable=True, description="the box"
    )


def _sample_prior(prior: Distribution, n: int, generator: torch.Generator) -> Tensor:
    """Draw by ``generator`` from a distribution that knows only torch's global one."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return prior.sample(torch.Size([n])).double()
