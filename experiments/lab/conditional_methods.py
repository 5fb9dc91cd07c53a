"""Methods that estimate conditional densities, by name, and the figures of a fit."""

from __future__ import annotations

import copy
import dataclasses
import resource
from typing import Any

import torch
from torch import Tensor

import amfvi
from amfvi.diagnostics.calibration import ConditionalDensity, measure_calibration
from amfvi.diagnostics.uniformity import ks_band
from amfvi.experts import FlowMatching
from amfvi.experts.matrix import log_densities
from amfvi.randomness import generator_for
from experiments.lab.conditional_peers import CardMDN, Ensemble, LinearGaussian, NaiveFlow, Sbi
from experiments.lab.conditional_tasks import FOLDS, Task
from experiments.lab.tables import Row

__all__ = [
    "METHODS", "OURS", "check_integration", "cpu_seconds", "fit_method", "fit_ours", "score",
    "score_members",
]  # fmt: skip

OURS = "ours"
"""The conditional mixture of this package, as it is by default."""

METHODS = (
    OURS, "sbi-mdn", "sbi-nsf", "card-mdn", "card-mdn-5", "fm-naive", "fm-naive-5", "fm", "linear",
)  # fmt: skip
"""All methods; names that end in 5 are ensembles of as many networks."""

N_DRAWS = 50
"""Draws for each pair that calibration is measured on."""

N_NEAR = 20
"""Draws for each of them of which the share near the bounds is taken."""

FINE_STEPS = 60
"""Runge–Kutta steps that the density of flow matching is compared at."""

N_COMPARED = 200
"""Pairs that it is compared on."""

N_CONDITIONS = 8
"""Conditions at which its integral is taken."""

N_NODES = 800
"""Points of that integral."""


def fit_ours(task: Task, experts: Any = None) -> amfvi.ConditionalPosterior:
    """Fit this package's mixture to the pairs of a task, or other experts."""
    draws = task.pairs.draws
    named = {} if experts is None else {"experts": experts}
    return amfvi.fit(
        draws.values, given=task.pairs.given, names=draws.names, constraints=draws.constraints,
        test_fraction=0.0, folds=FOLDS, seed=task.seed, device="cpu", **named,
    )  # fmt: skip


def fit_method(method: str, task: Task, steps: int) -> ConditionalDensity:
    """Fit a method of ``METHODS``; ``steps`` are those of the networks of the card."""
    if method in (OURS, "fm"):
        return fit_ours(task, None if method == OURS else [FlowMatching()])
    if method == "linear":
        return LinearGaussian(task)
    if method.startswith("sbi-"):
        return Sbi(task, method.removeprefix("sbi-"))
    network = CardMDN if method.startswith("card-mdn") else NaiveFlow
    members = FOLDS if method.endswith("-5") else 1
    return Ensemble.fit(task, network, members=members, steps=steps)


def score(density: ConditionalDensity, log_q: Tensor, task: Task, n_calibration: int) -> Row:
    """Figures of a density: likelihood, calibration, and its mass near the bounds.

    Args:
        log_q: its log densities at the pairs to score on, (n_test,), nats.
        n_calibration: how many of them calibration is measured on.
    """
    row: Row = {"nll": -float(log_q.mean()), "kl": None, "kl_se": None}
    if task.log_p is not None:
        excess = task.log_p - log_q
        row |= {"kl": float(excess.mean()), "kl_se": float(excess.std()) / len(excess) ** 0.5}
    given, y = task.given[:n_calibration], task.y[:n_calibration]
    found = measure_calibration(density, given, y, n_draws=N_DRAWS, seed=task.seed)
    row |= {
        "coverage_50": found.coverage(0.5).mean,
        "coverage_90": found.coverage(0.9).mean,
        "ks": max(test.distance for test in found.sbc.values()),
        "ks_critical": ks_band(found.n_pairs, 1 - 0.05 / task.dim),
        "near_bounds": None,
        "near_bounds_exact": task.share_near_bounds(task.y),
    }
    if task.box is not None:
        generator = generator_for(task.seed, "draws near the bounds")
        draws = density.sample(N_NEAR, given=given, generator=generator)
        row["near_bounds"] = task.share_near_bounds(draws)
    return row


def score_members(model: Any, task: Task) -> Row:
    """KL or, for real data, NLL of every expert of a mixture, and its weight, by name."""
    x, log_det = model.transform.to_unconstrained(task.y)
    log_q = log_densities(model.experts, torch.cat([task.given, x], dim=1)) + log_det[:, None]
    of_truth = torch.zeros(len(log_q)).double() if task.log_p is None else task.log_p
    row: Row = {}
    for name, column, weight in zip(model.experts, log_q.T, model.weights, strict=True):
        row[f"kl {name}"] = float((of_truth - column).mean())
        row[f"weight {name}"] = float(weight)
    return row


def check_integration(density: ConditionalDensity, task: Task) -> Row:
    """What Runge–Kutta steps leave of a density of one parameter that an ODE gives.

    The mean difference of log densities by fixed steps from those by ``FINE_STEPS``, nats, and
    the largest distance from one of the integral over y at ``N_CONDITIONS`` conditions.
    """
    given, y = task.given[:N_COMPARED], task.y[:N_COMPARED]
    fine = with_steps(density, FINE_STEPS)
    difference = density.log_prob(y, given=given) - fine.log_prob(y, given=given)
    fitted = task.split.folds.draws[:, -1]
    margin = fitted.max() - fitted.min()
    x = torch.linspace(float(fitted.min() - margin), float(fitted.max() + margin), N_NODES)
    step = float(x[1] - x[0])
    at, points = given[:N_CONDITIONS], x.double().repeat(N_CONDITIONS)[:, None]
    log_q = log_prob_unconstrained(density, points, at.repeat_interleave(N_NODES, dim=0))
    integral = log_q.exp().view(N_CONDITIONS, N_NODES).sum(dim=1) * step
    return {
        "step_difference": float(difference.abs().mean()),
        "integral_error": float((integral - 1).abs().max()),
    }


def with_steps(density: Any, steps: int) -> Any:
    """The same density of flow matching by another number of Runge–Kutta steps."""
    other = copy.copy(density)
    if isinstance(density, Ensemble):
        other.networks = [copy.copy(net) for net in density.networks]
        for net in other.networks:
            net.steps = steps
        return other
    other._experts = {
        name: dataclasses.replace(expert.config, integration_steps=steps).restore(
            expert.dim, expert.tensors(), expert.given
        )
        for name, expert in density.experts.items()
    }
    return other


def log_prob_unconstrained(density: Any, x: Tensor, given: Tensor) -> Tensor:
    """Log density over unconstrained parameters, of an ensemble or of a mixture of one expert."""
    if isinstance(density, Ensemble):
        return density.log_prob_unconstrained(x, given)
    (expert,) = density.experts.values()
    return expert.log_prob(torch.cat([given, x], dim=1))


def cpu_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
