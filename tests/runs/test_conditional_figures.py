"""Figures of parameters against a condition: a panel each, true to the density, and not empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import amfvi
from amfvi.runs.conditional_figures import condition_figure, draw_condition_figures


@pytest.fixture(scope="module")
def model():
    """y₁ = ±(2 + c₁), one to three times as often below, and y₂ = c₂, with little noise."""
    random = np.random.default_rng(0)
    c = random.uniform(size=(600, 2))
    sign = np.where(random.random(600) < 0.25, 1.0, -1.0)
    y = np.column_stack([sign * (2 + c[:, 0]), c[:, 1]]) + 0.05 * random.normal(size=(600, 2))
    return amfvi.fit(y, given=c, names=["branch", "level"], given_names=["a", "b"], experts="gmm")


def held_back(model):
    return model.summary.split.test_given, model.summary.split.test


def test_a_file_for_each_condition_none_of_them_empty(model, tmp_path):
    paths = draw_condition_figures(model, *held_back(model), tmp_path)
    assert [path.name for path in paths] == ["condition.png", "condition-2.png"]
    assert all(len(np.unique(imread(path).reshape(-1, 4), axis=0)) > 500 for path in paths)


def test_panels_show_the_branches_the_bands_and_the_pairs(model):
    figure = condition_figure(model, *held_back(model), 0)
    above, above_2, below, below_2, _ = figure.axes
    assert [ax.get_title() for ax in (above, above_2)] == ["branch", "level"]
    assert [ax.get_xlabel() for ax in (below, below_2)] == ["a", "a"]
    image = np.asarray(below.images[0].get_array())
    low, high = below.get_ylim()
    rows = (np.arange(len(image)) + 0.5) / len(image) * (high - low) + low
    shares = np.array([image[rows < 0].sum(), image[rows > 0].sum()])
    assert shares / shares.sum() == pytest.approx([0.75, 0.25], abs=0.06)
    assert image[np.abs(rows) < 1.5].max() < 0.05  # nothing between the branches
    assert len(below.lines[0].get_xdata()) > 15  # of 90 pairs the nearest quarter
    # The central half is of the branch with most of the mass, whose median is −(2 + c).
    median = above.lines[1]
    assert np.nanmax(np.abs(median.get_ydata() + 2 + median.get_xdata())) < 0.2


def test_one_condition_and_one_parameter():
    generator = torch.Generator().manual_seed(0)
    c = torch.rand(200, 1, generator=generator).double()
    model = amfvi.fit(c + 0.1 * torch.randn(200, 1, generator=generator), given=c, experts="gmm")
    figure = condition_figure(model, *held_back(model), 0)
    upper, lower, _ = figure.axes
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("x1", "c1")
    assert len(lower.lines[0].get_xdata()) >= 28  # all pairs but those at the ends
