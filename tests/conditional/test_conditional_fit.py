"""Conditional mixtures: fitted from every kind of pairs, right, saved, and honest about new c."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import amfvi
from amfvi.errors import FitError, InputError, UsageError
from amfvi.targets.conditional import get

EXACT_KL_AT_200 = {"sinus": 0.15, "saddle": 0.25}  # of two quick experts; measured .09 and .15
QUICK = {"experts": ("nsf", "gmm"), "folds": 2}


def pairs(n, seed=0):
    """y₁ = c₁ + noise, y₂ = ± (1 + c₂²/2) + noise."""
    random = np.random.default_rng(seed)
    c = random.normal(size=(n, 2))
    sign = np.where(random.random(n) < 0.4, -1.0, 1.0)
    y = np.column_stack([c[:, 0], sign * (1 + 0.5 * c[:, 1] ** 2)])
    return y + 0.3 * random.normal(size=(n, 2)), c


@pytest.fixture(scope="module")
def model():
    y, c = pairs(800)
    return amfvi.fit(y, given=c, names=["level", "branch"], given_names=["a", "b"], **QUICK)


@pytest.mark.parametrize("name", ["sinus", pytest.param("saddle", marks=pytest.mark.slow)])
def test_it_is_near_the_exact_density_of_a_target(name):
    target = get(name)
    fitted = amfvi.fit(name, n_draws=200, test_fraction=0.0, seed=0, **QUICK)
    c, y = target.sample(4000, torch.Generator().manual_seed(1))
    kl = float((target.log_prob(y, given=c) - fitted.log_prob(y, given=c)).mean())
    assert 0 < kl < EXACT_KL_AT_200[name]


def test_at_one_condition_it_is_a_mixture_like_any_other(model, tmp_path):
    at = model.given([0.5, -1.0])
    assert isinstance(at, amfvi.Mixture)
    y = at.sample((200,), torch.Generator().manual_seed(0))
    c = torch.tensor([[0.5, -1.0]]).double()
    assert torch.allclose(at.log_prob(y), model.log_prob(y, given=c), atol=1e-10)
    assert torch.allclose(at.log_prob(y), model.log_prob(y, given=c.expand(200, -1)), atol=1e-10)
    assert abs(float(y[:, 0].mean()) - 0.5) < 0.15
    path = amfvi.Posterior.from_mixture(at).save(tmp_path / "at")
    again = amfvi.load(path, device=at.device)
    assert torch.equal(again.log_prob(y), at.log_prob(y))
    by_name = model.given({"b": -1.0, "a": 0.5})
    assert torch.equal(by_name.log_prob(y), at.log_prob(y))


def test_shapes_of_conditions(model):
    generator = torch.Generator().manual_seed(0)
    assert model.sample(5, given=[0.0, 1.0], generator=generator).shape == (5, 2)
    assert model.sample(5, given=[[0.0, 1.0]], generator=generator).shape == (5, 1, 2)
    assert model.sample(5, given=np.zeros((3, 2)), generator=generator).shape == (5, 3, 2)
    assert model.sample(0, given=np.zeros((3, 2))).shape == (0, 3, 2)
    named = model.sample(4, given={"a": 0.0, "b": 1.0}, generator=generator)
    assert named.shape == (4, 2)
    with pytest.raises(InputError, match=r"shape \(\.\.\., 2\), found"):
        model.log_prob([[0.0, 0.0]], given=[[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="3 rows of parameters and 2 of conditions"):
        model.log_prob(np.zeros((3, 2)), given=np.zeros((2, 2)))
    with pytest.raises(InputError, match="a condition is of a, b, found a"):
        model.given({"a": 1.0})
    with pytest.raises(InputError, match="points must be finite"):
        model.given([math.nan, 0.0])


def test_draws_follow_their_own_condition(model):
    c = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    draws = model.sample(4000, given=c, generator=torch.Generator().manual_seed(0))
    assert draws[:, :, 0].mean(dim=0).numpy() == pytest.approx([-2, 2, 0], abs=0.2)
    size = draws[:, :, 1].abs().median(dim=0).values.numpy()
    assert size == pytest.approx([1, 1, 3], rel=0.2)


def test_same_seed_same_model_whatever_the_order_of_experts():
    y, c = pairs(200)
    one, two = (
        amfvi.fit(y, given=c, experts=experts, folds=2, seed=3)
        for experts in (("gmm", "tmm"), ("tmm", "gmm"))
    )
    assert torch.allclose(one.log_prob(y, given=c), two.log_prob(y, given=c), atol=1e-6)


def test_a_saved_model_is_the_same_and_damage_is_noticed(model, tmp_path):
    y, c = pairs(50, seed=5)
    path = model.save(tmp_path / "model")
    restored = amfvi.load(path, device=model.device)
    assert isinstance(restored, amfvi.ConditionalPosterior)
    assert torch.equal(restored.log_prob(y, given=c), model.log_prob(y, given=c))
    assert torch.equal(restored.familiar(c), model.familiar(c))
    assert (restored.names, restored.given_names) == (("level", "branch"), ("a", "b"))
    tensors = path / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-9] ^= 4
    tensors.write_bytes(bytes(data))
    with pytest.raises(InputError, match="SHA-256"):
        amfvi.load(path)


def test_unfamiliar_conditions_are_told(model):
    _, fresh = pairs(2000, seed=7)
    assert float((model.familiar(fresh) < 0.01).double().mean()) <= 0.025
    angle = torch.arange(200) / 200 * 2 * math.pi
    far = 4.5 * torch.stack([angle.cos(), angle.sin()], dim=1).double()
    assert float((model.familiar(far) < 0.01).double().mean()) >= 0.97


def test_it_is_calibrated_on_pairs_that_were_held_back(model):
    calibration = model.calibration()
    assert calibration.n_pairs == 120
    assert str(calibration.verdict) == "calibrated", calibration.reasons


def test_bounds_hold_and_are_given_no_more_mass_than_they_have():
    random = np.random.default_rng(0)
    y = random.uniform(size=400)
    c = y + 0.1 * random.normal(size=400)
    fitted = amfvi.fit(y, given=c, constraints=[(0, 1)], **QUICK)
    draws = fitted.sample(2000, given=np.linspace(0, 1, 11), generator=torch.Generator())
    assert bool(((draws > 0) & (draws < 1)).all())
    assert float(((draws < 0.01) | (draws > 0.99)).double().mean()) < 0.06
    grid = (np.arange(20_000) + 0.5) / 20_000
    for at in (0.0, 0.5, 1.0):
        assert float(fitted.given(at).log_prob(grid[:, None]).exp().mean()) == pytest.approx(
            1, abs=0.02
        )


def test_repeats_of_a_condition_stay_on_one_side():
    y, c = pairs(400)
    c = np.repeat(c[:100], 4, axis=0)
    split = amfvi.fit(y, given=c, experts="gmm", folds=4).summary.split
    fold_of = {}
    for row, fold in zip(split.given.tolist(), split.fold.tolist(), strict=True):
        assert fold_of.setdefault(tuple(row), fold) == fold
    assert not {tuple(row) for row in split.test_given.tolist()} & set(fold_of)


def test_a_file_of_pairs_and_the_names_of_its_conditions(tmp_path):
    y, c = pairs(150)
    np.savetxt(
        tmp_path / "pairs.csv", np.column_stack([c, y]), delimiter=",", header="a,b,level,branch",
        comments="",
    )  # fmt: skip
    fitted = amfvi.fit(tmp_path / "pairs.csv", given=["a", "b"], experts="gmm", folds=2)
    assert (fitted.names, fitted.given_names) == (("level", "branch"), ("a", "b"))
    with pytest.raises(UsageError, match=r"no column 'd' \(columns: a, b, level, branch\)"):
        amfvi.fit(tmp_path / "pairs.csv", given=["d"], experts="gmm")


def test_a_simulator_and_what_it_made():
    def simulate(y):
        return np.sin(y) + 0.1 * np.random.normal(size=np.shape(y))

    simulator = amfvi.Simulator(simulate, torch.distributions.Uniform(0.0, 3.0))
    fitted = amfvi.fit(simulator, n_draws=300, experts="gmm", folds=2)
    again = amfvi.fit(simulator.simulate(300, seed=0), experts="gmm", folds=2)
    assert fitted.constraints.is_constrained
    assert torch.equal(fitted.log_prob([[1.0]], given=[0.8]), again.log_prob([[1.0]], given=[0.8]))


Y, C = pairs(120)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"given": C[:50]}, InputError, "120 rows of parameters and 50 of conditions"),
        ({"given": np.ones((120, 1))}, InputError, "condition 'c1' is constant"),
        ({"given": np.where(C > 1, np.nan, C)}, InputError, "conditions must be finite, found nan"),
        ({"given": C, "given_names": ["a"]}, UsageError, "given_names= must be 2 names"),
        ({"given": C, "given_names": ["x1", "b"]}, UsageError, "none a parameter's"),
        ({"given": C, "experts": "rbig"}, UsageError, "rbig has no conditional form"),
        ({"given": C, "n_draws": 100}, UsageError, "n_draws= goes with a target"),
        ({"given": C, "density": lambda x: x}, UsageError, "density= goes with given draws"),
        ({"given": C, "chains": True}, UsageError, "chains= goes with draws"),
        ({"given_names": ["a"]}, UsageError, "given_names= goes with given="),
        ({"given": np.full((120, 2), "x")}, InputError, "conditions must be real numbers"),
    ],
    ids=lambda value: "" if isinstance(value, type | str) else next(reversed(value)),
)
def test_what_pairs_cannot_be(arguments, error, message):
    with pytest.raises((error, FitError) if error is UsageError else error, match=message):
        amfvi.fit(Y, **{"experts": "gmm", **arguments})


def test_rows_of_weight_zero_do_not_exist():
    y, c = pairs(200)
    weight = np.repeat([1.0, 0.0], 100)
    kept = amfvi.fit(y[:100], given=c[:100], experts="gmm", folds=2)
    zero = amfvi.fit(y, given=c, sample_weight=weight, experts="gmm", folds=2)
    assert torch.allclose(zero.log_prob(y, given=c), kept.log_prob(y, given=c), atol=1e-6)


def test_a_condition_of_two_values_is_a_group():
    random = np.random.default_rng(0)
    group = (random.random(300) < 0.5).astype(float)
    fitted = amfvi.fit(3 * group + 0.2 * random.normal(size=300), given=group, experts="gmm")
    draws = fitted.sample(2000, given=[0.0, 1.0], generator=torch.Generator().manual_seed(0))
    assert draws.mean(dim=0).flatten().numpy() == pytest.approx([0, 3], abs=0.1)


@pytest.mark.parametrize("given", [None, "x", ["a", "b"], [[1.0, 2.0], [3.0]]])
def test_a_condition_that_is_no_numbers_is_named(model, given):
    with pytest.raises(InputError, match="numbers are expected, found"):
        model.given(given)


def test_a_fit_without_a_condition_is_not_called_damaged(tmp_path):
    amfvi.fit("banana", experts="gmm", n_draws=200, folds=2).save(tmp_path / "model")
    with pytest.raises(InputError, match="a fit without a condition; this is of fits to pairs"):
        amfvi.ConditionalPosterior.read(tmp_path / "model")


def test_what_is_only_for_a_posterior_or_makes_no_draws(model, tmp_path):
    with pytest.raises(UsageError, match="scores are of a mixture without a condition"):
        amfvi.evaluate(model)
    with pytest.raises(UsageError, match="whole number of at least 0, found -1"):
        model.sample(-1, given=[0.0, 0.0])
    with pytest.raises(UsageError, match="names of its columns, found ndarray"):
        amfvi.fit(tmp_path / "pairs.csv", given=C)
