"""One expert alone: fitted to plain draws, used as a density."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts import RBIG, Folds

QUICK = RBIG(max_layers=8)


@pytest.mark.usefixtures("global_state_untouched")
def test_an_expert_is_fitted_to_plain_draws_and_is_a_density(kind, quick, curved):
    expert = quick[kind].fit(curved(2, 400, 0).numpy(), folds=2)
    assert expert.n_members == 2
    assert expert.report.heldout_nll <= expert.report.history[0].heldout_nll
    x = expert.sample((3, 4), torch.Generator().manual_seed(0))
    assert x.shape == (3, 4, 2)
    assert expert.log_prob(x).shape == (3, 4)
    assert torch.equal(expert.to("cpu").log_prob(x), expert.log_prob(x))
    assert expert.to("cpu").report is expert.report


def test_arrays_tensors_and_lists_of_the_same_draws_give_the_same_expert(curved):
    draws = curved(1, 100, 0)
    forms = (draws, draws.numpy(), draws.tolist(), draws[:, 0], draws.clone().requires_grad_())
    values = [QUICK.fit(form).log_prob(draws) for form in forms]
    assert all(torch.equal(value, values[0]) for value in values)


def test_the_seed_decides(curved):
    draws = curved(2, 200, 0)
    first, second, other = (QUICK.fit(draws, seed=s).log_prob(draws) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_equal_weights_are_no_weights(curved):
    draws = curved(2, 200, 0)
    weighted = QUICK.fit(draws, sample_weight=np.full(200, 3.0))
    assert torch.allclose(weighted.log_prob(draws), QUICK.fit(draws).log_prob(draws))


@pytest.mark.parametrize("n_folds", [1, 2, 5])
def test_every_row_is_in_one_fold_of_equal_size(n_folds, curved):
    generator = torch.Generator().manual_seed(0)
    folds = Folds.from_array(curved(2, 103, 0), n_folds=n_folds, generator=generator)
    sizes = [len(rows) for rows in folds.heldout_rows]
    assert folds.n_members == n_folds
    assert sum(sizes) == (21 if n_folds == 1 else 103)
    assert max(sizes) - min(sizes) <= 1


def test_samples_follow_the_global_generator_unless_one_is_given(curved):
    expert = QUICK.fit(curved(2, 200, 0))
    state = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        first, second = expert.sample(5), expert.sample(5)
        torch.manual_seed(0)
        assert torch.equal(expert.sample(5), first)
    finally:
        torch.set_rng_state(state)
    assert not torch.equal(first, second)
    assert expert.sample().shape == (2,)
    assert expert.sample(0).shape == (0, 2)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([[1.0, np.nan]], {}, InputError, r"draws must be finite, found nan at index \(0, 1\)"),
        (np.zeros((3, 2, 2)), {}, InputError, r"shape \(n, d\) or \(n,\), found \(3, 2, 2\)"),
        (np.zeros((0, 2)), {}, InputError, r"found \(0, 2\)"),
        (np.zeros((5, 2), complex), {}, InputError, "draws must be real numbers, found ndarray"),
        (
            torch.zeros(5, dtype=torch.complex64),
            {},
            InputError,
            "found torch.complex64",
        ),
        ([["a"]], {}, InputError, "draws must be real numbers, found list"),
        ([[1.0], [1.0, 2.0]], {}, InputError, "draws must be an array of real numbers"),
        (np.zeros(9), {"folds": 0}, UsageError, "folds must be between 1 and .* found 0"),
        (np.zeros(3), {}, UsageError, r"between 1 and the number of draws \(3\), found 5"),
        (np.zeros(9), {"sample_weight": np.ones(8)}, InputError, "must hold 9 non-negative"),
        (np.zeros(9), {"sample_weight": -np.ones(9)}, InputError, "must hold 9 non-negative"),
        (np.zeros(9), {"sample_weight": np.zeros(9)}, InputError, "with a positive sum"),
    ],
)
def test_draws_that_are_not_finite_real_numbers_are_refused(x, options, error, message):
    with pytest.raises(error, match=message):
        QUICK.fit(x, **options)


def test_folds_are_refused_with_the_method_that_takes_them(curved):
    with pytest.raises(InputError, match="fit_folds"):
        QUICK.fit(Folds.holdout(curved(2, 50, 0), curved(2, 50, 1)))


@pytest.mark.parametrize(
    ("wrong", "is_refused"), [(1, False), (9, False), (11, True), (1000, True)]
)
def test_an_inverse_may_be_inexact_at_outliers_alone(wrong, is_refused, curved, monkeypatch):
    """Of 1,000 draws 1% may be where a map is too steep; an inverse that is wrong is refused."""
    draws = curved(2, 1000, 0)
    expert, folds = QUICK.fit(draws, folds=1), Folds(draws, torch.zeros(1000, dtype=torch.int64))
    right = expert._from_normal

    def spoiled(u):
        z, log_det = right(u)
        z[:, :, :wrong] *= 1.001
        return z, log_det

    monkeypatch.setattr(expert, "_from_normal", spoiled)
    if is_refused:
        with pytest.raises(FitError, match=f"rbig: .* not invertible .* at {wrong / 10:.1f}%"):
            expert.verify(folds)
    else:
        expert.verify(folds)
