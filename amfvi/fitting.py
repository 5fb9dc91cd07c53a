"""One call from whatever describes a posterior to a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from amfvi import experts as expert_families
from amfvi.errors import UsageError
from amfvi.experts import ExpertConfig
from amfvi.inference import infer
from amfvi.log_density import LogDensity
from amfvi.mixture import Mixture
from amfvi.sampler.tempering import SamplerProgress
from amfvi.stage_one import StageOneProgress
from amfvi.two_stages import (
    FOLDS,
    N_DRAWS,
    TEST_FRACTION,
    check_options,
    fit_split,
    resolve_device,
    split_data,
)

__all__ = ["fit"]


def fit(
    data: Any,
    *,
    experts: Sequence[str | ExpertConfig] | Mapping[str, str | ExpertConfig] = (
        expert_families.DEFAULT
    ),
    weights: str = "ema",
    beta: float | None = None,
    n_draws: int | None = None,
    n_fresh: int = 0,
    folds: int = FOLDS,
    test_fraction: float | None = None,
    names: Sequence[str] | None = None,
    support: Any = None,
    draw_weights: Any = None,
    chains: bool = False,
    nonfinite: str | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    time_limit: float | None = None,
    max_calls: int | None = None,
    rounds: int | None = None,
    progress: StageOneProgress | None = None,
    sampler_progress: SamplerProgress | None = None,
) -> Mixture:
    """Fit a mixture of normalizing flows to a posterior.

    Args:
        data: the name of a target, a :class:`~amfvi.targets.Target`, an n × d array or
            tensor of draws, :class:`Draws`, or a :class:`LogDensity`.
        experts: names, configs, or a mapping from name to config.
        weights: "ema", "em", "batch-mean" or "uniform"; see :mod:`amfvi.stage_two`.
        beta: momentum of "ema" and "batch-mean", in [0, 1); 0.9 if not given.
        n_draws: how many draws to fit to, of a target or of the sampler of a log
            density; 10,000 if not given.
        n_fresh: further draws of a target for the weights alone.
        folds: each expert is an ensemble of this many members, each blind to one
            fold; the weights rest on the densities of the blind ones at all draws.
            1 for a single member and a single held-out part.
        test_fraction: part of given draws set aside for ``amfvi.evaluate``; 0.15 if
            not given.
        names, support, chains, nonfinite: of given draws, see :meth:`Draws.of`.
        draw_weights: importance weights of given draws, its ``weights``.
        seed: of everything random. Same seed, same machine, same numbers.
        device: "auto", "cpu", "cuda", …
        time_limit: seconds for stage one, and the sampling before it; each stops in
            time with what there is.
        max_calls: of a log density.
        rounds: of refinement of a fit to a log density; at most 2 if not given.
        progress: told how far each expert is.
        sampler_progress: told how far the sampler is.

    Returns:
        The mixture; ``mixture.summary`` says how it was fitted, and, for a log density,
        ``mixture.diagnostics`` how far to trust it.

    Raises:
        UsageError: an unknown name or an option that does not apply to ``data``.
        InputError: draws that no density can be fitted to.
        FitError: an expert or the weights could not be fitted.

    References:
        AMF-VI: arXiv:2510.02056.
    """
    beta = check_options(weights, beta, seed, time_limit, folds)
    configs = expert_families.resolve(experts)
    chosen_device = resolve_device(device)
    if isinstance(data, LogDensity):
        other = {"n_fresh": n_fresh or None, "names": names, "support": support,
                 "draw_weights": draw_weights, "chains": chains or None,
                 "nonfinite": nonfinite}  # fmt: skip
        for name, value in other.items():
            if value is not None:
                raise UsageError(f"{name} does not go with a log density")
        return infer(
            data,
            configs,
            n_draws=N_DRAWS if n_draws is None else n_draws,
            test_fraction=TEST_FRACTION if test_fraction is None else test_fraction,
            rule=weights,
            beta=beta,
            folds=folds,
            seed=seed,
            device=chosen_device,
            time_limit=time_limit,
            max_calls=max_calls,
            rounds=rounds,
            progress=progress,
            sampler_progress=sampler_progress,
        ).mixture
    if max_calls is not None or rounds is not None:
        raise UsageError("max_calls and rounds go with a log density")
    split = split_data(
        data,
        n_draws=n_draws,
        n_fresh=n_fresh,
        folds=folds,
        test_fraction=test_fraction,
        names=names,
        support=support,
        draw_weights=draw_weights,
        chains=chains,
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
