"""PyMC, the real one: models as log densities."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

pytest.importorskip("pymc", reason="needs PyMC: the extra pymc")

import amfvi
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.interop import pymc_functions
from amfvi.interop.pymc import transformed_variables

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pymc as pm
    import pytensor.tensor as pt
    from pytensor.graph import Apply, Op

pytestmark = pytest.mark.filterwarnings(
    "ignore:PyTensor could not link to a BLAS",
    "ignore:.*ArviZ is undergoing a major refactor:FutureWarning",
)

EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
SCHOOLS = list("ABCDEFGH")
QUICK = {"experts": ["gmm", "tmm"], "folds": 2, "n_draws": 3000, "seed": 0}


def build_eight_schools():
    with pm.Model(coords={"school": SCHOOLS}) as model:
        mu = pm.Normal("mu", 0.0, 5.0, initval=1.0)
        tau = pm.HalfCauchy("tau", 5.0)
        eta = pm.Normal("eta", 0.0, 1.0, dims="school")
        theta = pm.Deterministic("theta", mu + tau * eta, dims="school")
        pm.Normal("y", theta, ERRORS, observed=EFFECTS, dims="school")
    return model


@pytest.fixture(scope="module")
def eight_schools():
    return build_eight_schools()


@pytest.fixture(scope="module")
def density(eight_schools):
    return amfvi.from_pymc(eight_schools)


@pytest.fixture(scope="module")
def posterior(density):
    return amfvi.fit(density, **QUICK)


def gradients_agree(density, y):
    """The gradient over unconstrained coordinates against finite differences."""
    unconstrained = UnconstrainedDensity(density)
    _, gradient = unconstrained.log_prob_and_gradient(y)
    steps = 1e-5 * torch.eye(y.shape[1]).double()
    differences = torch.stack(
        [(unconstrained.log_prob(y + h) - unconstrained.log_prob(y - h)) / 2e-5 for h in steps],
        dim=1,
    )
    return torch.allclose(gradient, differences, rtol=1e-5, atol=1e-5)


def normal_draws(density, n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, density.constraints.unconstrained_dim, generator=generator).double()


def test_names_dims_coords_and_constraints(density):
    assert density.names == ("mu", "tau", *(f"eta[{j}]" for j in range(1, 9)))
    assert density.constraints.lower == (-math.inf, 0.0, *[-math.inf] * 8)
    mu, tau, eta = density.variables.each
    assert (mu.shape, tau.shape, eta.shape, eta.dims) == ((), (), (8,), ("school",))
    assert density.variables.coords["school"].tolist() == SCHOOLS


def test_it_agrees_with_pymc_in_unconstrained_space(eight_schools, density):
    y = normal_draws(density, 20)
    logp, gradient = (
        compiled(eight_schools) for compiled in (pm.Model.compile_logp, pm.Model.compile_dlogp)
    )
    points = [{"mu": p[0], "tau_log__": p[1], "eta": p[2:]} for p in y.numpy()]
    ours, our_gradient = UnconstrainedDensity(density).log_prob_and_gradient(y)
    assert np.allclose(ours, [logp(point) for point in points], rtol=1e-12)
    assert np.allclose(our_gradient, [gradient(point) for point in points], rtol=1e-9)
    assert density.vectorized.calling_convention.startswith("numpy, in batches")
    assert density.vectorized.differentiable
    assert gradients_agree(density, y[:3])


def test_deterministics_are_those_of_pymc(eight_schools, density):
    x = density.transform.from_unconstrained(normal_draws(density, 12)).numpy()
    ours = density.transformed(x.reshape(3, 4, 10))["theta"]
    arrays = {name: a.reshape(3, 4, *a.shape[1:]) for name, a in density.variables.split(x).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        data = arviz.from_dict(posterior=arrays, dims={"eta": ["school"]})
        theirs = pm.compute_deterministics(data.posterior, model=eight_schools, progressbar=False)[
            "theta"
        ]
    assert np.allclose(ours, theirs.values)
    (theta,) = density.transformed_variables.each
    assert (theta.name, theta.shape, theta.dims) == ("theta", (8,), ("school",))
    assert density.transformed_variables.coords["school"].tolist() == SCHOOLS
    assert np.array_equal(transformed_variables(eight_schools, x)["theta"], ours.reshape(12, 8))
    with pytest.raises(InputError, match=r"draws must be \(\.\.\., 10\), found shape \(3,\)"):
        density.transformed(np.ones(3))


def test_a_fit_keeps_dims_and_coords_when_saved_and_loaded(tmp_path):
    with pm.Model(coords={"group": ["north", "south"]}) as model:
        pm.Normal("theta", 0.0, 1.0, dims="group")
    density = amfvi.from_pymc(model)
    posterior = amfvi.fit(density, experts=["gmm"], folds=2, n_draws=500, seed=0)
    restored = amfvi.load(posterior.save(tmp_path / "model"))
    for each in (posterior, restored):
        assert each.variables.each[0].dims == ("group",)
        assert each.variables.coords["group"].tolist() == ["north", "south"]


def test_constraints_of_many_kinds_by_hand():
    with pm.Model() as model:
        shares = pm.Dirichlet("shares", np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]))
        rate = pm.Uniform("rate", -1.0, 2.0, initval=0.5)
        half = pm.TruncatedNormal("half", 0.0, 1.0, upper=np.array([1.0, np.inf]))
        scale = pm.HalfNormal("scale", default_transform=None)
        cuts = pm.Normal("cuts", 0.0, 1.0, shape=3, initval=[0, 1, 2],
                         transform=pm.distributions.transforms.ordered)  # fmt: skip
        pm.Potential("tilt", -scale * shares[0, 0] + rate * cuts[0] + half[1])
    density = amfvi.from_pymc(model)
    lower, upper = np.array(density.constraints.lower), np.array(density.constraints.upper)
    assert lower[6:10].tolist() == [-1.0, -math.inf, -math.inf, 0.0]
    assert upper[6:10].tolist() == [2.0, 1.0, math.inf, math.inf]
    kinds = [(vector.kind, vector.columns) for vector in density.constraints.vectors]
    assert kinds == [("simplex", slice(0, 3)), ("simplex", slice(3, 6)), ("ordered", slice(10, 13))]
    y = normal_draws(density, 6)
    x = density.transform.from_unconstrained(y).numpy()
    by_hand = (
        np.log([stats.dirichlet.pdf(p / p.sum(), [1, 2, 3]) for p in x[:, :3]])
        + np.log([stats.dirichlet.pdf(p / p.sum(), [2, 2, 2]) for p in x[:, 3:6]])
        - math.log(3)
        + stats.norm.logpdf(x[:, 7]) - stats.norm.logcdf(1.0) + stats.norm.logpdf(x[:, 8])
        + stats.halfnorm.logpdf(x[:, 9])
        + stats.norm.logpdf(x[:, 10:13]).sum(axis=1)
        - x[:, 9] * x[:, 0] + x[:, 6] * x[:, 10] + x[:, 8]
    )  # fmt: skip
    assert np.allclose(density.log_prob(torch.from_numpy(x)), by_hand)
    assert gradients_agree(density, y)
    assert density.transformed(x) == {}


def test_what_amfvi_cannot_constrain_stays_transformed_and_comes_back():
    with pm.Model(coords={"group": ["a", "b", "c"]}) as model:
        top = pm.HalfNormal("top")
        x = pm.Uniform("x", 0.0, top)
        z = pm.ZeroSumNormal("z", 1.0, dims="group")
        pm.Deterministic("both", x + z, dims="group")
    density = amfvi.from_pymc(model)
    assert density.names == ("top", "x_interval__", "z_zerosum__[1]", "z_zerosum__[2]")
    assert density.constraints.lower == (0.0, *[-math.inf] * 3)
    points = density.transform.from_unconstrained(normal_draws(density, 5))
    found = density.transformed(points)
    top, y = points.numpy()[:, 0], points.numpy()[:, 1]
    inside = 1 / (1 + np.exp(-y))
    assert np.allclose(found["x"], top * inside)
    assert np.allclose(found["z"].sum(axis=1), 0.0)
    assert np.allclose(found["both"], found["x"][:, None] + found["z"])
    by_hand = (
        stats.halfnorm.logpdf(top)
        + np.log(inside * (1 - inside))  # the Jacobian's factor top cancels
        + stats.norm.logpdf(points.numpy()[:, 2:]).sum(axis=1)
    )
    assert np.allclose(density.log_prob(points), by_hand)
    variables = {each.name: each.dims for each in density.transformed_variables.each}
    assert variables == {"x": (), "z": ("group",), "both": ("group",)}


@pytest.mark.slow
def test_a_cholesky_factor_comes_back_as_correlations():
    with pm.Model() as model:
        chol, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=2, sd_dist=pm.Exponential.dist(1.0))
        data = np.random.default_rng(0).normal(size=(10, 3))
        pm.MvNormal("y", mu=np.zeros(3), chol=chol, observed=data)
    density = amfvi.from_pymc(model)
    x = normal_draws(density, 4)
    logp = model.compile_logp()
    (value,) = model.value_vars
    assert np.allclose(density.log_prob(x), [logp({value.name: row}) for row in x.numpy()])
    found = density.transformed(x)
    assert np.allclose(np.diagonal(found["chol_corr"], axis1=1, axis2=2), 1.0)
    diagonal = found["chol"][:, [0, 2, 5]]
    assert np.allclose(np.exp(x.numpy()[:, [0, 2, 5]]), diagonal)


def discrete():
    pm.Poisson("k", 3.0)
    pm.Bernoulli("b", 0.5)


def observed_alone():
    pm.Normal("y", 0.0, 1.0, observed=np.ones(3))


def minibatch():
    batch = pm.Minibatch(np.zeros(100), batch_size=10)
    pm.Normal("y", pm.Normal("mu"), observed=batch, total_size=100)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (discrete, "discrete free variables cannot be fitted: k, b; .*pymc-extras"),
        (observed_alone, "no free variables"),
        (minibatch, "is random, from a pm.Minibatch"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fill, message):
    with pm.Model() as model:
        fill()
    with pytest.raises(UsageError, match=message) as error:
        amfvi.from_pymc(model)
    assert "\n" not in str(error.value)


def test_another_thing_than_a_model_is_refused():
    with pytest.raises(UsageError, match=r"needs a pymc.Model, found int"):
        amfvi.from_pymc(3)


class BlackBox(Op):
    """A likelihood that PyTensor can neither differentiate nor compute for a batch."""

    def make_node(self, x):
        return Apply(self, [pt.as_tensor(x)], [pt.dscalar()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(-0.5 * (inputs[0] ** 2).sum())


def test_a_model_without_a_gradient():
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        pm.Potential("likelihood", BlackBox()(x))
    with pytest.warns(AmfviWarning, match="has no gradient"):
        density = amfvi.from_pymc(model)
    points = normal_draws(density, 5)
    assert torch.allclose(density.log_prob(points), -0.5 * points.square().sum(dim=1))
    assert not density.vectorized.differentiable


def test_without_a_version_for_batches_points_are_taken_one_by_one(density, monkeypatch):
    points = density.transform.from_unconstrained(normal_draws(density, 7))
    monkeypatch.setattr(pymc_functions, "_compile_vectorized", lambda *_: None)
    one_by_one = amfvi.from_pymc(build_eight_schools())
    assert torch.allclose(one_by_one.log_prob(points), density.log_prob(points), rtol=1e-12)
    assert np.allclose(
        one_by_one.transformed(points)["theta"], density.transformed(points)["theta"]
    )


def test_many_points_are_taken_in_parts(density, monkeypatch):
    points = density.transform.from_unconstrained(normal_draws(density, 100))
    expected = density.log_prob(points)
    monkeypatch.setattr(pymc_functions, "CHUNK_ROWS", (1, 7))
    with pm.Model() as model:
        x = pm.Normal("x", shape=10)
        pm.Deterministic("fixed", pt.zeros(3))
    small = amfvi.from_pymc(model)
    y = normal_draws(small, 100)
    assert np.allclose(small.log_prob(y), stats.norm.logpdf(y).sum(axis=1))
    assert small.transformed(y)["fixed"].shape == (100, 3)
    assert len(small.log_prob(y[:0])) == 0
    assert expected.shape == (100,)
    assert x.name == "x"


def test_not_a_number_is_zero_density():
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Potential("root", pt.sqrt(x + 1.0))
    density = amfvi.from_pymc(model)
    with pytest.warns(AmfviWarning, match="not a number at some points"):
        values = density.log_prob(torch.tensor([[-3.0], [0.0]]).double())
    assert values.tolist() == [-math.inf, pytest.approx(1 - 0.5 * math.log(2 * math.pi))]


def test_data_are_those_at_the_call():
    with pm.Model() as model:
        shift = pm.Data("shift", 1.0)
        pm.Normal("x", shift, 1.0)
    density = amfvi.from_pymc(model)
    with model:
        pm.set_data({"shift": 100.0})
    at_one = density.log_prob(torch.tensor([[1.0]]).double())
    assert float(at_one) == pytest.approx(-0.5 * math.log(2 * math.pi))


def sample_nuts(model):
    with model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pm.sample(
            2000, tune=1000, chains=2, cores=1, random_seed=1, target_accept=0.95,
            progressbar=False, compute_convergence_checks=False,
        )  # fmt: skip


@pytest.mark.slow
def test_means_and_sds_are_those_of_nuts(eight_schools, density, posterior):
    """And the gradient is worth its cost: more effective draws of the same mixture's size."""
    trace = sample_nuts(eight_schools).posterior
    draws = posterior.corrected_draws(4000)
    ours = density.variables.split(draws.numpy()) | density.transformed(draws)
    for name in ("mu", "tau", "eta", "theta"):
        theirs = trace[name].values.reshape(-1, *ours[name].shape[1:])
        scale = theirs.std(axis=0)
        assert (np.abs(ours[name].mean(axis=0) - theirs.mean(axis=0)) < 0.15 * scale).all(), name
        assert np.allclose(ours[name].std(axis=0) / scale, 1.0, atol=0.2), name
    without = amfvi.LogDensity(
        density.function, density.dim, names=density.names, constraints=density.constraints
    )
    plain = amfvi.fit(without, **QUICK)
    share, plain_share = (
        each.diagnostics.ess / each.diagnostics.n_draws for each in (posterior, plain)
    )
    print(f"effective share {share:.2f} with the gradient, {plain_share:.2f} without")
    assert share > 0.3
    assert posterior.diagnostics.log_z == pytest.approx(plain.diagnostics.log_z, abs=0.1)
