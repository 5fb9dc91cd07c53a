"""Exact draws of a posterior: Markov chains that start from a mixture's draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.draws.mixing import assess_mixing
from amfvi.errors import InputError, UsageError
from amfvi.mixture import Mixture
from amfvi.sampler.latent_walk import LatentChains, LatentState
from amfvi.statistics import resample
from amfvi.transport import choose_flow

__all__ = ["RefinedDraws", "refine_draws"]

N_CHAINS = 64
"""Chains that run side by side."""

MAX_CANDIDATES = 20
"""Draws of the mixture per chain among which its start is chosen by importance weights."""


@dataclass(frozen=True, kw_only=True)
class RefinedDraws:
    """States of Markov chains whose distribution is the posterior's.

    Attributes:
        x: in the user's parameters, (chains, steps, d).
        independence_acceptance: share of draws of the mixture that were accepted.
        local_acceptance: share of Hamiltonian trajectories, or of random steps where there is
            no gradient.
        ess: effective sample size of each parameter, (d,).
        rhat: split-R̂ of each parameter, (d,).
        n_evaluations: of the log density.

    Examples:
        >>> sorted(RefinedDraws.__dataclass_fields__)
        ['ess', 'independence_acceptance', 'local_acceptance', 'n_evaluations', 'rhat', 'x']
    """

    x: Tensor
    independence_acceptance: float
    local_acceptance: float
    ess: NDArray[np.float64]
    rhat: NDArray[np.float64]
    n_evaluations: int

    @property
    def flat(self) -> Tensor:
        """All states, (chains · steps, d)."""
        return self.x.flatten(0, 1)


def refine_draws(
    mixture: Mixture,
    density: UnconstrainedDensity,
    steps: int,
    generator: torch.Generator,
    *,
    n_chains: int = N_CHAINS,
) -> RefinedDraws:
    """Run chains that leave a posterior invariant, from the weighted draws of a mixture.

    Each step offers a draw of the mixture, which moves between modes (Tierney 1994, Annals of
    Statistics 22), and then a Hamiltonian trajectory in the latent space of its best flow, which
    goes where it does not. Step sizes adapt in the first quarter, which is left out.

    Args:
        steps: of each chain, those left out included; some ten evaluations each.
        n_chains: chains side by side.

    Raises:
        UsageError: fewer than 40 steps.
        InputError: no draw of the mixture has a positive density.
        OutOfBudgetError: a limit of the density was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import GMM
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = 0.8 * torch.randn(500, 1, generator=generator).double()
        >>> narrow = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1))
        >>> refined = refine_draws(narrow, normal, 100, generator)
        >>> refined.x.shape, abs(float(refined.flat.std()) - 1) < 0.1
        (torch.Size([64, 75, 1]), True)
    """
    if steps < 40:
        raise UsageError(f"chains need at least 40 steps to adapt and to be judged, found {steps}")
    before = density.log_density.n_evaluations
    density = density.with_transform(mixture.transform)
    start = _choose_starts(mixture, density, n_chains, generator)
    chains, visited, acceptance = LatentChains(density, choose_flow(mixture, start)), [], []
    state = chains.evaluate(chains.to_latent(start))
    for number in range(steps):
        adapt = number < steps // 4
        state, accepted = _offer_draws(mixture, density, chains, state, generator)
        state, moved = chains.move(state, generator, adapt=adapt)
        if not adapt:
            visited.append(state.y)
            acceptance.append((accepted, moved))
    x = density.transform.from_unconstrained(torch.cat(visited)).view(len(visited), n_chains, -1)
    x = x.transpose(0, 1).contiguous()
    ess, rhat = _assess(x)
    independence, local = np.mean(acceptance, axis=0)
    return RefinedDraws(
        x=x,
        independence_acceptance=float(independence),
        local_acceptance=float(local),
        ess=ess,
        rhat=rhat,
        n_evaluations=density.log_density.n_evaluations - before,
    )


def _assess(x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Effective sample sizes and R̂ (d,) of chains (chains, steps, d)."""
    n_chains, steps, d = x.shape
    mixing = assess_mixing(x.flatten(0, 1).numpy(), np.repeat(np.arange(n_chains), steps))
    unknown = np.full(d, math.nan)
    return (unknown, unknown) if mixing is None else (mixing.ess, mixing.rhat)


def _choose_starts(
    mixture: Mixture, density: UnconstrainedDensity, n: int, generator: torch.Generator
) -> Tensor:
    """Weighted draws of the mixture in unconstrained space, (n, m).

    Raises:
        InputError: no draw has a positive density.
    """
    weighted = importance_sample(mixture, density, MAX_CANDIDATES * n, generator)
    if not weighted.importance.ess > 0:
        raise InputError(
            "the log density is -inf at every draw of the mixture; is it the one that the "
            "mixture was fitted to?"
        )
    chosen = weighted.x[resample(weighted.weights, n, generator)]
    return density.transform.to_unconstrained(chosen)[0]


def _offer_draws(
    mixture: Mixture,
    density: UnconstrainedDensity,
    chains: LatentChains,
    state: LatentState,
    generator: torch.Generator,
) -> tuple[LatentState, float]:
    """One independence step of every chain, and the mean acceptance probability."""
    n = len(state.y)
    proposed_y = density.transform.to_unconstrained(mixture.sample((n,), generator))[0]
    proposed = chains.evaluate(chains.to_latent(proposed_y))
    log_q = mixture.log_prob_unconstrained(torch.cat([state.y, proposed.y]), density.transform)
    log_ratio = (proposed.log_p - log_q[n:]) - (state.log_p - log_q[:n])
    return chains.accept(state, proposed, log_ratio, generator)
