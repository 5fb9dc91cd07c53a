"""Figures: what they show, whatever the number of parameters and the names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import amfvi
from amfvi.reporting import Reporter
from amfvi.runs.corner import corner_figure, parameters_shown
from amfvi.runs.figures import draw_figures
from amfvi.runs.log import RunLog, SamplerPath
from amfvi.runs.marginal_figures import expert_marginals, interval_figure
from amfvi.runs.regions import SHARES, Regions
from amfvi.runs.sampler_figure import sampler_figure
from amfvi.runs.style import styled
from amfvi.targets import get

HOSTILE = ("$\\frac{", "a" * 200, "<b>&", "θ[1,2]")


def fits(figure: Figure) -> bool:
    """Whether nothing that is drawn reaches beyond the figure."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    slack = 0.01
    return (
        box.x0 >= -slack and box.y0 >= -slack and box.x1 <= width + slack
        and box.y1 <= height + slack
    )  # fmt: skip


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("d", [1, 2, 5, 30])
def test_the_corner_plot_shows_all_pairs_or_those_that_agree_least(d):
    names = [HOSTILE[j % 4] + str(j) for j in range(d)]
    with styled():
        figure = corner_figure(normal(400, d), normal(300, d, 1), names)
        shown = min(d, 8 if d > 10 else 10)
        assert len(figure.axes) == shown * (shown + 1) // 2
        assert fits(figure)


def test_of_many_parameters_those_are_shown_that_agree_least():
    ours, reference = normal(500, 30), normal(500, 30, 1)
    reference[:, 21] += 1
    reference[:, 4] *= 3
    assert {4, 21} <= set(parameters_shown(ours, reference))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("modes", [1, 12])
def test_regions_hold_their_share_of_other_draws(seed, modes):
    random = np.random.default_rng(seed)
    centers = random.uniform(-30, 30, size=(modes, 2))
    draws = centers[random.integers(modes, size=20_000)] + random.normal(size=(20_000, 2))
    window = ((-35.0, 35.0), (-35.0, 35.0))
    regions = Regions.of(draws[:10_000], window)
    assert regions.shares_inside(draws[10_000:]) == pytest.approx(SHARES, abs=0.03)


@pytest.mark.parametrize("d", [3, 30, 75])
def test_labels_of_marginals_and_intervals_fit(d):
    names = [HOSTILE[j % 4] + str(j) for j in range(d)]
    ours = normal(300, d)
    with styled():
        figures = [
            interval_figure(ours, ours, names),
            expert_marginals(ours, ours, {"gmm": (0.7, ours), "maf": (0.3, ours)}, names),
        ]
        assert all(map(fits, figures))


@pytest.fixture(scope="module")
def by_density():
    density = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(1), 3, names=HOSTILE[:3])
    log = RunLog(Reporter())
    posterior = amfvi.fit(density, experts="gmm", n_draws=500, folds=2, reporter=log)
    return posterior, log.sampler_paths


def test_the_log_keeps_the_temperatures_of_each_run(by_density):
    _, paths = by_density
    assert len(paths) >= 2
    for path in paths:
        assert path.betas == sorted(path.betas)
        assert path.betas[-1] == 1
        assert len(path.betas) == len(path.log_zs) == len(path.n_evaluations)


def test_the_figures_of_a_run_by_density(by_density, tmp_path):
    posterior, paths = by_density
    draws = posterior.sample((500,), torch.Generator().manual_seed(0))
    files = draw_figures(posterior, posterior.summary, draws, None, tmp_path, paths=paths)
    assert {file.stem for file in files} == {
        "draws", "intervals", "experts", "sampler", "training", "weights",
    }  # fmt: skip
    assert all(file.stat().st_size < 500_000 for file in files)


@pytest.mark.parametrize("paths", [[], [SamplerPath([0.1, 1.0], [0.0, 0.1], [5, 9])]])
def test_the_sampler_figure_draws_weights_of_zero(by_density, paths):
    posterior, _ = by_density
    log_weights = np.append(posterior.weighted_draws().log_weights.numpy(), -np.inf)
    with styled():
        figure = sampler_figure(posterior.diagnostics, log_weights, paths)
        assert len(figure.axes) == 2 + bool(paths)
        assert fits(figure)


def test_a_bound_far_off_leaves_the_evidence_readable(by_density):
    """One point of density next to zero makes a lower bound of −7e11 nats."""
    posterior, _ = by_density
    found = dataclasses.replace(posterior.diagnostics, elbo=-7.2e11, elbo_se=6e11)
    with styled():
        figure = sampler_figure(found, posterior.weighted_draws().log_weights.numpy(), [])
        evidence = figure.axes[0]
        low, high = evidence.get_xlim()
        assert high - low < 10
        assert "◂ -7.2e+11 ± 6e+11" in [text.get_text() for text in evidence.texts]
        assert fits(figure)


def test_a_target_fitted_by_its_density_is_compared_with_exact_draws(tmp_path):
    target = get("bimodal")
    density = amfvi.LogDensity(target.log_prob, 2)
    posterior = amfvi.fit(density, experts="gmm", n_draws=500, folds=2)
    draws = posterior.sample((300,), torch.Generator().manual_seed(0))
    files = draw_figures(posterior, posterior.summary, draws, target, tmp_path)
    assert {"density", "sampler"} <= {file.stem for file in files}
