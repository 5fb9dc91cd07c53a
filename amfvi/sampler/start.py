"""Where the sampler starts: a normalised density that is broader than the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from amfvi.errors import InputError
from amfvi.log_density import LogDensity, UnconstrainedDensity
from amfvi.mixture import Mixture
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.optima import Optimum, find_optima
from amfvi.support import Support

__all__ = ["Start", "around", "nowhere", "scattered", "start_at", "start_from_mixture"]

SCALES = (0.3, 1.0, 3.0, 10.0)  # of the points that optimisation starts from
UMBRELLA = (1.0, 3.0, 10.0)  # standard deviations around the origin
WIDENING = (1.0, 1.7, 3.0)  # of the optima, and of all of them together
FAR = (10.0, 40.0)  # for tails that are heavy
CANDIDATES = 2048
STARTS = 8  # optimisations a round
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Start:
    """A normalised density over R^free.

    Attributes:
        log_prob: from (n, free) to (n,), nats.
        sample: from n and a CPU generator to (n, free), float64.
        differentiable: whether autograd goes through ``log_prob``.
        words: what it is.
        fitted: whether it is near enough to the posterior to propose from throughout.
    """

    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int, torch.Generator], Tensor]
    differentiable: bool
    words: str
    fitted: bool = False

    def log_prob_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Also its gradient (n, free)."""
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            value = self.log_prob(y)
            if not value.requires_grad:  # flat
                return value, torch.zeros_like(y)
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True)
class Gaussians:
    """A mixture of Gaussians around optima.

    Attributes:
        weights: (k,), summing to one.
        means: (k, d).
        factors: Cholesky factors of the covariances, (k, d, d).
        optima: how many there were.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    optima: int

    def start(self) -> Start:
        k, d = self.means.shape
        inverse = torch.linalg.inv(self.factors)
        shift = (inverse @ self.means[:, :, None]).squeeze(2)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        level = self.weights.log() - log_det - 0.5 * d * math.log(2 * math.pi)
        stacked = inverse.reshape(k * d, d).T.contiguous()

        def log_prob(y: Tensor) -> Tensor:
            scores = (y @ stacked).unflatten(1, (k, d)) - shift
            return torch.logsumexp(level - 0.5 * scores.square().sum(dim=2), dim=1)

        def sample(n: int, generator: torch.Generator) -> Tensor:
            which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
            noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
            return self.means[which] + (self.factors[which] @ noise[:, :, None]).squeeze(2)

        found = "optimum" if self.optima == 1 else "optima"
        return Start(log_prob, sample, True, f"{self.optima} {found} of the density")


def start_at(
    density: UnconstrainedDensity,
    generator: torch.Generator,
    checkpoint: SamplerCheckpoint | None = None,
) -> Start:
    """The user's prior or box, else the optima from many starts and their curvature, widened.

    What optimisation found is saved to ``checkpoint``, and taken from there if it can be.

    Raises:
        InputError: the log density is −∞ wherever it was tried.
    """
    given = _given(density.density)
    if given is not None:
        return given
    saved = checkpoint.load("start") if checkpoint is not None else None
    if saved is None:
        gaussians = _optimised(density, generator)
        if checkpoint is not None:
            checkpoint.save("start", calls=density.budget.spent, **vars(gaussians))
    else:
        density.budget.spent = int(saved.pop("calls"))
        arrays = {key: torch.from_numpy(saved[key]) for key in ("weights", "means", "factors")}
        gaussians = Gaussians(**arrays, optima=int(saved["optima"]))
    return gaussians.start()


def _optimised(density: UnconstrainedDensity, generator: torch.Generator) -> Gaussians:
    points, log_p = scattered(density, generator)
    if not len(points):
        raise nowhere(density.density, CANDIDATES)
    optima: list[Optimum] = []
    tried = 0
    for number in range(MOST_ROUNDS):
        # At first points of every scale, then those whose density the optima explain least.
        order = torch.arange(len(points))
        if number:
            explained = around(optima, density.dim).start().log_prob(points)
            order = (log_p - explained).argsort(descending=True)
        known = len(optima)
        optima = find_optima(density, points[order[:STARTS]], optima)
        tried += min(STARTS, len(points))
        if len(optima) == known and number:
            break
    countable = len(optima) < tried / 2  # else their spread says more than they do
    return around(optima, density.dim, each=countable)


def scattered(
    density: UnconstrainedDensity, generator: torch.Generator, count: int = CANDIDATES
) -> tuple[Tensor, Tensor]:
    """Those of ``count`` points where the density is not zero, (k, free), and its log (k,).

    The points are of the user's prior or box, else of several scales around the origin.
    """
    given = _given(density.density)
    if given is not None:
        candidates = given.sample(count, generator)
    else:
        scale = torch.tensor(SCALES, dtype=torch.float64).repeat(math.ceil(count / len(SCALES)))
        noise = torch.randn(count, density.dim, generator=generator, dtype=torch.float64)
        candidates = scale[:count, None] * noise
        candidates[0] = 0.0
    log_p = density.log_prob(candidates)
    allowed = log_p > -math.inf
    return candidates[allowed], log_p[allowed]


def nowhere(density: LogDensity, tried: int) -> InputError:
    """The error for a density that is zero at every point tried."""
    hint = (
        "widen the prior or box"
        if density.prior is not None or density.box is not None
        else "say where to start with prior= or box= (--box)"
    )
    return InputError(f"the log density is -inf at all {tried} points tried; {hint}")


def start_from_mixture(mixture: Mixture, support: Support, missed: list[Optimum]) -> Start:
    """A fitted mixture, carried to the unconstrained space of ``support``.

    Half of the start is around the optima that the mixture ``missed``, if there are any.
    """

    def log_prob(y: Tensor) -> Tensor:
        x, log_det = support.from_unconstrained_with_log_det(y)
        return mixture.log_prob(x) + log_det

    def sample(n: int, generator: torch.Generator) -> Tensor:
        return support.to_unconstrained(mixture.sample((n,), generator))[0]

    start = Start(log_prob, sample, False, "the fitted mixture", fitted=True)
    return _joined(start, around(missed, support.free, broad=False))


def _given(density: LogDensity) -> Start | None:
    """The user's prior or box, if there is one."""
    if density.prior is not None:
        return _of_prior(density.prior, density.support)
    if density.box is not None:
        return _of_box(density.box, density.support)
    return None


