"""From draws to a mixture: split, stage one, stage two."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amfvi import experts as expert_families
from amfvi import targets
from amfvi.draws import Draws
from amfvi.errors import UsageError, unknown_name
from amfvi.experts import ExpertConfig, FitReport
from amfvi.mixture import Mixture, log_densities
from amfvi.split import Split, split_draws, split_target
from amfvi.stage_one import StageOneProgress, fit_experts
from amfvi.stage_two import RULES, WeightFit, fit_weights
from amfvi.targets import Target

__all__ = ["FitSummary", "fit", "fit_split", "resolve_device", "split_data"]

N_TEST = 20_000  # fresh exact draws that score a fit to a named target


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """How a mixture was fitted.

    Attributes:
        split: the draws by role; ``split.test`` was seen by nothing.
        reports: training of each expert, by name.
        weights: stage two, with the path of the weights.
        seconds: wall-clock time of "stage_one" and "stage_two".
    """

    split: Split
    reports: Mapping[str, FitReport]
    weights: WeightFit
    seconds: Mapping[str, float]


def fit(
    data: Any,
    *,
    experts: Sequence[str | ExpertConfig] | Mapping[str, str | ExpertConfig] = (
        expert_families.DEFAULT
    ),
    weights: str = "ema",
    beta: float = 0.9,
    n_draws: int = 10_000,
    n_fresh: int = 0,
    test_fraction: float = 0.15,
    names: Sequence[str] | None = None,
    support: Any = None,
    nonfinite: str = "error",
    seed: int = 0,
    device: torch.device | str = "auto",
    time_limit: float | None = None,
    progress: StageOneProgress | None = None,
) -> Mixture:
    """Fit a mixture of normalizing flows to a posterior.

    Args:
        data: the name of a canonical target, a :class:`~amfvi.targets.Target`, an
            n × d array or tensor of draws, or :class:`Draws`.
        experts: names, configs, or a mapping from name to config.
        weights: "ema", "em", "batch-mean" or "uniform"; see :mod:`amfvi.stage_two`.
        beta: momentum of "ema" and "batch-mean", in [0, 1).
        n_draws: how many exact draws of a target to spend on training and held-out.
        n_fresh: further draws of a target for the weights alone.
        test_fraction: part of given draws set aside for ``amfvi.evaluate``.
        names, support, nonfinite: of given draws, see :meth:`Draws.of`.
        seed: of everything random. Same seed, same machine, same numbers.
        device: "auto", "cpu", "cuda", …
        time_limit: seconds for stage one; training stops in time at its best state.
        progress: told how far each expert is.

    Returns:
        The mixture; ``mixture.summary`` says how it was fitted.

    Raises:
        UsageError: an unknown name or an option that does not apply to ``data``.
        InputError: draws that no density can be fitted to.
        FitError: an expert or the weights could not be fitted.

    References:
        AMF-VI: arXiv:2510.02056.
    """
    check_options(weights, beta, seed, time_limit)
    configs = expert_families.resolve(experts)
    chosen_device = resolve_device(device)
    split = split_data(
        data,
        n_draws=n_draws,
        n_fresh=n_fresh,
        test_fraction=test_fraction,
        names=names,
        support=support,
        nonfinite=nonfinite,
        seed=seed,
    )
    mixture, _ = fit_split(
        split,
        configs,
        rule=weights,
        beta=beta,
        seed=seed,
        device=chosen_device,
        time_limit=time_limit,
        progress=progress,
    )
    return mixture


def split_data(
    data: Any,
    *,
    n_draws: int,
    n_fresh: int,
    test_fraction: float,
    seed: int,
    n_test: int = N_TEST,
    **checks: Any,
) -> Split:
    """The draws behind ``data`` by role; arguments as for :func:`fit`."""
    if isinstance(data, str):
        data = targets.get(data)
    if isinstance(data, Target):
        return split_target(data, n_draws, n_fresh, seed, n_test)
    if n_fresh:
        raise UsageError("fresh draws (n_fresh) need a named target; a file of draws has no more")
    if not isinstance(data, Draws):
        data = Draws.of(data, **checks)
    return split_draws(data, test_fraction, seed)


def fit_split(
    split: Split,
    configs: Mapping[str, ExpertConfig],
    *,
    rule: str = "ema",
    beta: float = 0.9,
    seed: int = 0,
    device: torch.device | str = "cpu",
    time_limit: float | None = None,
    progress: StageOneProgress | None = None,
) -> tuple[Mixture, FitSummary]:
    """Both stages on draws that are already split. A pure function of its arguments.

    Raises:
        FitError: an expert or the weights could not be fitted.
    """
    started = time.monotonic()
    box = split.support
    fitted = fit_experts(
        configs,
        box.to_unconstrained(split.train)[0],
        box.to_unconstrained(split.heldout)[0],
        seed=seed,
        device=device,
        progress=progress,
        time_limit=time_limit,
    )
    stage_one_done = time.monotonic()
    experts = {name: one.expert for name, one in fitted.items()}
    # The Jacobian of the support shifts each row by a constant, which changes no weight.
    unconstrained = box.to_unconstrained(split.for_weights)[0].to(device)
    found = fit_weights(log_densities(experts, unconstrained), rule, beta=beta)
    summary = FitSummary(
        split=split,
        reports={name: one.report for name, one in fitted.items()},
        weights=found,
        seconds={
            "stage_one": stage_one_done - started,
            "stage_two": time.monotonic() - stage_one_done,
        },
    )
    mixture = Mixture(
        experts, found.weights, support=box, names=split.names, seed=seed, summary=summary
    )
    return mixture, summary


def check_options(rule: str, beta: float, seed: int, time_limit: float | None) -> None:
    """Check what can be checked before any draw is made or read.

    Raises:
        UsageError: an unknown weight rule or a number out of range.
    """
    if rule not in RULES:
        raise unknown_name("weight rule", rule, RULES)
    if not 0 <= beta < 1:
        raise UsageError(f"--beta must be in [0, 1), found {beta}")
    if seed < 0:
        raise UsageError(f"--seed cannot be negative, found {seed}")
    if time_limit is not None and not time_limit > 0:
        raise UsageError(f"the time limit must be positive, found {time_limit}")


def resolve_device(device: torch.device | str) -> torch.device:
    """The device meant; "auto" is CUDA where there is one, else the CPU.

    Raises:
        UsageError: an unknown device, or one this machine does not have.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here ({reason})") from None
    return chosen
