"""From draws to a mixture: split, stage one, stage two."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from amfvi import targets
from amfvi.draws import Draws
from amfvi.errors import UsageError, unknown_name
from amfvi.experts import ExpertConfig, FitReport
from amfvi.mixture import Mixture, cross_validated_log_densities, log_densities
from amfvi.split import N_TEST, Split, check_folds, split_draws, split_target
from amfvi.stage_one import StageOneProgress, fit_experts
from amfvi.stage_two import RULES, WeightFit, fit_weights
from amfvi.targets import Target

__all__ = ["FitSummary", "check_options", "fit_split", "resolve_device", "split_data"]

N_DRAWS = 10_000
TEST_FRACTION = 0.15
BETA = 0.9
FOLDS = 5


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


def split_data(
    data: Any,
    *,
    seed: int,
    n_draws: int | None = None,
    n_fresh: int = 0,
    folds: int = FOLDS,
    test_fraction: float | None = None,
    **checks: Any,
) -> Split:
    """The draws behind ``data`` by role; arguments as for ``amfvi.fit``, None if not given.

    Raises:
        UsageError: an argument that does not apply to this kind of data.
    """
    if isinstance(data, str):
        data = targets.get(data)
    given = {name: v for name, v in checks.items() if v is not None and v is not False}
    if isinstance(data, Target):
        given |= {} if test_fraction is None else {"test_fraction": test_fraction}
        _refuse(given, "a named target", "draws")
        n_draws = N_DRAWS if n_draws is None else n_draws
        return split_target(data, n_draws, n_fresh, seed, N_TEST, folds)
    for_targets = {"n_draws": n_draws, "n_fresh": n_fresh or None}
    _refuse({k: v for k, v in for_targets.items() if v is not None}, "draws", "a named target")
    if isinstance(data, Draws):
        _refuse(given, "validated draws", "an array")
    else:
        given["weights"] = given.pop("draw_weights", None)
        data = Draws.of(data, **given)
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    return split_draws(data, fraction, seed, folds)


def _refuse(given: Mapping[str, Any], found: str, wanted: str) -> None:
    for name in given:
        option = f"{name} (--{name.replace('_', '-')})"
        raise UsageError(f"{option} goes with {wanted}, the data are {found}")


def fit_split(
    split: Split,
    configs: Mapping[str, ExpertConfig],
    *,
    rule: str = "ema",
    beta: float = BETA,
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
    box, folds = split.support, split.folds
    fitted = fit_experts(
        configs,
        folds,
        seed=seed,
        device=device,
        progress=progress,
        time_limit=time_limit,
    )
    stage_one_done = time.monotonic()
    experts = {name: one.expert for name, one in fitted.items()}
    # The Jacobian of the support shifts each row by a constant, which changes no weight.
    if split.fresh is None:
        log_q = cross_validated_log_densities(experts, folds)
    else:
        log_q = log_densities(experts, box.to_unconstrained(split.fresh)[0].to(device))
    draw_weights = folds.heldout_weights if split.fresh is None else None
    found = fit_weights(log_q, rule, beta=beta, draw_weights=draw_weights)
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
        experts,
        found.weights,
        support=box,
        names=split.names,
        seed=seed,
        scale=split.scale,
        summary=summary,
    )
    return mixture, summary


def check_options(
    rule: str, beta: float | None, seed: int, time_limit: float | None, folds: int
) -> float:
    """Check what can be checked before any draw is made or read; the β to use.

    Raises:
        UsageError: an unknown weight rule, a number out of range, or a β that the
            rule has no use for.
    """
    if rule not in RULES:
        raise unknown_name("weight rule", rule, RULES)
    if beta is not None and rule in ("em", "uniform"):
        raise UsageError(f"--beta goes with ema and batch-mean, the rule is {rule}")
    beta = BETA if beta is None else beta
    if not 0 <= beta < 1:
        raise UsageError(f"--beta must be in [0, 1), found {beta}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed must be in [0, 2**63), found {seed}")
    check_folds(folds)
    if time_limit is not None and not time_limit > 0:
        raise UsageError(f"the time limit must be positive, found {time_limit}")
    return beta


def resolve_device(device: torch.device | str) -> torch.device:
    """The device meant; "auto" is CUDA where there is one, else the CPU.

    Raises:
        UsageError: an unknown device, or one this machine does not have.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here ({reason})") from None
    return chosen
