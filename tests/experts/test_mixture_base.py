"""RealNVP may end in a Gaussian mixture instead of a standard normal."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from amfvi.errors import InputError, UsageError
from amfvi.experts import Folds, RealNVP
from amfvi.experts.attempts import Attempts
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.mixture_base import MixtureBaseFlow
from amfvi.experts.neural import NeuralFlow
from amfvi.interop.nflows import to_nflows

SMALL = RealNVP(layers=2, max_steps=50)
NORMAL = RealNVP(layers=2, max_steps=50, base_components=1)


def bent_modes(n, seed=0, dim=2):
    """Draws (n, d) of two bananas 12 apart, and their log density."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    is_right = torch.rand(n, generator=generator, dtype=torch.float64) < 0.3
    x = z.clone()
    x[:, 1] += z[:, 0].square() - 1
    x[:, 0] += 12.0 * is_right

    def log_p(x):
        parts = []
        for shift, weight in ((0.0, 0.7), (12.0, 0.3)):
            y = x.clone()
            y[:, 0] -= shift
            y[:, 1] -= y[:, 0].square() - 1
            normal = -0.5 * (y.square().sum(dim=1) + dim * math.log(2 * math.pi))
            parts.append(math.log(weight) + normal)
        return torch.stack(parts).logsumexp(dim=0)

    return x, log_p


def kl(expert, log_p, dim=2):
    x, _ = bent_modes(4000, seed=1, dim=dim)
    return float((log_p(x) - expert.log_prob(x)).mean())


@pytest.fixture(scope="module")
def fitted():
    x, log_p = bent_modes(1500)
    expert = SMALL.fit(x, folds=2)
    return x, log_p, expert


def test_separate_bent_modes_are_nearer_with_a_mixture_as_the_base(fitted):
    x, log_p, expert = fitted
    assert isinstance(expert, MixtureBaseFlow)
    assert kl(expert, log_p) < 0.5 * kl(NORMAL.fit(x, folds=2), log_p)


@pytest.mark.parametrize("dim", [2, 4])
def test_the_density_is_that_of_the_draws(dim):
    """Draws of q weighted by p/q have mean weight one, and q is normalized."""
    x, log_p = bent_modes(1500, dim=dim)
    expert = SMALL.fit(x, folds=2)
    draws = expert.sample(20_000, torch.Generator().manual_seed(3))
    log_w = log_p(draws) - expert.log_prob(draws)
    weights = log_w.exp()
    se = float(weights.std()) / 20_000**0.5
    assert abs(float(weights.mean()) - 1) < 4 * se + 1e-3
    assert se < 0.05


def test_many_points_are_evaluated_on_all_cores(fitted):
    """Chunks of the flow within chunks of the whole had waited for each other for ever."""
    x = bent_modes(20_000, seed=2)[0]
    expected = fitted[2].log_prob(x)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        values = fitted[2].log_prob(x)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(values, expected, atol=1e-10)


def test_it_is_restored_to_the_last_bit_and_survives_pickling(fitted):
    x, _, expert = fitted
    for again in (SMALL.restore(2, expert.tensors()), pickle.loads(pickle.dumps(expert))):
        assert isinstance(again, MixtureBaseFlow)
        assert torch.equal(again.log_prob(x), expert.log_prob(x))
        seed = torch.Generator().manual_seed
        assert torch.equal(again.sample(5, seed(0)), expert.sample(5, seed(0)))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("base.means", lambda t: t[:, :, :1]),
        ("base.factors", torch.zeros_like),
        ("base.log_weights", lambda t: t + 1),
        ("flow.input.bias", lambda t: t[..., :0]),
    ],
)
def test_damaged_tensors_are_refused(fitted, name, damage):
    tensors = fitted[2].tensors()
    with pytest.raises(InputError, match=r"gmm|realnvp"):
        SMALL.restore(2, tensors | {name: damage(tensors[name])})
    with pytest.raises(InputError, match=name.removeprefix("base.")):
        SMALL.restore(2, {k: v for k, v in tensors.items() if k != name})


