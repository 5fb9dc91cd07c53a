"""The kernels of one β, shaped by the particles, and the order in which they are used."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from amfvi.errors import FitError, InputError
from amfvi.experts import GMM, Folds
from amfvi.sampler.factors import factorize, shrunk_factor
from amfvi.sampler.kernels import (
    DifferentialEvolution,
    Hamiltonian,
    Independence,
    IndependenceFromReference,
    Kernel,
    RandomWalk,
    SubspaceDE,
)
from amfvi.sampler.particles import Particles
from amfvi.sampler.tempered_path import TemperedPath
from amfvi.statistics import effective_sample_size

__all__ = ["HIGH_DIM", "build_kernels", "choose_kernel"]

HIGH_DIM = 10
"""Dimension above which chains mix slowly, so that trajectories and chains are longer."""

TRAJECTORY_LENGTH = 1.5
"""Length of a Hamiltonian trajectory above ``HIGH_DIM``, in standard deviations."""

USEFUL_ACCEPTANCE = 0.05
"""Acceptance from which every second kernel is an independence kernel."""

HIGH_ACCEPTANCE = 0.5
"""Acceptance above which three of four kernels at β = 1 are independence kernels."""

HOPELESS_ACCEPTANCE = 0.02
"""Acceptance below which the independence kernel is not used at the next β."""

POPULATION_SIZE = 2000
"""Particles whose differences the differential evolution kernels use."""

PROPOSAL = GMM(max_components=40, tolerance=1e-3, max_iterations=100)
"""Density that the independence kernel proposes from, up to ``HIGH_DIM`` dimensions."""

PROPOSAL_IN_HIGH_DIM = GMM(max_components=4, patience=1, tolerance=1e-3, max_iterations=50)
"""Density that the independence kernel proposes from, above ``HIGH_DIM`` dimensions."""


def build_kernels(
    path: TemperedPath,
    particles: Particles,
    weights: Tensor,
    beta: float,
    steps: Mapping[str, float],
    acceptance: Mapping[str, float],
    generator: torch.Generator,
) -> dict[str, Kernel]:
    """Build the kernels for one β from the reweighted particles.

    Args:
        weights: of the particles towards ``beta``, (n,).
        steps, acceptance: of the kernels at the previous β, by name.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.density.unconstrained import UnconstrainedDensity
        >>> from amfvi.sampler.reference import find_reference
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(1), 2, box=(-9, 9)))
        >>> generator = torch.Generator().manual_seed(0)
        >>> path = TemperedPath(
        ...     reference=find_reference(density, generator), density=density, use_gradients=True
        ... )
        >>> particles = path.evaluate(path.reference.sample(200, generator))
        >>> kernels = build_kernels(path, particles, torch.ones(200), 0.5, {}, {}, generator)
        >>> list(kernels)[:3]
        ['independence', 'hamiltonian', 'local hamiltonian']
    """
    d = particles.y.shape[1]
    kernels: dict[str, Kernel] = {}
    if path.reference.near_posterior:
        kernels["independence"] = IndependenceFromReference()
    elif acceptance.get("independence", 1.0) >= HOPELESS_ACCEPTANCE:
        proposal = _fit_independence(particles.y, weights, generator)
        if proposal is not None:
            kernels["independence"] = proposal
    spread = shrunk_factor(particles.y, weights)
    n_rows = min(len(particles), POPULATION_SIZE)
    rows = torch.multinomial(weights, n_rows, True, generator=generator)
    if path.use_gradients:
        length = None if d <= HIGH_DIM else TRAJECTORY_LENGTH
        kernels["hamiltonian"] = Hamiltonian(spread, length)
        local = _local_factor(path.gradient(particles, beta), weights)
        if local is not None:
            kernels["local hamiltonian"] = Hamiltonian(local, length)
    else:
        kernels["differential evolution"] = DifferentialEvolution(particles.y[rows])
        kernels["random walk"] = RandomWalk(spread)
    if d > 1:
        kernels["subspace differential evolution"] = SubspaceDE(particles.y[rows])
    for name, kernel in kernels.items():
        kernel.step = steps.get(name, kernel.step)
    return kernels


def choose_kernel(kernels: Mapping[str, Kernel], number: int, *, final: bool) -> tuple[str, Kernel]:
    """Choose the kernel of step ``number`` of the chains: every second is independence.

    It is so only while such proposals are accepted, and three times in four at the last β
    if most of them are. The other kernels take turns.

    Examples:
        >>> kernels = {"random walk": RandomWalk(torch.eye(1))}
        >>> choose_kernel(kernels, 0, final=False)[0]
        'random walk'
    """
    independence = kernels.get("independence")
    others = [name for name in kernels if name != "independence"]
    if independence is not None:
        acceptance = independence.acceptance
        period = 4 if final and acceptance > HIGH_ACCEPTANCE else 2
        is_due = number % period < period - 1
        if number == 0 or (is_due and acceptance >= USEFUL_ACCEPTANCE):
            return "independence", independence
        number = number // period if acceptance >= USEFUL_ACCEPTANCE else number
    name = others[number % len(others)]
    return name, kernels[name]


def _fit_independence(
    y: Tensor, weights: Tensor, generator: torch.Generator
) -> Independence | None:
    """Propose from a Gaussian mixture of the particles; None where there are too few."""
    is_alive = weights > 0
    y, weights = y[is_alive], weights[is_alive]
    if effective_sample_size(weights) < 2 * (y.shape[1] + 1):
        return None
    fold = torch.where(torch.arange(len(y)) % 5 == 4, 0, -1)
    config = PROPOSAL if y.shape[1] <= HIGH_DIM else PROPOSAL_IN_HIGH_DIM
    try:
        proposal, _ = config.fit_folds(Folds(y, fold, weights), generator=generator)
    except (FitError, InputError, LinAlgError):  # squares overflow in a very heavy tail
        return None
    return Independence(proposal)


def _local_factor(gradient: Tensor, weights: Tensor) -> Tensor | None:
    """L with L·Lᵀ the inverse of the mean of ∇ log π ∇ log πᵀ (Titsias 2023).

    With several modes it is the shape within a mode. None where gradients are useless.
    """
    share = (weights / weights.sum())[:, None]
    scale = (share * gradient.square()).sum(dim=0).sqrt()
    if not bool((scale > 1e-12).all() and scale.isfinite().all()):
        return None
    standardized = gradient / scale
    d = len(scale)
    information = standardized.T @ (share * standardized)
    information = information + 1e-6 * torch.eye(d, dtype=torch.float64)
    upper = factorize(information).inverse().T
    return upper / scale[:, None]
