"""The mixture: a normalized torch distribution whose draws follow its density."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import amfvi
from amfvi import mixture as mixture_module
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts import MAF
from amfvi.experts.matrix import optimism_corrected_log_densities
from amfvi.mixture import Mixture

WEIGHTS = (0.5, 0.3, 0.2)


@pytest.fixture
def parts(fitted):
    return {kind: fitted(kind, 2)[0] for kind in ("maf", "realnvp", "rbig")}


@pytest.fixture
def mixture(parts):
    return Mixture(parts, WEIGHTS, names=("a", "b"))


@pytest.fixture
def bounded(parts):
    constraints = Constraints((0.0, -1.0), (math.inf, 4.0))
    return Mixture(parts, WEIGHTS, transform=UnconstrainingTransform(constraints))


def test_log_prob_is_the_log_of_the_weighted_sum(mixture, parts, curved):
    x = curved(2, 300, 8)
    densities = torch.stack([parts[k].log_prob(x).exp() for k in parts], dim=1)
    expected = (densities @ torch.tensor(WEIGHTS, dtype=torch.float64)).log()
    assert torch.allclose(mixture.log_prob(x), expected, atol=1e-12)
    assert torch.allclose(mixture.expert_log_probs(x).exp(), densities)
    shares = mixture.responsibilities(x)
    assert torch.allclose(shares.sum(dim=-1), torch.ones(300, dtype=torch.float64))
    assert torch.allclose(shares[:, 0], 0.5 * densities[:, 0] / expected.exp())


def test_shapes_follow_torch(mixture):
    assert mixture.event_shape == (2,)
    assert mixture.batch_shape == ()
    assert mixture.sample().shape == (2,)
    assert mixture.sample((3, 4)).shape == (3, 4, 2)
    assert mixture.sample((0,)).shape == (0, 2)
    assert mixture.log_prob(mixture.sample((3, 4))).shape == (3, 4)
    assert mixture.log_prob([0.0, 1.0]).shape == ()
    assert mixture.log_prob(np.zeros((5, 2))).shape == (5,)
    assert mixture.log_prob(torch.zeros(0, 2)).shape == (0,)
    assert mixture.log_prob(torch.zeros(4, 2, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_follow_the_density(mixture, seed, goodness_of_fit):
    draws = mixture.sample((10_000,), torch.Generator().manual_seed(seed))
    assert goodness_of_fit(draws, mixture.log_prob, ((-6, 6), (-6, 6))) > 2e-5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_inside_bounds_follow_the_density(bounded, seed, goodness_of_fit):
    draws = bounded.sample((10_000,), torch.Generator().manual_seed(seed))
    assert bool(bounded.constraints.contains(draws).all())
    assert goodness_of_fit(draws, bounded.log_prob, ((0, 12), (-1, 4))) > 2e-5


def test_every_stretch_of_draws_is_the_whole_mixture(parts, fitted):
    """Draws in blocks by expert would corrupt every subsample: two far apart must mix."""
    near, far = parts["maf"], fitted("maf", 2)[0]
    two = Mixture({"near": near, "far": _Shifted(far, 1000.0)}, [0.5, 0.5])
    from_far = two.sample((4000,), torch.Generator().manual_seed(0))[:, 0] > 500
    for part in from_far.split(500):
        assert 0.38 < float(part.double().mean()) < 0.62


class _Shifted:
    """An expert moved along the first axis."""

    def __init__(self, expert, by):
        self._expert, self._by = expert, torch.tensor([by, 0.0])
        self.dim, self.device, self.config = expert.dim, expert.device, expert.config

    def sample(self, n, generator):
        return self._expert.sample(n, generator) + self._by

    def log_prob(self, x):
        return self._expert.log_prob(x - self._by)


def test_weights_choose_the_expert_they_name(parts):
    """Each weight belongs to its own expert in density, in draws and in order."""
    moved = {"zero": parts["maf"], "far": _Shifted(parts["maf"], 1000.0)}
    mixture = Mixture(moved, [0.9, 0.1])
    far = mixture.sample((5000,), torch.Generator().manual_seed(1))[:, 0] > 500
    assert float(far.double().mean()) == pytest.approx(0.1, abs=0.02)
    x = torch.tensor([[0.0, 0.0], [1000.0, 0.0]], dtype=torch.float64)
    difference = mixture.log_prob(x)[0] - mixture.log_prob(x)[1]
    assert float(difference) == pytest.approx(math.log(9), abs=1e-6)


def test_bounded_density_integrates_to_one_and_is_nothing_outside(bounded):
    """x₁ ∈ (0, ∞) by a grid in log x₁, so that the mass near zero is seen."""
    log_x = torch.linspace(-14, 9, 700, dtype=torch.float64)
    y = torch.linspace(-1, 4, 401, dtype=torch.float64)
    y = (y[1:] + y[:-1]) / 2
    points = torch.cartesian_prod(log_x.exp(), y)
    mass = bounded.log_prob(points).exp() * points[:, 0]
    assert float(mass.sum()) * (23 / 699) * (5 / 400) == pytest.approx(1, abs=0.01)
    outside = torch.tensor([[-1.0, 0], [0, 0], [1, 5], [1, -1]], dtype=torch.float64)
    assert torch.equal(bounded.log_prob(outside), torch.full((4,), -torch.inf).double())


def test_chunks_change_nothing(mixture, curved, monkeypatch):
    x = curved(2, 1000, 3)
    whole = mixture.log_prob(x), mixture.sample((500,), torch.Generator().manual_seed(0))
    monkeypatch.setattr(mixture_module, "CPU_CHUNK", 64)
    assert torch.allclose(mixture.log_prob(x), whole[0], atol=1e-12)
    again = mixture.sample((500,), torch.Generator().manual_seed(0))
    assert torch.equal(again, whole[1])


def test_draws_follow_torchs_seed_and_a_generator_leaves_it_alone(mixture):
    torch.manual_seed(5)
    first, second = mixture.sample((20,)), mixture.sample((20,))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(first, mixture.sample((20,)))
    before = torch.get_rng_state()
    with_generator = mixture.sample((20,), torch.Generator().manual_seed(5))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(with_generator, mixture.sample((20,), torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_pass_where_the_input_asks_for_them(mixture, bounded, dtype):
    for density in (mixture, bounded):
        x = density.sample((6,), torch.Generator().manual_seed(3)).to(dtype)
        assert not density.log_prob(x).requires_grad
        with torch.no_grad():
            assert not density.log_prob(x.requires_grad_()).requires_grad
        value = density.log_prob(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert torch.allclose(value.detach(), density.log_prob(x.detach()), rtol=1e-5)
        if dtype == torch.float32:
            continue
        for axis in range(2):
            step = torch.zeros(2, dtype=dtype)
            step[axis] = 1e-6
            ahead, behind = density.log_prob(x.detach() + step), density.log_prob(x.detach() - step)
            assert torch.allclose((ahead - behind) / 2e-6, gradient[:, axis], rtol=1e-4, atol=1e-4)


def test_a_gradient_outside_the_support_is_zero_and_chunks_keep_it(bounded, monkeypatch):
    x = torch.tensor([[-1.0, 0.0], [1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    whole = torch.autograd.grad(bounded.log_prob(x.requires_grad_())[1:].sum(), x)[0]
    assert torch.equal(whole[0], torch.zeros(2).double())
    monkeypatch.setattr(mixture_module, "CPU_CHUNK", 1)
    chunked = torch.autograd.grad(bounded.log_prob(x)[1:].sum(), x)[0]
    assert torch.allclose(chunked, whole, atol=1e-12)


def test_a_density_with_a_mixture_as_prior_has_the_gradient_of_both(mixture):
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    both = mixture.log_prob(x) - 0.5 * x.square().sum(dim=1)
    (gradient,) = torch.autograd.grad(both.sum(), x)
    (of_prior,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    assert torch.allclose(gradient, of_prior - x)
    assert bool((of_prior != 0).all())


def test_effective_experts(mixture, parts):
    assert mixture.n_eff == pytest.approx(1 / (0.25 + 0.09 + 0.04))
    assert Mixture(parts, [1, 0, 0]).n_eff == 1
    assert mixture.weights.tolist() == list(WEIGHTS)
    assert list(mixture.experts) == ["maf", "realnvp", "rbig"]


def test_nothing_can_be_changed_from_outside(mixture, curved):
    x = curved(2, 50, 8)
    before = mixture.log_prob(x)
    mixture.weights.fill_(0)
    with pytest.raises(TypeError):
        mixture.experts["maf"] = None
    for name, value in {"weights": torch.ones(3), "names": ("c", "d"), "scale": None}.items():
        with pytest.raises(AttributeError):
            setattr(mixture, name, value)
    assert torch.equal(before, mixture.log_prob(x))


def test_parts_that_do_not_fit_are_refused(parts, fitted):
    with pytest.raises(InputError, match="3 non-negative numbers that sum to 1"):
        Mixture(parts, [0.5, 0.6, 0.2])
    with pytest.raises(InputError, match="sum to 1"):
        Mixture(parts, [1.5, -0.5, 0])
    with pytest.raises(InputError, match="one dimension"):
        Mixture({"a": parts["maf"], "b": fitted("maf", 3)[0]}, [0.5, 0.5])
    with pytest.raises(InputError, match="at least one expert"):
        Mixture({}, [])
    with pytest.raises(InputError, match="3 names"):
        Mixture(parts, WEIGHTS, names=("a", "b", "c"))


def test_wrong_shapes_and_names_are_told(mixture):
    with pytest.raises(InputError, match=r"\(\.\.\., 2\), found \(4, 3\)"):
        mixture.log_prob(torch.zeros(4, 3))
    with pytest.raises(UsageError, match="did you mean rbig"):
        mixture.sample_expert("rbigg", 3, torch.Generator())


def test_nonfinite_and_complex_points_are_refused_whatever_the_support(mixture, bounded):
    for density in (mixture, bounded):
        for point in ([0.0, math.nan], [math.inf, 1.0]):
            with pytest.raises(InputError, match="points must be finite"):
                density.log_prob([point])
        with pytest.raises(InputError, match="real numbers, found dtype complex128"):
            density.log_prob(np.array([[1 + 2j, 1]]))


def test_a_nan_density_names_its_expert(parts):
    class Broken(_Shifted):
        def log_prob(self, x):
            return super().log_prob(x) * math.nan

    broken = Mixture({"good": parts["maf"], "bad": Broken(parts["maf"], 0.0)}, [0.5, 0.5])
    with pytest.raises(FitError, match="expert 'bad' has density NaN at"):
        broken.log_prob(torch.zeros(1, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu(mixture):
    x = mixture.sample((20_000,), torch.Generator().manual_seed(0))
    on_gpu = mixture.to("cuda")
    assert torch.allclose(on_gpu.log_prob(x), mixture.log_prob(x), atol=1e-4)
    assert torch.allclose(on_gpu.to("cpu").log_prob(x), mixture.log_prob(x), atol=1e-10)


def test_fit_joins_both_stages():
    posterior = amfvi.fit("bimodal", n_draws=1500, experts=["rbig", "rbig"], seed=3)
    summary = posterior.summary
    assert list(posterior.experts) == ["rbig", "rbig-2"]
    assert summary.split.n_train == 1200
    assert summary.weights.gap <= 1e-5
    log_q = optimism_corrected_log_densities(posterior.experts, summary.split.folds)
    assert len(log_q) == summary.weights.n == 1500
    assert float(posterior.mix(log_q).mean()) >= float(log_q.mean(dim=0).max()) - 1e-5
    assert {"stage_one", "stage_two"} == set(summary.seconds)


def test_with_one_fold_the_mixture_cannot_lose_on_the_held_out_draws():
    posterior = amfvi.fit("bimodal", n_draws=1500, folds=1, experts=["rbig", "gmm"], seed=3)
    split = posterior.summary.split
    heldout = split.draws[split.fold == 0]
    assert len(heldout) == posterior.summary.weights.n == 300
    log_q = posterior.expert_log_probs(heldout)
    assert float(posterior.log_prob(heldout).mean()) >= float(log_q.mean(dim=0).max()) - 1e-5


def test_experts_do_not_depend_on_their_company():
    alone = amfvi.fit("rings", n_draws=600, experts=["rbig"], seed=1)
    together = amfvi.fit("rings", n_draws=600, experts={"other": "rbig", "rbig": "rbig"}, seed=1)
    x = alone.sample((50,))
    assert torch.equal(alone.expert_log_probs(x)[:, 0], together.expert_log_probs(x)[:, 1])


def test_fresh_draws_decide_the_weights_when_asked_for():
    posterior = amfvi.fit("rings", n_draws=600, n_weight_draws=900, experts=["rbig"], seed=1)
    assert posterior.summary.weights.n == 900


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_rule": "emma"}, "unknown weight_rule= .emma.; did you mean em"),
        ({"beta": 1.5}, "beta= must be in"),
        ({"seed": -1}, "seed= must be in"),
        ({"experts": "maff"}, "did you mean maf"),
        ({"device": "gpu7"}, "device=gpu7 cannot be used here"),
        ({"timeout": 0}, "timeout= must be a positive number of seconds"),
        ({"constraints": {"x1": (0, None)}}, "constraints= goes with an array"),
        ({"names": ["a", "b"]}, "names= goes with an array or a file of draws"),
        ({"test_fraction": 0.2}, "test_fraction= goes with given draws"),
        ({"beta": 0.5, "weight_rule": "uniform"}, "beta= goes with"),
        ({"weights": "em"}, "unknown option of fit 'weights'; did you mean"),
        ({"max_evaluations": 10}, "max_evaluations= goes with a log density"),
        ({"folds": 2.5}, "folds= must be a whole number"),
        ({"n_draws": 5}, "n_draws= must be at least 20"),
    ],
)
def test_wrong_options_fail_before_any_fitting(arguments, message):
    with pytest.raises(UsageError, match=message):
        amfvi.fit("rings", **arguments)


def test_chains_go_with_an_array_and_a_default_dtype_does_no_harm(curved):
    chains = curved(2, 600, 0).reshape(3, 200, 2)
    torch.set_default_dtype(torch.float64)
    try:
        posterior = amfvi.fit(chains, chains=True, experts=[MAF(max_steps=25), "rbig"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert posterior.log_prob(chains).shape == (3, 200)
    half = posterior.log_prob(chains.half())
    assert half.dtype == torch.float16


def test_scores_on_other_draws_have_the_floor_of_those_draws(curved):
    """A floor pooled with the training draws would be that of neither posterior."""
    posterior = amfvi.fit(curved(2, 1000, 0), experts=["rbig"])
    own = amfvi.evaluate(posterior)
    narrow = amfvi.evaluate(posterior, curved(2, 1000, 1) * 0.1)
    assert narrow.floor.w2 < 0.3 * own.floor.w2


def test_fresh_draws_of_an_array_do_not_exist():
    with pytest.raises(UsageError, match="n_weight_draws= goes with exact draws of a target"):
        amfvi.fit(np.random.default_rng(0).normal(size=(200, 2)), n_weight_draws=10)