def _joined(given: Start, gaussians: Gaussians) -> Start:
    """Half the one, half the other, where there is another."""
    if not gaussians.optima:
        return given
    found = gaussians.start()

    def log_prob(y: Tensor) -> Tensor:
        return torch.logaddexp(given.log_prob(y), found.log_prob(y)) - math.log(2)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        y, other = given.sample(n, generator), found.sample(n, generator)
        first = torch.rand(n, 1, generator=generator) < 0.5
        return torch.where(first, y, other.to(y))

    words = f"{given.words} and {found.words}"
    return Start(log_prob, sample, given.differentiable, words, given.fitted)


def _of_prior(prior: Distribution, support: Support) -> Start:
    def log_prob(y: Tensor) -> Tensor:
        x, log_det = support.from_unconstrained_with_log_det(y)
        return prior.log_prob(x).double() + log_det

    def sample(n: int, generator: torch.Generator) -> Tensor:
        return support.to_unconstrained(_draw(prior, n, generator))[0]

    return Start(log_prob, sample, True, "the prior")


def _of_box(box: tuple[Tensor, Tensor], support: Support) -> Start:
    lower, upper = box
    level = -float((upper - lower).log().sum())

    def log_prob(y: Tensor) -> Tensor:
        x, log_det = support.from_unconstrained_with_log_det(y)
        inside = ((x >= lower.to(x)) & (x <= upper.to(x))).all(dim=1)
        return torch.where(inside, level + log_det, -math.inf)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        share = torch.rand(n, len(lower), generator=generator, dtype=torch.float64)
        return support.to_unconstrained(lower + share * (upper - lower))[0]

    return Start(log_prob, sample, True, "the box")


def around(optima: list[Optimum], dim: int, *, each: bool = True, broad: bool = True) -> Gaussians:
    """Widened Gaussians at each optimum; if broad, also around them all and the origin.

    The widths around the origin are for densities whose optimum is not where their
    mass is, such as a funnel's.
    """
    weights: list[float] = []
    means: list[Tensor] = []
    covariances: list[Tensor] = []

    def add(share: float, mean: Tensor, covariance: Tensor, widths: tuple[float, ...]) -> None:
        weights.extend([share / len(widths)] * len(widths))
        means.extend([mean] * len(widths))
        covariances.extend(width**2 * covariance for width in widths)

    if broad:
        add(0.25, torch.zeros(dim).double(), torch.eye(dim).double(), UMBRELLA)
    if each:
        for optimum in optima:
            add(0.5 / len(optima), optimum.point, optimum.covariance, WIDENING)
    if optima and broad:
        points = torch.stack([one.point for one in optima])
        centre = points.mean(dim=0)
        spread = (points - centre).T @ (points - centre) / len(points)
        total = spread + torch.stack([one.covariance for one in optima]).mean(dim=0)
        add(0.15, centre, total, WIDENING)
        add(0.1, centre, total, FAR)
    total_weight = sum(weights)
    return Gaussians(
        torch.tensor([w / total_weight for w in weights], dtype=torch.float64),
        torch.stack(means) if means else torch.empty(0, dim),
        _factors(torch.stack(covariances)) if covariances else torch.empty(0, dim, dim),
        len(optima),
    )


def _factors(covariances: Tensor) -> Tensor:
    """Cholesky factors (k, d, d), of correlations, so that scales lose no digits."""
    scale = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    correlations = covariances / (scale[:, :, None] * scale[:, None, :])
    jitter = 1e-12 * torch.eye(scale.shape[1], dtype=torch.float64)
    return scale[:, :, None] * torch.linalg.cholesky(correlations + jitter)


def _draw(distribution: Distribution, n: int, generator: torch.Generator) -> Tensor:
    """``n`` draws by a generator, of a distribution that knows only the global one."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return distribution.sample(torch.Size([n])).double()
