"""Seeds of mixtures are those of scikit-learn, which takes seconds to import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.cluster import kmeans_plusplus

from amfvi.experts.elliptical.seeding import seed_points


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_the_choice_is_that_of_scikit_learn(seed, weighted):
    generator = np.random.default_rng(seed)
    n, d, k = generator.integers(50, 400), generator.integers(1, 6), generator.integers(1, 20)
    points = generator.normal(size=(n, d))
    weights = generator.uniform(size=n) if weighted else None
    expected, _ = kmeans_plusplus(
        points, k, random_state=np.random.RandomState(seed), sample_weight=weights
    )
    seeds = seed_points(points, k, np.random.RandomState(seed), weights)
    assert np.array_equal(seeds, expected)


def test_points_of_weight_zero_and_repeated_points_are_no_trouble():
    points = np.repeat([[0.0], [1.0], [5.0]], [10, 10, 1], axis=0)
    weights = np.repeat([1.0, 1.0, 0.0], [10, 10, 1])
    seeds = seed_points(points, 5, np.random.RandomState(0), weights)
    assert {0.0, 1.0} == set(seeds.ravel())


def test_a_fit_to_a_density_imports_none_of_the_slow_libraries():
    program = (
        "import sys, amfvi\n"
        "amfvi.fit(amfvi.LogDensity(lambda x: -x.square().sum(1), 1), experts='gmm',"
        " max_refinements=0)\n"
        "slow = {'sklearn', 'ot', 'scipy.stats', 'matplotlib', 'jax', 'torch._dynamo', 'nflows'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
