"""The tempered path from a reference distribution to a posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.particles import Particles
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["TemperedPath"]


@dataclass(frozen=True, kw_only=True)
class TemperedPath:
    """The tempered path π_β ∝ reference^(1−β) · posterior^β (Neal 2001).

    Attributes:
        reference: the distribution at β = 0.
        density: the posterior, at β = 1.
        use_gradients: whether kernels may use gradients of the posterior. A reference
            without gradients then leaves the drift to the posterior's gradient alone: any
            drift leaves π_β invariant as long as proposals are accepted by π_β itself.

    Examples:
        >>> import torch
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.sampler.gaussians import gaussians_at
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(1), 1)
        >>> reference = ReferenceDistribution.from_gaussians(gaussians_at([], 1))
        >>> path = TemperedPath(
        ...     reference=reference, density=UnconstrainedDensity(normal), use_gradients=True
        ... )
        >>> particles = path.evaluate(torch.tensor([[2.0]]).double())
        >>> path.log_density(particles, 1.0), path.gradient(particles, 1.0)
        (tensor([-2.], dtype=torch.float64), tensor([[-2.]], dtype=torch.float64))
    """

    reference: ReferenceDistribution
    density: UnconstrainedDensity
    use_gradients: bool

    def evaluate(self, y: Tensor) -> Particles:
        """Evaluate both densities at ``y`` (n, d); one evaluation of the posterior each."""
        log_p, grad_p = evaluate_where_possible(self.density, y, gradient=self.use_gradients)
        log_q, grad_q = self._evaluate_reference(y, grad_p)
        return Particles(y=y, log_p=log_p, log_q=log_q, grad_p=grad_p, grad_q=grad_q)

    def reevaluate_reference(self, particles: Particles) -> Particles:
        """Evaluate the reference again, which costs no evaluation of the posterior."""
        log_q, grad_q = self._evaluate_reference(particles.y, particles.grad_p)
        return replace(particles, log_q=log_q, grad_q=grad_q)

    def _evaluate_reference(self, y: Tensor, grad_p: Tensor) -> tuple[Tensor, Tensor]:
        if self.use_gradients and self.reference.differentiable:
            return self.reference.log_prob_and_gradient(y)
        return self.reference.log_prob(y), grad_p

    @staticmethod
    def log_density(particles: Particles, beta: float) -> Tensor:
        """Log density of π_β up to a constant, (n,); −∞ where either end has none."""
        if beta == 1.0:  # also where the reference is zero
            return particles.log_p
        return (1 - beta) * particles.log_q + beta * particles.log_p

    @staticmethod
    def gradient(particles: Particles, beta: float) -> Tensor:
        """∇ log π_β, (n, d)."""
        return (1 - beta) * particles.grad_q + beta * particles.grad_p