def test_gradients_are_those_of_finite_differences(fitted):
    x, _, expert = fitted
    at = x[:3].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expert.log_prob(at).sum(), at)
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-5
        change = (expert.log_prob(x[:3] + step) - expert.log_prob(x[:3] - step)) / 2e-5
        assert torch.allclose(gradient[:, i], change, atol=1e-5, rtol=1e-4)


def test_each_member_is_that_of_its_own_fold(fitted):
    x, _, _ = fitted
    folds = Folds.from_array(x, n_folds=2, generator=torch.Generator().manual_seed(0))
    expert, report = SMALL.fit_folds(folds, generator=torch.Generator().manual_seed(1))
    heldout = expert.log_prob_out_of_fold(folds)
    assert -float(heldout.mean()) == pytest.approx(report.heldout_nll, abs=1e-4)


def test_one_mode_keeps_the_standard_normal_and_the_very_same_flow():
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double()
    expert, plain = SMALL.fit(x, folds=2), NORMAL.fit(x, folds=2)
    assert isinstance(expert, NeuralFlow)
    assert torch.equal(expert.log_prob(x), plain.log_prob(x))


def straight_modes(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1500, 2, generator=generator).double()
    x[:500, 0] += 9.0
    return x


@pytest.mark.slow
def test_straight_modes_are_mostly_left_to_the_mixture():
    """Now and then held-out draws say by chance that a bend gains a nat or more in all."""
    config = RealNVP(layers=4)
    experts = [config.fit(straight_modes(seed), folds=2) for seed in range(4)]
    mixtures = [expert for expert in experts if isinstance(expert, EllipticalMixture)]
    assert len(mixtures) >= 2
    assert all(expert.config == config for expert in experts)
    assert all("no layer improved" in mixture.report.stopped_by for mixture in mixtures)
    x = straight_modes(9)
    again = config.restore(2, mixtures[0].tensors())
    assert torch.equal(again.log_prob(x), mixtures[0].log_prob(x))


def test_given_a_condition_the_base_is_the_standard_normal():
    x, _ = bent_modes(600)
    assert isinstance(SMALL.fit(x, folds=2, given=1), NeuralFlow)


def test_a_mixture_that_cannot_be_fitted_leaves_the_flow(monkeypatch):
    from amfvi.errors import FitError
    from amfvi.experts.gmm import GMM

    def fail(*args, **kwargs):
        raise FitError("gmm: no mixture has a finite held-out density")

    monkeypatch.setattr(GMM, "fit_mixture", fail)
    assert isinstance(SMALL.fit(bent_modes(300)[0], folds=2), NeuralFlow)


def test_nflows_lacks_such_a_base(fitted):
    with pytest.raises(UsageError, match="base_components=1"):
        to_nflows(fitted[2])


@pytest.mark.parametrize("count", [0, 65, -1, 2.5, True])
def test_a_wrong_number_of_components_is_named(count):
    with pytest.raises(UsageError, match=f"found {count}"):
        RealNVP(base_components=count)


def test_attempts_share_the_time_and_the_progress():
    seen = []
    attempts = Attempts(lambda fraction, nll: seen.append((fraction, nll)), timeout=1000.0)
    attempts.progress(0.0, 0.5)(1.0, 3.0)
    attempts.progress(0.5, 1.0)(0.5, 2.0)
    assert seen == [(0.5, 3.0), (0.75, 2.0)]
    assert 0 < attempts.seconds_left <= 1000.0
    assert Attempts(None, timeout=0.0).seconds_left == 0.0
    assert Attempts(None, None).progress(0.0, 1.0) is None


def test_a_timeout_ends_all_fits_soon():
    x, _ = bent_modes(2000)
    expert = RealNVP().fit(x, timeout=0.5)
    assert expert.report.seconds < 20
    assert torch.isfinite(expert.log_prob(x)).all()
